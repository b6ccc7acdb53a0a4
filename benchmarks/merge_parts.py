"""Where the time of `tna merge` goes: processor seconds of each part of a piece, and whether advice to the kernel makes cold files quicker.

Three models in float32, 40 % of their entries equal, averaged; pieces as `tna_jax.programs.merge.streaming` cuts them, on one thread. The parts
are measured in turns, files in the page cache. Then the files' pages are dropped and they are read piece by piece, the models in turns, without
advice, with `POSIX_FADV_SEQUENTIAL` and with `POSIX_FADV_WILLNEED` for the next pieces: seconds of the clock, in turns. `python -m benchmarks.merge_parts`.
"""

import functools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import paired, quartiles, ratio, report
from tna_jax.io.tensor_headers import Tensor
from tna_jax.programs.merge.streaming import PIECE, Blender, _same

MODELS, PIECES, EQUAL, AHEAD = 3, 48, 0.4, 8


def write(folder: Path) -> list[Tensor]:
    """The models' files: PIECES pieces each."""
    rng = np.random.default_rng(0)
    shared, anchored = rng.standard_normal(PIECE, np.float32), rng.random(PIECE) < EQUAL
    files = [folder / str(i) for i in range(MODELS)]
    for file in files:
        with open(file, "wb") as opened:
            for _ in range(PIECES):
                opened.write(np.where(anchored, shared, rng.standard_normal(PIECE, np.float32)).tobytes())
            opened.flush()
            os.fsync(opened.fileno())
    return [Tensor(file, "F32", (PIECES, PIECE), 0) for file in files]


def parts_of_a_piece(sources: list[Tensor], out: Path) -> dict[str, list[float]]:
    """Processor seconds of each part, a number for each piece."""
    blender, weights, single = Blender(np.dtype(np.float32)), np.ones(MODELS), np.dtype(np.float32)
    seconds: dict[str, list[float]] = {}

    def timed(name: str, run: Callable[[], Any]) -> Any:
        begun = time.thread_time()
        result = run()
        seconds.setdefault(name, []).append(time.thread_time() - begun)
        return result

    with open(out, "wb") as written:
        for first in range(0, PIECES * PIECE, PIECE):
            values = timed("read", lambda: [blender._read(s, i, first, PIECE) for i, s in enumerate(sources)])  # noqa: B023
            same = timed("compare", functools.partial(_same, values))
            equal = timed("count", lambda: int(np.count_nonzero(same)))  # noqa: B023
            timed("similarity", functools.partial(blender._products, values))
            merged = timed("average", functools.partial(blender.average, values, weights, same, equal, single))
            timed("finite", lambda: int(np.count_nonzero(np.isfinite(merged))))  # noqa: B023
            timed("write", functools.partial(written.write, memoryview(merged.view(np.uint8))))
    blender.close()
    return seconds


def read_cold(sources: list[Tensor], advice: str) -> None:
    """Reads all files piece by piece, none of it in memory before."""
    opened = [open(source.file, "rb", buffering=0) for source in sources]  # noqa: SIM115
    for file in opened:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if advice == "sequential":
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
    into, size = memoryview(bytearray(4 * PIECE)), 4 * PIECE
    for piece in range(PIECES):
        for file in opened:
            if advice == "will_need":
                os.posix_fadvise(file.fileno(), (piece + 1) * size, AHEAD * size, os.POSIX_FADV_WILLNEED)
            os.preadv(file.fileno(), [into], piece * size)
    for file in opened:
        file.close()


def main() -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("TNA_BENCH_DIR")) as name:
        sources = write(Path(name))
        parts = parts_of_a_piece(sources, Path(name) / "out")
        alternatives = {
            advice: functools.partial(read_cold, sources, advice) for advice in ("none", "sequential", "will_need")
        }
        cold = paired(alternatives, rounds=9)
    middle = {part: statistics.median(values) * 1e6 for part, values in parts.items()}
    report("merge_parts", {
        "models": MODELS, "bytes_of_a_piece": 4 * PIECE, "load": os.getloadavg(),
        "microseconds_of_a_piece": middle,
        "quartiles": {part: [1e6 * q for q in statistics.quantiles(values, n=4)[::2]] for part, values in parts.items()},
        "moving_share": (middle["read"] + middle["write"]) / sum(middle.values()),
        "cold_seconds": cold,
        "times_without_advice": {advice: ratio(cold, "none", advice) for advice in ("sequential", "will_need")},
        "times_quartiles": {advice: quartiles(cold, "none", advice) for advice in ("sequential", "will_need")},
    })  # fmt: skip


if __name__ == "__main__":
    main()
