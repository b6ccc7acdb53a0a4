"""A GPT of a user's own, between two of which one walks: nats a token along the line, with and without anchors.

Shows: that anchors, paths and barriers take any model and any objective: the network and the text are the user's files
  `examples/language_model/gpt.py` and `text.py` (RMSNorm, rotary positions, causal attention, tied embeddings; characters), and neither is
  part of the library.
Hardware: two CPU cores, about 15 minutes. `--full` takes a wider and deeper network for a GPU; it has not been run.
Command: `TNA_DATA_DIR=... python -m train language_model`
Expected: from one initialization a small barrier, smaller with anchors; from different ones a large barrier, which anchors alone make
  smaller and do not remove. Mean and sample standard deviation over 5 pairs, on test text.
Data: the sentences of SUBJ as characters, pieces of 64; 6,400 pieces for training, 1,000 for test; Adam 0.003, batch 32, 2 epochs.
Recipe: 40 % of each weight anchored at the initial values of the pair's first model; each model of a pair has a data order of its own.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from tna_jax import barrier, evaluate_paths, from_nnx, grid, objectives, stack
from tna_jax.ensemble import Trainer, init_ensemble, train_ensemble
from tna_jax.io.json_files import to_json, write_json
from tna_jax.masks import AnchorRecipe, bitwise_where
from tna_jax.programs.cli.progress import console
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.statistics import format_mean_std
from tna_jax.programs.reports.terminal import show_table
from train.cells import RUNS
from train.experiments import ROOT
from train.plots import GREYS, page

INITS, RATIOS, PAIRS = ("same", "different"), (0.0, 0.4), 5
SMALL = {"options": {"width": 32, "depth": 2, "heads": 2}, "train": 6400, "test": 1000, "epochs": 2, "batch_size": 32,
         "learning_rate": 3e-3}  # fmt: skip
FULL = {"options": {"width": 256, "depth": 6, "heads": 8}, "train": 18_143, "test": 2016, "epochs": 20, "batch_size": 64,
        "learning_rate": 1e-3}  # fmt: skip


def run(full: bool = False) -> dict[str, Any]:
    """A case for each kind of initialization and ratio of anchors; a finished one is read, not computed again."""
    settings: dict[str, Any] = FULL if full else SMALL
    cases = [_case(settings, init, ratio, full) for init in INITS for ratio in RATIOS]
    return {"settings": settings, "alphas": grid(11).tolist(), "cases": cases}


def _case(settings: dict[str, Any], init: str, ratio: float, full: bool) -> dict[str, Any]:
    file = RUNS / f"language_model{'_full' if full else ''}" / f"{init}_{ratio:g}.json"
    if file.exists() and (case := json.loads(file.read_text()))["settings"] == to_json(settings):
        return dict(case)
    console.print(f"language_model: {init} initialization, anchors {ratio:g}", style="bold")
    case = to_json({"init": init, "ratio": ratio, "settings": settings, **_trained(settings, init, ratio)})
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, case)
    return dict(case)


def _trained(settings: dict[str, Any], init: str, ratio: float) -> dict[str, Any]:
    """Trains the pairs as one ensemble and walks between their models."""
    gpt, text = (_example(name) for name in ("gpt", "text"))
    inputs, targets, test_inputs, test_targets = text.load()
    train = inputs[: settings["train"]], targets[: settings["train"]]
    test = test_inputs[: settings["test"]], test_targets[: settings["test"]]
    network = from_nnx(gpt.create(nnx.Rngs(0), **settings["options"])).network

    def initial(seed: int) -> Any:
        return from_nnx(gpt.create(nnx.Rngs(seed), **settings["options"])).params

    params, masks = [], []
    for pair in range(PAIRS):
        first, second = initial(2 * pair), initial(2 * pair + (init == "different"))
        mask = AnchorRecipe(ratio=ratio, seed=pair).draw(first)
        params += [first, jax.tree.map(bitwise_where, mask, second, first)]
        masks += [mask, mask]
    objective = objectives.next_token()
    trainer = Trainer(network, optax.adam(settings["learning_rate"]), settings["batch_size"], objective=objective)
    members = init_ensemble(trainer, stack(params), jax.random.split(jax.random.key(1), 2 * PAIRS), stack(masks))
    members, history = train_ensemble(trainer, members, *train, settings["epochs"])
    for start, end, mask in zip(*map(jax.tree.leaves, (stack(params), members.params, members.mask)), strict=True):
        if not bool(jnp.all(mask | (start == end))):
            raise AssertionError("an anchor moved")
    pairs = np.arange(2 * PAIRS).reshape(PAIRS, 2)
    path = evaluate_paths(network, members.params, pairs, grid(11), {"test": test}, objective=objective)["test"]
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params[0])),
        "train_loss": history[-1].loss,
        "loss": path.loss,
        "perplexity": path.value("perplexity"),
        "barrier": barrier(path),
        "perplexity_barrier": barrier(path, metric="perplexity"),
    }


def _example(name: str) -> Any:
    """The user's file, as Python sees it."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / "language_model" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def figure(result: dict[str, Any], file: Path) -> None:
    """Nats a token along the line, a panel for each kind of initialization."""
    with page(file, 1, 2, sharey=True) as axes:
        for axis, init in zip(axes[0], INITS, strict=True):
            for case, color, style in zip(_of(result, init), GREYS, ("-", "--"), strict=False):
                loss = np.array(case["loss"], float)
                axis.errorbar(result["alphas"], loss.mean(0), loss.std(0, ddof=1), color=color, linestyle=style, marker="o",
                              markersize=3, capsize=2, label=f"anchors {case['ratio']:g}")  # fmt: skip
            axis.set_title(f"{init} initialization", loc="left", fontsize=9)
            axis.set_xlabel("α, from one model to the other", fontsize=8)
        axes[0, 0].set_ylabel("test loss, nats a token", fontsize=8)
        axes[0, 0].legend(fontsize=7, frameon=False)


def _of(result: dict[str, Any], init: str) -> list[dict[str, Any]]:
    return [case for case in result["cases"] if case["init"] == init]


def table(result: dict[str, Any]) -> None:
    """Ends, midpoint and barrier of every case."""
    rows = []
    for case in result["cases"]:
        loss, perplexity = (np.array(case[name], float) for name in ("loss", "perplexity"))
        columns = [loss[:, [0, -1]].mean(1), loss[:, loss.shape[1] // 2], case["barrier"], perplexity[:, [0, -1]].mean(1),
                   case["perplexity_barrier"]]  # fmt: skip
        spread = [format_mean_std((np.mean(c), np.std(c, ddof=1)), 3) for c in columns]
        rows.append([case["init"], f"{case['ratio']:g}", str(len(loss)), *spread])
    heads = ["init", "anchors", "n", "ends", "midpoint", "barrier", "perplexity, ends", "barrier of perplexity"]
    show_table(Table("A GPT of a user's own: test nats a token, mean ± std over pairs", heads, rows, keys=2))
