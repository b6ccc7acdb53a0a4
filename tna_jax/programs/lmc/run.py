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
from tna_jax.objectives import CLASSIFICATION, Objective
from tna_jax.programs.cli.messages import wrote
from tna_jax.programs.cli.progress import console, plural
from tna_jax.programs.cli.recipes import expanded
from tna_jax.programs.data import Dataset, own
from tna_jax.programs.lmc import plan as lmc_plan
from tna_jax.programs.lmc import report as lmc_report
from tna_jax.programs.lmc.options import LmcOptions
from tna_jax.programs.lmc.plan import PairSpec
from tna_jax.programs.population.paths import evaluate_pairs, path_grid
from tna_jax.programs.reports import measures
from tna_jax.programs.reports.present import present
from tna_jax.programs.runs.folder import PROVENANCE, Run
from tna_jax.programs.system import distributed
from tna_jax.programs.training import anchors, ensembles, recorded_code
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
    settings = expanded(settings)
    settings.check()
    members, cells = plan(settings)
    distributed.start(settings, len(members))
    settings = recorded_code.recorded(settings)
    data, network, init, trainer = prepare(settings)
    settings = own.recorded(settings, data)
    name = f"lmc-{settings.dataset_word}"
    with Run.create(settings.out, name, RESULTS, settings.overwrite, settings.resume) as folder:
        record(folder, "lmc", settings, list(range(settings.first_seed, settings.first_seed + settings.seeds)))
        console.print(
            f"{data.describe()}; {settings.describe()}; {len(members)} models in {plural(len(cells), 'pair')}"
        )

        start = build(members, init, anchors.recipe(settings))
        described = [member._asdict() for member in members]
        trained = ensembles.train(trainer, start, data, settings, folder, described, settings.resume)
        with console.status(f"evaluating {len(cells)} paths"):
            paths = _paths(network, trained, cells, settings, data, trainer.objective)
        found = rows(cells, paths, trainer.objective)
        result: dict[str, Any] = to_json({
            "provenance": {**folder.read(PROVENANCE), **trained.facts},
            "config": result_options(settings),
            "network": settings.describe(),
            **measures.as_recorded(trainer.objective),
            "alphas": path_grid(settings.alphas),
            "rows": found,
            "diverged": [{**described[index], "epoch": epoch} for index, epoch in trained.diverged.items()],
        })  # fmt: skip
        folder.write("lmc.json", result)
        folder.trackers.log({"step": settings.epochs * trained.facts["waves"], **barriers(found, trainer.objective)})
        if distributed.is_main_process():
            present(lmc_report.describe(result), folder.folder / "lmc.png")
            where = folder.folder
            wrote(f"{where / 'lmc.json'} and {where / 'lmc.png'}", "tna", "report", str(where))
        return result


def barriers(rows: list[dict[str, Any]], objective: Objective = CLASSIFICATION) -> dict[str, float]:
    """The mean barrier (of accuracy, else of the loss) on the test set by method, initialization and ratio, for a live view."""
    key = f"{measures.of_objective(objective)[0].name}_barrier"
    found: dict[str, list[float]] = {}
    for row in (row for row in rows if row["split"] == "test" and lmc_report.finite(row)):
        name = f"{key}/{row['method']}/{row['init']}/{row['ratio']:g}"
        found.setdefault(name, []).append(row[key])
    return {name: float(np.mean(values)) for name, values in found.items()}


def _paths(
    network: Network,
    trained: ensembles.Trained,
    cells: list[PairSpec],
    settings: LmcOptions,
    data: Dataset,
    objective: Objective,
) -> dict[str, Path]:
    """The path of every cell by split; cells with the same two models are walked once."""
    distinct = sorted({cell.members for cell in cells})
    found = evaluate_pairs(
        network, trained.params, trained.state, np.array(distinct), path_grid(settings.alphas), data,
        placement=trained.facts["placement"], calibration_examples=settings.calibration_examples,
        memory_limit=settings.memory_limit, objective=objective,
    )  # fmt: skip
    index = np.array([distinct.index(cell.members) for cell in cells])
    return {name: Path(path.alphas, jax.tree.map(lambda x: x[index], path.metrics)) for name, path in found.items()}


def rows(cells: list[PairSpec], paths: dict[str, Path], objective: Objective = CLASSIFICATION) -> list[dict[str, Any]]:
    """One row per pair and split, as `lmc.json` holds it; accuracies are shares, losses nats, barriers by their kind."""
    middle = int(np.argmax(next(iter(paths.values())).alphas == 0.5))
    result: list[dict[str, Any]] = []
    names = [measure.name for measure in measures.of_objective(objective)]
    first = names[0]
    for name, path in paths.items():
        barriers = {
            f"{first}_barrier": np.asarray(connectivity.barrier(path, "linear", first)),
            f"{first}_barrier_relative": np.asarray(connectivity.barrier(path, "relative", first)),
            **{f"{other}_barrier": np.asarray(connectivity.barrier(path, "linear", other)) for other in names[1:]},
        }
        kinds: tuple[Literal["midpoint", "ends", "worst"], ...] = ("midpoint", "ends", "worst")
        for kind in kinds:
            for key in names:
                barriers[f"{key}_barrier_{kind}"] = np.asarray(connectivity.barrier(path, kind, key))
        for i, cell in enumerate(cells):
            result.append({
                "method": cell.method, "init": cell.init, "ratio": cell.ratio, "seed": cell.seed, "split": name,
                "examples": int(path.metrics.count[i, 0]),
                f"{first}_ends": [path.value(first)[i, 0], path.value(first)[i, -1]],
                **{f"{key}_path": path.value(key)[i] for key in names},
                f"{first}_midpoint": path.value(first)[i, middle],
                **{key: values[i] for key, values in barriers.items()},
            })  # fmt: skip
    converted: list[dict[str, Any]] = to_json(result)
    return converted
