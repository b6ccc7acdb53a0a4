"""`tna barrier RUN`: walks the line between every two models of a run (or the named ones) and reports the barriers."""

import dataclasses
import re
from typing import Annotated, Any, cast, get_args

import numpy as np
import tyro
from rich.table import Table

from tna_jax import connectivity
from tna_jax.io.errors import UsageError, unknown
from tna_jax.io.json_files import to_json
from tna_jax.io.provenance import provenance
from tna_jax.placement import Placement
from tna_jax.programs.barrier import report as barrier_report
from tna_jax.programs.cli import parsing, ranges
from tna_jax.programs.cli.launch import launch
from tna_jax.programs.cli.options import DataOptions, ModelOptions
from tna_jax.programs.cli.progress import console, plural, wide_console
from tna_jax.programs.cli.ranges import COUNT
from tna_jax.programs.data import Dataset
from tna_jax.programs.data.search_path import DOWNLOAD
from tna_jax.programs.population import checkpoint_status, compatibility
from tna_jax.programs.population.paths import evaluate_pairs
from tna_jax.programs.runs.folder import CONFIG, Run
from tna_jax.programs.system import distributed
from tna_jax.programs.system.distributed import HostOptions
from tna_jax.programs.training.ensembles import finished
from tna_jax.programs.training.setup import load, result_config

RESULTS = ("barrier.json", "barrier.png")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BarrierOptions(HostOptions):
    """Options of `tna barrier`."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder of tna train (or tna lmc)."""
    pairs: tuple[str, ...] = ()
    """Pairs of models, I-J with numbers from 0 as in plan.json, e.g. 0-1 0-2; default: all pairs."""
    alphas: tuple[float, ...] = (11.0,)
    """Points of the path: their number (odd), or the list of points, which must hold 0, 0.5 and 1."""
    calibration_examples: int = 2000
    """Training examples on which BatchNorm's statistics are estimated again at each point."""
    placement: str = "auto"
    """How the points of a path share a device: auto, map, vmap or loop."""
    data_dir: str | None = None
    """Folder that holds the data sets, if not where $TNA_DATA_DIR says."""
    memory_limit: float | None = None
    """Memory the models may take, in GB; default: a third of what is free."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any work."""
        super().check()
        if self.placement not in get_args(Placement):
            raise unknown("--placement", self.placement, get_args(Placement))
        ranges.require(self, {"calibration_examples": COUNT})

    def chosen(self, models: int) -> np.ndarray:
        """(P, 2) the pairs; raises UsageError for what is no pair of `models` models."""
        if not self.pairs:
            return connectivity.pairs(models)
        found = [re.fullmatch(r"(\d+)-(\d+)", text) for text in self.pairs]
        wrong = [
            text
            for text, match in zip(self.pairs, found, strict=True)
            if match is None or max(int(match[1]), int(match[2])) >= models or match[1] == match[2]
        ]
        if wrong:
            raise UsageError(f"--pairs {' '.join(wrong)}: write I-J with two different numbers from 0 to {models - 1}")
        pairs = [(int(match[1]), int(match[2])) for match in found if match]
        same: dict[frozenset[int], list[str]] = {}
        for text, pair in zip(self.pairs, pairs, strict=True):
            same.setdefault(frozenset(pair), []).append(text)
        twice = [" = ".join(texts) for texts in same.values() if len(texts) > 1]
        if twice:
            raise UsageError(f"--pairs: the same pair more than once: {', '.join(twice)}")
        return np.array(pairs, np.int32)


def main(arguments: list[str]) -> int:
    """The program; returns its exit code."""
    return launch("barrier", BarrierOptions, run, arguments, __doc__)


