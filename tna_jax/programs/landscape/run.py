"""`tna landscape RUN`: loss and accuracy on the plane through three models of a run, as contours."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import connectivity
from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import to_json
from tna_jax.io.provenance import provenance
from tna_jax.io.runs import recipe_of
from tna_jax.masks import Params
from tna_jax.programs.cli.messages import wrote
from tna_jax.programs.cli.progress import console
from tna_jax.programs.landscape import report as landscape_report
from tna_jax.programs.landscape.options import ORIGIN, LandscapeOptions
from tna_jax.programs.population import checkpoint_status, compatibility
from tna_jax.programs.population.description import description, load
from tna_jax.programs.reports import measures
from tna_jax.programs.reports.present import present
from tna_jax.programs.runs.folder import CONFIG, Run
from tna_jax.programs.system import distributed
from tna_jax.programs.training import objective_fit
from tna_jax.programs.training.ensembles import finished
from tna_jax.programs.training.initial_models import ModelSpec, build
from tna_jax.programs.training.setup import result_config

RESULTS = ("landscape.json", "landscape.png")


def run(settings: LandscapeOptions) -> dict[str, Any]:
    """Evaluates the grid and writes landscape.json and landscape.png into the run folder; returns what the JSON holds."""
    settings.check()
    folder = Run.open(settings.run).writable()
    distributed.start(settings, 1_000_000)
    result: dict[str, Any] = to_json(survey(folder, settings))
    folder.write("landscape.json", result)
    if distributed.is_main_process():
        with folder.drawing("landscape.png") as file:
            present(landscape_report.describe(result), file)
        where = folder.folder
        wrote(f"{where / 'landscape.json'} and {where / 'landscape.png'}", "tna", "report", str(where))
    return result


def survey(folder: Run, settings: LandscapeOptions) -> dict[str, Any]:
    """What `landscape.json` holds: the plane's coordinates of the three models, and loss and accuracy on the grid."""
    config = folder.read(CONFIG)
    described = description(config, settings.run, settings.data_dir, settings.trust_code)
    data, network, init = load(described)
    objective = objective_fit.objective_of(described)
    objective_fit.check_fit(described, data, network, init)
    names = sorted((measure.name for measure in measures.of_objective(objective)), key=lambda name: name != "loss")
    params, state, models, step = finished(folder, init)
    checkpoints = [checkpoint_status.reached(folder, config, step)]
    three, labels = _three(settings, config, params, init, models)
    where, axes = coordinates(three)
    middle, extent = (where.min(0) + where.max(0)) / 2, np.ptp(where, axis=0).max()
    reach = (0.5 + settings.margin) * extent
    x, y = (np.linspace(middle[i] - reach, middle[i] + reach, settings.points) for i in (0, 1))
    weights = barycentric(where, np.stack(np.meshgrid(x, y), -1).reshape(-1, 2))
    marks = np.concatenate([np.eye(3), np.full((1, 3), 1 / 3)])
    console.print(f"{data.describe()}; {described.describe()}; {len(weights)} points")
    own = [int(name) if name != ORIGIN else int(settings.models[0]) for name in settings.models]
    warnings = checkpoint_status.warn(checkpoints) + compatibility.warn([models[i] for i in own], [config] * len(own))
    count = settings.test_examples
    test = {"test": (jnp.asarray(data.test.images[:count]), jnp.asarray(data.test.labels[:count]))}
    with console.status(f"evaluating {len(weights)} points of the plane"):
        found = connectivity.evaluate_mixtures(
            network, three, np.concatenate([marks, weights]), test,
            state=jax.tree.map(lambda leaf: leaf[np.array(own)], state),
            calibration=jnp.asarray(data.train.images[: settings.calibration_examples]),
            placement=settings.placement, objective=objective,
        )["test"]  # fmt: skip
    shape = (settings.points, settings.points)
    return {
        "provenance": provenance([]),
        "run": result_config(config),
        "network": described.describe(),
        **measures.as_recorded(objective),
        "models": [
            {"name": name, "x": where[i, 0], "y": where[i, 1], **{key: found.value(key)[i] for key in names}}
            for i, name in enumerate(labels)
        ],
        "soup": None if ORIGIN in settings.models else _soup(where, {key: found.value(key)[3] for key in names}),
        "checkpoints": checkpoints,
        "warnings": warnings,
        "lengths": axes,
        "x": x,
        "y": y,
        **{key: found.value(key)[len(marks) :].reshape(shape) for key in names},
        "examples": int(found.count[0]),
    }


def _soup(where: np.ndarray, values: dict[str, Any]) -> dict[str, Any]:
    """What is kept of the average of the three models, which lies at the middle of their corners."""
    x, y = where.mean(0)
    return {"name": "soup of the three", "x": x, "y": y, **values}


def _three(
    settings: LandscapeOptions,
    config: dict[str, Any],
    params: Params,
    init: Callable[..., Any],
    models: list[dict[str, Any]],
) -> tuple[Params, list[str]]:
    """The three models, stacked, and their names."""
    numbers = [int(name) if name.isdigit() else -1 for name in settings.models if name != ORIGIN]
    if min(numbers) < 0 or max(numbers) >= len(models):
        raise UsageError(f"--models {' '.join(settings.models)}: write numbers from 0 to {len(models) - 1}")
    chosen = [jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in numbers]
    names = [f"model {i}" for i in numbers]
    if ORIGIN in settings.models:
        one = models[numbers[0]]
        if not all(key in one for key in ModelSpec._fields):
            raise UsageError(
                f"--models: {ORIGIN} of {numbers[0]} is not known: plan.json does not say how that model started"
            )
        known = {key: one[key] for key in ModelSpec._fields}
        start = build([ModelSpec(**known)], init, recipe_of(config, one)).params
        chosen.append(jax.tree.map(lambda leaf: leaf[0], start))
        names.append(f"origin of {numbers[0]}")
    return jax.tree.map(lambda *leaves: np.stack(leaves), *chosen), names


def coordinates(three: Params) -> tuple[np.ndarray, list[float]]:
    """(3, 2) coordinates in the plane through three stacked models, in the units of the parameters, and its sides' lengths.

    The first model stands at (0, 0), the second at (d, 0), the third above; distances in the plane are those of the weights.

    Raises:
      UsageError: the three lie on one line.
    """
    leaves = [np.asarray(leaf, np.float64).reshape(3, -1) for leaf in jax.tree.leaves(three)]
    edges = [[sum(float((leaf[i] - leaf[0]) @ (leaf[j] - leaf[0])) for leaf in leaves) for j in (1, 2)] for i in (1, 2)]
    (bb, bc), (_, cc) = edges
    height = cc - bc**2 / bb if bb > 0 else 0.0
    if height <= 1e-9 * max(bb, cc):
        raise UsageError("the three models lie on one line: there is no plane through them")
    where = np.array([[0, 0], [np.sqrt(bb), 0], [bc / np.sqrt(bb), np.sqrt(height)]])
    return where, [float(np.sqrt(value)) for value in (bb, cc, bb + cc - 2 * bc)]


def barycentric(corners: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(T, 3) weights with sum 1 that make each of (T, 2) points out of (3, 2) corners."""
    system = np.concatenate([corners.T, np.ones((1, 3))])
    return np.linalg.solve(system, np.concatenate([points.T, np.ones((1, len(points)))])).T
