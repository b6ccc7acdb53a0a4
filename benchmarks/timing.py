"""Paired timing: the alternatives take turns, so that a machine whose speed drifts slows all of them."""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tna_jax.io.json_files import write_json
from tna_jax.io.provenance import provenance

RESULTS = Path(__file__).resolve().parent / "results"


def paired(
    alternatives: dict[str, Callable[[], Any]],
    rounds: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each alternative in each round; a callable returns only when its work is done.

    By `clock`: `time.process_time` counts this process's time on the processor, which says what work costs where other programs run too.
    """
    for run in alternatives.values():
        for _ in range(warmup):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in alternatives}
    for _ in range(rounds):
        for name, run in alternatives.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return seconds


def ratio(seconds: dict[str, list[float]], slow: str, fast: str) -> float:
    """Median over rounds of seconds(slow) / seconds(fast)."""
    return statistics.median(a / b for a, b in zip(seconds[slow], seconds[fast], strict=True))


def quartiles(seconds: dict[str, list[float]], slow: str, fast: str) -> list[float]:
    """The quartiles over rounds, lower and upper, of seconds(slow) / seconds(fast)."""
    lower, _, upper = statistics.quantiles([a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)], n=4)
    return [lower, upper]


def report(name: str, result: dict[str, Any]) -> None:
    """Prints a result and writes it with its provenance."""
    RESULTS.mkdir(exist_ok=True)
    print(json.dumps({key: value for key, value in result.items() if key != "seconds"}, indent=1))
    write_json(RESULTS / f"{name}.json", {"provenance": provenance([]), **result})
