"""`tna barrier RUN`: walks the line between every two models of a run (or the named ones) and reports the barriers."""

from typing import Any

import numpy as np

from tna_jax import connectivity
from tna_jax.connectivity import Path
from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import to_json
from tna_jax.io.provenance import provenance
from tna_jax.masks import Params
from tna_jax.networks import State
from tna_jax.programs.barrier import curves, parts
from tna_jax.programs.barrier import report as barrier_report
from tna_jax.programs.barrier.options import BarrierOptions
from tna_jax.programs.cli.messages import wrote
from tna_jax.programs.cli.progress import console, plural
from tna_jax.programs.population import checkpoint_status, compatibility
from tna_jax.programs.population.description import description, load
from tna_jax.programs.population.paths import choose_pairs, evaluate_pairs, path_grid
from tna_jax.programs.reports import measures
from tna_jax.programs.reports.present import present
from tna_jax.programs.runs.folder import CONFIG, Run
from tna_jax.programs.system import distributed
from tna_jax.programs.training import objective_fit
from tna_jax.programs.training.ensembles import finished
from tna_jax.programs.training.setup import result_config

RESULTS = ("barrier.json", "barrier.png")


def run(settings: BarrierOptions) -> dict[str, Any]:
    """Evaluates the pairs and writes barrier.json and barrier.png into the run folder; returns what the JSON holds."""
    settings.check()
    alphas = path_grid(settings.alphas)
    folder = Run.open(settings.run).writable()
    config = folder.read(CONFIG)
    epochs = parts.kept_epochs(folder) if "epoch" in settings.by else []
    distributed.start(settings, 16)
    described = description(config, settings.run, settings.data_dir, settings.trust_code)
    data, network, init = load(described)
    objective = objective_fit.objective_of(described)
    objective_fit.check_fit(described, data, network, init)
    curves.check(settings, data)
    params, state, models, step = finished(folder, init)
    chosen = choose_pairs(settings.pairs, len(models))
    if not len(chosen):
        raise UsageError(f"{folder.folder} has one model; a barrier needs two")
    console.print(
        f"{data.describe()}; {described.describe()}; {plural(len(models), 'model')}, {plural(len(chosen), 'pair')}"
    )
    checkpoints = [checkpoint_status.reached(folder, config, step)]
    walked = [models[i] for i in np.unique(chosen)]
    warnings = checkpoint_status.warn(checkpoints) + compatibility.warn(walked, [config] * len(walked))

    def evaluate(members: Params, states: State, pairs: np.ndarray, points: np.ndarray) -> dict[str, Path]:
        return evaluate_pairs(
            network, members, states, pairs, points, data, placement=settings.placement,
            calibration_examples=settings.calibration_examples, memory_limit=settings.memory_limit, objective=objective,
        )  # fmt: skip

    with console.status(f"evaluating {plural(len(chosen), 'path')} of {len(alphas)} points"):
        paths = evaluate(params, state, chosen, alphas)
    names = [measure.name for measure in measures.of_objective(objective)]
    more: dict[str, Any] = {}
    if "layer" in settings.by:
        more["layers"] = parts.by_layer(params, state, chosen, evaluate, names)
    if "epoch" in settings.by:
        more["epochs"] = parts.by_epoch(folder, epochs, {"params": params, "state": state}, chosen, evaluate, names)
    rows = [
        {
            "pair": chosen[i], "split": split, "examples": int(path.metrics.count[i][0]),
            **{f"{metric}_path": path.value(metric)[i] for metric in names},
            **{f"{metric}_barrier_{kind}": np.asarray(connectivity.barrier(path, kind, metric))[i]
               for metric in names for kind in ("linear", "relative", "midpoint", "ends", "worst")},
        }
        for split, path in paths.items()
        for i in range(len(chosen))
    ]  # fmt: skip
    result: dict[str, Any] = to_json({
        "provenance": provenance([]),
        "run": result_config(config),
        "network": described.describe(),
        **measures.as_recorded(objective),
        "models": models,
        "checkpoints": checkpoints,
        "warnings": warnings,
        "alphas": alphas,
        "rows": rows,
        **more,
    })  # fmt: skip
    folder.write("barrier.json", result)
    if settings.curve_epochs is not None:  # the lines are kept whatever becomes of the curves
        rows = curves.measure(settings, config, data, network, objective, params, state, chosen, alphas, names)
        result |= to_json({
            "curve_epochs": settings.curve_epochs, "curve_learning_rate": settings.curve_learning_rate, "curves": rows,
        })  # fmt: skip
        folder.write("barrier.json", result)
    if distributed.is_main_process():
        with folder.drawing("barrier.png") as file:
            present(barrier_report.describe(result), file)
        where = folder.folder
        wrote(f"{where / 'barrier.json'} and {where / 'barrier.png'}", "tna", "fuse", str(where))
    return result
