"""Pairs of networks of a user's own, made and fed by the files in `examples`: trained as one ensemble with and without anchors, then walked.

What the experiments `language_model` and `regression` share; both take the files as Python sees them, none is part of the library.
"""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from tna_jax import barrier, evaluate_paths, from_nnx, grid, stack
from tna_jax.ensemble import Trainer, init_ensemble, train_ensemble
from tna_jax.io.json_files import to_json, write_json
from tna_jax.io.provenance import provenance
from tna_jax.masks import AnchorRecipe
from tna_jax.objectives import Objective
from tna_jax.programs.cli.progress import console
from tna_jax.programs.cli.recipes import RECIPES
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.statistics import format_mean_std
from tna_jax.programs.reports.terminal import show_table
from train.cells import RUNS
from train.experiments import ROOT
from train.plots import GREYS, page

RESULTS = ROOT / "train" / "results"
INITS, PAIRS = ("same", "different"), 5
HEAVY = RECIPES["heavy"]
ANCHORS: dict[str, dict[str, Any]] = {
    "0": {"ratio": 0.0},
    "0.4": {"ratio": 0.4},
    "heavy": {
        "kind": HEAVY["anchors"], "ratio": HEAVY["ratio"], "scale": HEAVY["anchor_scale"], "trainable_scale": HEAVY["trainable_scale"],
    },
}  # fmt: skip
"""Fields of `AnchorRecipe` by what the tables call them; `heavy` is what `--recipe heavy` stands for, without its warm-up."""


class Example(NamedTuple):
    """A folder of `examples`, and what its networks are trained for."""

    name: str
    """Of the folder and of the experiment."""
    network: str
    """The file whose `create` makes a network."""
    data: str
    """The file whose `load` returns the arrays."""
    objective: Objective
    metric: str
    """Measured beside the loss."""


def cases(example: Example, settings: dict[str, Any], full: bool) -> dict[str, Any]:
    """Returns a case for each kind of initialization and of anchors; one that is finished, here or in the results, is not computed again."""
    name = f"{example.name}{'_full' if full else ''}"
    known = committed(RESULTS / f"{name}.json")
    found = [_case(example, settings, init, anchors, RUNS / name, known) for init in INITS for anchors in ANCHORS]
    return {"settings": settings, "alphas": grid(11).tolist(), "cases": found}


def committed(file: Path) -> list[dict[str, Any]]:
    """Returns the cases of a results file; none where there is no file."""
    cases: list[dict[str, Any]] = json.loads(file.read_text())["cases"] if file.exists() else []
    return cases


def _case(
    example: Example, settings: dict[str, Any], init: str, anchors: str, folder: Path, known: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    what = to_json({"init": init, "anchors": anchors, "settings": settings})
    file = folder / f"{init}_{anchors}.json"
    for case in (*known, *([json.loads(file.read_text())] if file.exists() else ())):
        if what.items() <= case.items():
            return dict(case)
    console.print(f"{example.name}: {init} initialization, anchors {anchors}", style="bold")
    case = what | to_json(
        {
            "ratio": ANCHORS[anchors]["ratio"],
            **_trained(example, settings, init, anchors),
            "provenance": provenance([*range(2 * PAIRS)]),
        }
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, case)
    return dict(case)


def _trained(example: Example, settings: dict[str, Any], init: str, anchors: str) -> dict[str, Any]:
    """Trains the pairs as one ensemble and walks between their models."""
    create, load = (module(example.name, file) for file in (example.network, example.data))
    inputs, targets, test_inputs, test_targets = load.load()
    train = inputs[: settings["train"]], targets[: settings["train"]]
    test = test_inputs[: settings["test"]], test_targets[: settings["test"]]
    network = from_nnx(create.create(nnx.Rngs(0), **settings["options"])).network

    def initial(seed: int) -> Any:
        return from_nnx(create.create(nnx.Rngs(seed), **settings["options"])).params

    params, masks = [], []
    for pair in range(PAIRS):
        first, second = initial(2 * pair), initial(2 * pair + (init == "different"))
        recipe = AnchorRecipe(seed=pair, **ANCHORS[anchors])
        mask = recipe.draw(first)
        params += [recipe.initial_values(own, first, mask) for own in (first, second)]
        masks += [mask, mask]
    trainer = Trainer(
        network, optax.adam(settings["learning_rate"]), settings["batch_size"], objective=example.objective
    )
    members = init_ensemble(trainer, stack(params), jax.random.split(jax.random.key(1), 2 * PAIRS), stack(masks))
    members, history = train_ensemble(trainer, members, *train, settings["epochs"])
    for start, end, mask in zip(*map(jax.tree.leaves, (stack(params), members.params, members.mask)), strict=True):
        if not bool(jnp.all(mask | (start == end))):
            raise AssertionError("an anchor moved")
    pairs = np.arange(2 * PAIRS).reshape(PAIRS, 2)
    path = evaluate_paths(network, members.params, pairs, grid(11), {"test": test}, objective=example.objective)["test"]
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params[0])),
        "train_loss": history[-1].loss,
        "loss": path.loss,
        example.metric: path.value(example.metric),
        "barrier": barrier(path),
        f"{example.metric}_barrier": barrier(path, metric=example.metric),
    }


def module(folder: str, name: str) -> Any:
    """Returns a file of a folder of `examples`, as Python sees it."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def figure(example: Example, result: dict[str, Any], file: Path) -> None:
    """Draws the loss along the line, a panel for each kind of initialization."""
    with page(file, 1, 2, sharey=True) as axes:
        for axis, init in zip(axes[0], INITS, strict=True):
            chosen = [case for case in result["cases"] if case["init"] == init]
            for case, color, style in zip(chosen, GREYS, ("-", "--", ":"), strict=False):
                loss = np.array(case["loss"], float)
                axis.errorbar(result["alphas"], loss.mean(0), loss.std(0, ddof=1), color=color, linestyle=style, marker="o",
                              markersize=3, capsize=2, label=f"anchors {case['anchors']}")  # fmt: skip
            axis.set_title(f"{init} initialization", loc="left", fontsize=9)
            axis.set_xlabel("α, from one model to the other", fontsize=8)
        axes[0, 0].set_ylabel(f"test loss, {example.objective.unit}", fontsize=8)
        axes[0, 0].legend(fontsize=7, frameon=False)


def rows(example: Example, result: dict[str, Any], title: str = "") -> Table:
    """Returns ends, midpoint and barrier of every case."""
    lines, word = [], example.metric.replace("_", " ")
    for case in result["cases"]:
        loss, metric = (np.array(case[name], float) for name in ("loss", example.metric))
        columns = [loss[:, [0, -1]].mean(1), loss[:, loss.shape[1] // 2], case["barrier"], metric[:, [0, -1]].mean(1),
                   case[f"{example.metric}_barrier"]]  # fmt: skip
        spread = [format_mean_std((np.mean(c), np.std(c, ddof=1)), 3) for c in columns]
        lines.append([case["init"], case["anchors"], str(len(loss)), *spread])
    heads = ["init", "anchors", "n", "ends", "midpoint", "barrier", f"{word}, ends", f"barrier of {word}"]
    return Table(title, heads, lines, keys=2)


def table(example: Example, result: dict[str, Any], title: str) -> None:
    """Prints ends, midpoint and barrier of every case."""
    show_table(rows(example, result, title))
