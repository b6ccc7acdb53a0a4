"""`tna lmc`: train pairs of networks with and without anchors, walk the line between them, report the barriers.

digits -> one ensemble of every distinct model -> pairs x alphas in one pass -> table, lmc.json, lmc.png
"""

from typing import Any, Literal

import jax
import numpy as np

from tna_jax import connectivity
from tna_jax.connectivity import Path
from tna_jax.io.json_files import to_json
from tna_jax.networks import Network
from tna_jax.programs.cli.progress import console, plural
from tna_jax.programs.data import Dataset
from tna_jax.programs.lmc import plan as lmc_plan
from tna_jax.programs.lmc import report as lmc_report
from tna_jax.programs.lmc.options import LmcOptions
from tna_jax.programs.lmc.plan import PairSpec
from tna_jax.programs.population.paths import evaluate_pairs, path_grid
from tna_jax.programs.reports.present import present
from tna_jax.programs.runs.folder import PROVENANCE, Run
from tna_jax.programs.system import distributed
from tna_jax.programs.training import anchors, ensembles, own_models
from tna_jax.programs.training.initial_models import ModelSpec, build
from tna_jax.programs.training.setup import prepare, record, result_options

RESULTS = ("lmc.json", "lmc.png")
INITS = {"same": ["same"], "different": ["different"], "both": ["same", "different"]}


def plan(settings: LmcOptions) -> tuple[list[ModelSpec], list[PairSpec]]:
    """Returns the models and pairs of the sweep."""
    seeds = list(range(settings.first_seed, settings.first_seed + settings.seeds))
    return lmc_plan.plan(sorted(settings.ratios), seeds, INITS[settings.init], list(settings.methods))


def run(settings: LmcOptions) -> dict[str, Any]:
    """Runs the sweep of `settings` in its run folder and returns what `lmc.json` holds."""
    settings.check()
    members, cells = plan(settings)
    distributed.start(settings, len(members))
    settings = own_models.recorded(settings)
    data, network, init, trainer = prepare(settings)
    name = f"lmc-{settings.dataset.replace(':', '-')}"
    with Run.create(settings.out, name, RESULTS, settings.overwrite, settings.resume) as folder:
        record(folder, "lmc", settings, list(range(settings.first_seed, settings.first_seed + settings.seeds)))
        console.print(
            f"{data.describe()}; {settings.describe()}; {len(members)} models in {plural(len(cells), 'pair')}"
        )

        start = build(members, init, anchors.recipe(settings))
        described = [member._asdict() for member in members]
        trained = ensembles.train(trainer, start, data, settings, folder, described, settings.resume)
        with console.status(f"evaluating {len(cells)} paths"):
            paths = _paths(network, trained, cells, settings, data)
        found = rows(cells, paths)
        result: dict[str, Any] = to_json({
            "provenance": {**folder.read(PROVENANCE), **trained.facts},
            "config": result_options(settings),
            "network": settings.describe(),
            "alphas": path_grid(settings.alphas),
            "rows": found,
            "diverged": [{**described[index], "epoch": epoch} for index, epoch in trained.diverged.items()],
        })  # fmt: skip
        folder.write("lmc.json", result)
        folder.trackers.log({"step": settings.epochs * trained.facts["waves"], **barriers(found)})
        if distributed.is_main_process():
            present(lmc_report.describe(result), folder.folder / "lmc.png")
            print(
                f"wrote {folder.folder / 'lmc.json'} and {folder.folder / 'lmc.png'}; next: tna report {folder.quoted_path}"
            )
        return result


def barriers(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The mean accuracy barrier on the test set by method, initialization and ratio, for a live view."""
    found: dict[str, list[float]] = {}
    for row in (row for row in rows if row["split"] == "test" and lmc_report.finite(row)):
        name = f"accuracy_barrier/{row['method']}/{row['init']}/{row['ratio']:g}"
        found.setdefault(name, []).append(row["accuracy_barrier"])
    return {name: float(np.mean(values)) for name, values in found.items()}


def _paths(
    network: Network, trained: ensembles.Trained, cells: list[PairSpec], settings: LmcOptions, data: Dataset
) -> dict[str, Path]:
    """The path of every cell by split; cells with the same two models are walked once."""
    distinct = sorted({cell.members for cell in cells})
    found = evaluate_pairs(
        network, trained.params, trained.state, np.array(distinct), path_grid(settings.alphas), data,
        placement=trained.facts["placement"], calibration_examples=settings.calibration_examples,
        memory_limit=settings.memory_limit,
    )  # fmt: skip
    index = np.array([distinct.index(cell.members) for cell in cells])
    return {name: Path(path.alphas, jax.tree.map(lambda x: x[index], path.metrics)) for name, path in found.items()}


def rows(cells: list[PairSpec], paths: dict[str, Path]) -> list[dict[str, Any]]:
    """One row per pair and split, as `lmc.json` holds it; accuracies are shares, losses nats, barriers by their kind."""
    middle = int(np.argmax(next(iter(paths.values())).alphas == 0.5))
    result: list[dict[str, Any]] = []
    for name, path in paths.items():
        barriers = {
            "accuracy_barrier": np.asarray(connectivity.barrier(path, "linear", "accuracy")),
            "accuracy_barrier_relative": np.asarray(connectivity.barrier(path, "relative", "accuracy")),
            "loss_barrier": np.asarray(connectivity.barrier(path, "linear", "loss")),
        }
        kinds: tuple[Literal["midpoint", "ends", "worst"], ...] = ("midpoint", "ends", "worst")
        for kind in kinds:
            barriers[f"accuracy_barrier_{kind}"] = np.asarray(connectivity.barrier(path, kind, "accuracy"))
            barriers[f"loss_barrier_{kind}"] = np.asarray(connectivity.barrier(path, kind, "loss"))
        for i, cell in enumerate(cells):
            result.append({
                "method": cell.method, "init": cell.init, "ratio": cell.ratio, "seed": cell.seed, "split": name,
                "examples": int(path.metrics.count[i, 0]),
                "accuracy_ends": [path.accuracy[i, 0], path.accuracy[i, -1]],
                "accuracy_path": path.accuracy[i], "loss_path": path.loss[i],
                "accuracy_midpoint": path.accuracy[i, middle],
                **{key: values[i] for key, values in barriers.items()},
            })  # fmt: skip
    converted: list[dict[str, Any]] = to_json(result)
    return converted
