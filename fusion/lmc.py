"""`tna lmc`: train pairs of networks with and without anchors, walk the line between them, report the barriers.

digits -> one ensemble of every distinct model -> pairs x alphas in one pass -> table, lmc.json, lmc.png
"""

import dataclasses
import sys
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np

from fusion import lmc_plan, lmc_report
from fusion.lmc_plan import Cell
from tna_jax import connectivity, ensemble, masks
from tna_jax import placement as placements
from tna_jax.connectivity import Path
from tna_jax.metrics import Metrics
from tna_jax.placement import Placement
from train import hosts, options
from train.checkpoints import Checkpoints
from train.config import DataOptions, ModelOptions, RunOptions, TrainingOptions
from train.data import Dataset
from train.errors import UsageError, unknown
from train.progress import Interrupted, TrainingBar, console, stoppable
from train.results import plain, provenance
from train.run import CONFIG, PROVENANCE, Run

RESULTS = ("lmc.json", "lmc.png")
INITS = {"same": ["same"], "different": ["different"], "both": ["same", "different"]}
DRAWS = {"bernoulli": masks.bernoulli, "exact": masks.exact, "neurons": masks.neurons}


@dataclasses.dataclass(frozen=True)
class LmcOptions(RunOptions, TrainingOptions, ModelOptions, DataOptions):
    """Options of `tna lmc`."""

    ratios: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8)
    """Mask ratios: shares of ANCHORED (fixed) weights, in [0, 1); 0 is plain training."""
    seeds: int = 5
    """Number of pairs per setting."""
    first_seed: int = 0
    """Seed of the first pair; the others follow."""
    init: str = "both"
    """Initial values of a pair: same, different (with shared anchors), or both."""
    methods: tuple[str, ...] = ("tna", "prune")
    """tna (anchored weights keep their initial value), prune (they are zero: random pruning at initialisation)."""
    anchors: str = "bernoulli"
    """How anchors are drawn: bernoulli (each weight by itself), exact (an exact count), neurons (whole units)."""
    where: str | None = None
    """Draw anchors only in parameters whose path matches this regular expression; default: in all."""
    alphas: tuple[float, ...] = (11.0,)
    """Points of the path: their number (odd), or the list of points, which must hold 0, 0.5 and 1."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any work."""
        super().check()
        wrong = [ratio for ratio in self.ratios if not 0 <= ratio < 1]
        if wrong or not self.ratios or len(set(self.ratios)) < len(self.ratios):
            reason = (
                f"must lie in [0, 1), got {', '.join(map(str, wrong))}"
                if wrong
                else "must be one or more different numbers"
            )
            raise UsageError(f"--ratios (shares of anchored weights) {reason}")
        if self.seeds < 1:
            raise UsageError(f"--seeds must be at least 1, got {self.seeds}")
        if self.first_seed < 0:
            raise UsageError(f"--first-seed must be at least 0, got {self.first_seed}")
        if self.init not in INITS:
            raise unknown("--init", self.init, INITS)
        if self.anchors not in DRAWS:
            raise unknown("--anchors", self.anchors, DRAWS)
        for method in self.methods:
            if method not in ("tna", "prune"):
                raise unknown("--methods", method, ("tna", "prune"))
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise UsageError("--methods must be one or both of tna, prune")
        if self.resume and (self.overwrite or self.out is None):
            raise UsageError("--resume needs the --out of the run to go on with, and no --overwrite")
        self.grid()

    def grid(self) -> np.ndarray:
        """(A,) the alphas; raises UsageError for a grid without 0, 1/2 and 1."""
        try:
            if len(self.alphas) == 1:
                return connectivity.grid(int(self.alphas[0]))
            return connectivity.check_alphas(self.alphas)
        except ValueError as error:
            raise UsageError(f"--alphas: {error}") from error

    def plan(self) -> tuple[list[lmc_plan.Member], list[Cell]]:
        """The models and pairs of the sweep."""
        seeds = list(range(self.first_seed, self.first_seed + self.seeds))
        return lmc_plan.plan(sorted(self.ratios), seeds, INITS[self.init], list(self.methods))