def run(settings: BarrierOptions) -> dict[str, Any]:
    """Evaluates the pairs and writes barrier.json and barrier.png into the run folder; returns what the JSON holds."""
    settings.check()
    alphas = parsing.grid(settings.alphas)
    folder = Run.open(settings.run).writable()
    config = folder.read(CONFIG)
    settings.start(16)
    described = description(config, settings)
    data, network, init = load(described)
    params, state, models, step = finished(folder, init)
    chosen = settings.chosen(len(models))
    if not len(chosen):
        raise UsageError(f"{folder.folder} has one model; a barrier needs two")
    console.print(
        f"{data.describe()}; {described.describe()}; {plural(len(models), 'model')}, {plural(len(chosen), 'pair')}"
    )
    checkpoints = [checkpoint_status.reached(folder, config, step)]
    walked = [models[i] for i in np.unique(chosen)]
    warnings = checkpoint_status.warn(checkpoints) + compatibility.warn(walked, [config] * len(walked))
    with console.status(f"evaluating {plural(len(chosen), 'path')} of {len(alphas)} points"):
        paths = evaluate_pairs(
            network, params, state, chosen, alphas, data, placement=cast(Placement, settings.placement),
            calibration_examples=settings.calibration_examples, memory_limit=settings.memory_limit,
        )  # fmt: skip
    rows = [
        {
            "pair": chosen[i], "split": split,
            "accuracy_path": path.accuracy[i], "loss_path": path.loss[i],
            **{f"{metric}_barrier_{kind}": connectivity.barrier(path, kind, metric)[i]
               for metric in ("accuracy", "loss") for kind in ("linear", "relative", "midpoint", "ends", "worst")},
        }
        for split, path in paths.items()
        for i in range(len(chosen))
    ]  # fmt: skip
    result = {
        "provenance": provenance([]),
        "run": result_config(config),
        "network": described.describe(),
        "models": models,
        "checkpoints": checkpoints,
        "warnings": warnings,
        "alphas": alphas,
        "rows": rows,
    }
    folder.write("barrier.json", result)
    if distributed.is_main_process():
        barrier_report.figure(to_json(result), folder.folder / "barrier.png")
        _table(to_json(result))
        print(f"wrote {folder.folder / 'barrier.json'} and {folder.folder / 'barrier.png'}")
    return to_json(result)


@dataclasses.dataclass(frozen=True)
class Described(HostOptions, ModelOptions, DataOptions):
    """What of a run's configuration makes its data and network again."""

    def load_data(self) -> Dataset:
        """As in training, but that nothing is downloaded: these programs have no such option."""
        try:
            return super().load_data()
        except UsageError as error:
            raise UsageError(str(error).removesuffix(DOWNLOAD)) from error


def description(config: dict[str, Any], settings: Any) -> Described:
    """The options that `config` holds, but for the folder of the data, which is that of `settings`."""
    known = {field.name for field in dataclasses.fields(Described)}
    hosts_own = {field.name for field in dataclasses.fields(HostOptions)}
    values = {key: value for key, value in config.items() if key in known and key not in hosts_own - {"precision"}}
    return parsing.from_values(Described, {**values, "data_dir": settings.data_dir}, f"{settings.run}/{CONFIG}")


def _table(result: dict[str, Any], split: str = "test") -> None:
    rows = [row for row in result["rows"] if row["split"] == split]
    lines = Table(title=f"{split} set, {result['network']}, {plural(len(rows), 'pair')}", title_justify="left")
    heads = ("pair", "accuracy, ends", "accuracy, midpoint", "accuracy barrier", "relative barrier", "loss barrier")
    for head in heads:
        lines.add_column(head, justify="right")
    middle = result["alphas"].index(0.5)
    values = []
    for row in rows:
        path = [np.nan if value is None else value for value in row["accuracy_path"]]
        barriers = [row["accuracy_barrier_linear"], row["accuracy_barrier_relative"], row["loss_barrier_linear"]]
        values.append([(path[0] + path[-1]) / 2, path[middle], *(np.nan if b is None else b for b in barriers)])
    shown = rows if len(rows) <= 12 else []
    for row, numbers in zip(shown, values, strict=False):
        lines.add_row("-".join(map(str, row["pair"])), *(f"{number:.4f}" for number in numbers))
    lines.add_section()
    array = np.array(values)
    finite = array[np.isfinite(array).all(axis=1)]
    if len(finite) > 1:
        spread = zip(finite.mean(0), finite.std(0, ddof=1), strict=True)
        lines.add_row("mean ± std", *(f"{mean:.4f} ± {std:.4f}" for mean, std in spread))
    wide_console().print(lines)
    if len(finite) < len(array):
        print(f"left out of the means: {len(array) - len(finite)} pairs with a model that diverged")