def main(arguments: list[str]) -> int:
    """The program; returns its exit code."""
    try:
        run(options.parse(LmcOptions, arguments, "lmc", __doc__.splitlines()[0]))
    except UsageError as error:
        print(f"tna lmc: {error}", file=sys.stderr)
        return 2
    except Interrupted:
        return 130
    return 0


def run(settings: LmcOptions) -> dict[str, Any]:
    """Runs the sweep of `settings` in its run folder and returns what `lmc.json` holds."""
    settings.check()
    members, cells = settings.plan()
    hosts.configure(settings.cpu_devices, len(members))
    data = settings.load_data()
    model = settings.build_model(data.num_classes)
    examples = len(data.train.labels)
    if settings.batch_size > examples:
        raise UsageError(f"--batch-size {settings.batch_size} is larger than the {examples} training examples")

    def apply(params, images):
        return model.apply({"params": params}, data.preprocess(images))

    def init(key):
        return model.init(key, jnp.zeros((1, *data.image_shape), jnp.float32))["params"]

    def draw(key, params, ratio):
        return DRAWS[settings.anchors](key, params, ratio, settings.where)

    try:
        jax.eval_shape(lambda key: draw(key, init(key), 0.0), jax.random.key(0))
    except ValueError as error:
        raise UsageError(f"--where: {error}") from error
    folder = Run.create(
        settings.out, f"lmc-{settings.dataset.replace(':', '-')}", RESULTS, settings.overwrite, settings.resume
    )
    _record(folder, settings)
    console.print(f"{data.describe()}; {model.__class__.__name__.lower()}; {len(members)} models in {len(cells)} pairs")

    start = jax.eval_shape(init, jax.random.key(0))
    placement = placements.resolve(cast(Placement, settings.placement), apply, start, data.train.images[:1])
    optimizer = settings.build_optimizer(-(-examples // settings.batch_size))
    trainer = ensemble.Trainer(apply, optimizer, settings.batch_size, placement)
    params, drawn, order = lmc_plan.build(members, init, draw)
    state = ensemble.init_ensemble(trainer, params, order, drawn)
    state, history = _train(trainer, state, data, settings, folder)
    splits = {"train": data.train, "test": data.test}
    with console.status(f"evaluating {len(cells)} paths"):
        paths = _paths(apply, state.params, cells, settings.grid(), splits, placement)
    result = {
        "provenance": {**folder.read(PROVENANCE), "placement": placement},
        "config": plain(settings),
        "alphas": settings.grid(),
        "rows": rows(cells, paths),
        "diverged": _diverged(members, history),
    }
    folder.write("lmc.json", result)
    lmc_report.figure(plain(result), folder.folder / "lmc.png")
    lmc_report.table(plain(result))
    print(f"wrote {folder.folder / 'lmc.json'} and {folder.folder / 'lmc.png'}")
    return plain(result)


def _record(folder: Run, settings: LmcOptions) -> None:
    """Writes the run's configuration and provenance, or compares the configuration of the run to go on with."""
    if not settings.resume:
        seeds = list(range(settings.first_seed, settings.first_seed + settings.seeds))
        folder.write(CONFIG, _lasting(settings))
        folder.write(PROVENANCE, provenance(seeds))
        return
    before, now = folder.read(CONFIG), plain(_lasting(settings))
    changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    if changed:
        found = ", ".join(f"{key} was {before.get(key)}, is {now.get(key)}" for key in changed)
        raise UsageError(f"--resume: the options are not those of {folder.folder}: {found}")


def _lasting(settings: LmcOptions) -> dict[str, Any]:
    """The options that shape the result, as config.json keeps them."""
    passing = ("out", "overwrite", "resume", "checkpoint_minutes", "cpu_devices", "data_dir", "download")
    return {key: value for key, value in dataclasses.asdict(settings).items() if key not in passing}


def _train(trainer, state, data: Dataset, settings: LmcOptions, folder: Run):
    """Trains with a bar, a line in metrics.jsonl per epoch, and checkpoints; returns the members and the (epoch, Metrics)."""
    history: list[tuple[int, Metrics]] = []
    models = state.order.shape[0]
    with Checkpoints(folder.checkpoints, settings.checkpoint_minutes) as saved, stoppable() as stop:
        start, state = saved.restore(state) if settings.resume else (0, state)

        def on_epoch(epoch: int, members: ensemble.Members, found: Metrics) -> None:
            found = jax.tree.map(np.asarray, found)
            finite = np.isfinite(found.loss_sum)
            loss, accuracy = (
                float(x[finite].mean()) if finite.any() else float("nan") for x in (found.loss, found.accuracy)
            )
            speed = bar.epoch(loss, accuracy)
            diverged = np.flatnonzero(~finite)
            folder.log(epoch=epoch, loss=loss, accuracy=accuracy, images_per_second=speed, diverged=diverged)
            history.append((epoch, found))
            if saved.due() or stop.asked or epoch + 1 == settings.epochs:
                saved.save(epoch + 1, members)
            if stop.asked and epoch + 1 < settings.epochs:
                where = folder.folder
                console.print(f"stopped after epoch {epoch + 1} of {settings.epochs}; saved in {where}")
                console.print(f"to go on: the same command with --out {where} --resume")
                stop.check()

        with TrainingBar(models, len(data.train.labels), settings.epochs, start) as bar:
            arrays = (jnp.asarray(data.train.images), jnp.asarray(data.train.labels))
            state, _ = ensemble.train_ensemble(trainer, state, *arrays, settings.epochs, start=start, on_epoch=on_epoch)
    return state, history


def _paths(apply, params, cells: list[Cell], alphas: np.ndarray, splits, placement) -> dict[str, Path]:
    """The path of every cell, in float64 on the host; cells with the same two models are walked once."""
    distinct = sorted({cell.members for cell in cells})
    arrays = {name: (jnp.asarray(split.images), jnp.asarray(split.labels)) for name, split in splits.items()}
    found = connectivity.evaluate_path(apply, params, np.array(distinct), alphas, arrays, how=placement)
    index = np.array([distinct.index(cell.members) for cell in cells])
    return {
        name: Path(alphas, jax.tree.map(lambda x: np.asarray(x, np.float64)[index], path.metrics))
        for name, path in found.items()
    }


def rows(cells: list[Cell], paths: dict[str, Path]) -> list[dict[str, Any]]:
    """One row per pair and split, as `lmc.json` holds it; accuracies are shares, losses nats, barriers by their kind."""
    middle = int(np.argmax(next(iter(paths.values())).alphas == 0.5))
    result = []
    for name, path in paths.items():
        barriers = {
            "accuracy_barrier": connectivity.barrier(path, "linear", "accuracy"),
            "accuracy_barrier_relative": connectivity.barrier(path, "relative", "accuracy"),
            "loss_barrier": connectivity.barrier(path, "linear", "loss"),
        }
        kinds: tuple[Literal["midpoint", "ends", "worst"], ...] = ("midpoint", "ends", "worst")
        for kind in kinds:
            barriers[f"accuracy_barrier_{kind}"] = connectivity.barrier(path, kind, "accuracy")
            barriers[f"loss_barrier_{kind}"] = connectivity.barrier(path, kind, "loss")
        for i, cell in enumerate(cells):
            result.append({
                "method": cell.method, "init": cell.init, "ratio": cell.ratio, "seed": cell.seed, "split": name,
                "examples": int(path.metrics.count[i, 0]),
                "accuracy_ends": [path.accuracy[i, 0], path.accuracy[i, -1]],
                "accuracy_path": path.accuracy[i], "loss_path": path.loss[i],
                "accuracy_midpoint": path.accuracy[i, middle],
                **{key: values[i] for key, values in barriers.items()},
            })  # fmt: skip
    return plain(result)


def _diverged(members: list[lmc_plan.Member], history: list[tuple[int, Metrics]]) -> list[dict[str, Any]]:
    """The models whose training loss became non-finite, with the first epoch (from 0) in which it did."""
    first: dict[int, int] = {}
    for epoch, found in history:
        for index in np.flatnonzero(~np.isfinite(found.loss_sum)):
            first.setdefault(int(index), epoch)
    return [{**members[index]._asdict(), "epoch": epoch} for index, epoch in sorted(first.items())]
