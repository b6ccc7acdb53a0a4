"""Transformers trained apart: barriers as they are, after permutations, and after a rotation of the residual stream.

Shows: how much of the barrier between two Transformers with layer norm is taken away by permuting hidden units, heads and units of heads
  (Ainsworth et al. 2023, arXiv 2209.04836), and by turning the residual stream as well (Theus et al. 2025, arXiv 2506.22712). Both look at
  weights alone; the paper also learns the matrices on data, which is not done here.
Hardware: two CPU cores, about 15 minutes.
Command: `TNA_DATA_DIR=... python -m fusion orthogonal`
Expected: the rotation brings weights nearer than permutations do, and takes away more of the barrier; a barrier is left. Mean and sample
  standard deviation over 3 pairs of networks from different initial values, loss of held-out data at 11 points.
Data: a ViT on MNIST (5,000 images for training in 10 epochs, 2,000 for test), a GPT-2 on the sentences of SUBJ as characters (3,200 pieces of
  64 for training in 5 epochs, 500 for test). The GPT's head is the words' embeddings; it is walked with a head of its own once the stream was turned.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tna_jax import barrier, evaluate_paths, grid, matching, models, networks, objectives, stack, trees
from tna_jax.ensemble import Trainer, init_ensemble, train_ensemble
from tna_jax.io.json_files import to_json
from tna_jax.matching import orthogonal
from tna_jax.networks import Network
from tna_jax.objectives import Objective
from tna_jax.programs import data
from tna_jax.programs.cli.progress import console
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.statistics import format_mean_std
from tna_jax.programs.reports.terminal import show_table
from train import own_networks
from train.cells import RUNS
from train.plots import GREYS, page

PAIRS = 3
METHODS = {"plain": "as they are", "permutations": "permuted", "orthogonal": "turned and permuted"}
SMALL: dict[str, Any] = {"width": 32, "depth": 2, "heads": 2, "mlp": 64, "learning_rate": 3e-3}
FULL: dict[str, Any] = {"width": 192, "depth": 6, "heads": 6, "mlp": 384, "learning_rate": 1e-3}


class Case(NamedTuple):
    """A kind of network, and what it is trained for."""

    title: str
    network: Network
    init: Callable[[Any], Any]
    turned_network: Network
    """The network as it is walked after the stream was turned."""
    turned_params: Callable[[Any], Any]
    """Parameters of one to those of the other."""
    norms: str
    objective: Objective
    train: tuple[Any, Any]
    test: tuple[Any, Any]
    batch_size: int
    epochs: int


def vit(sizes: dict[str, int]) -> Case:
    """A ViT on MNIST."""
    mnist = data.load("mnist")
    x, tx = (split.images.astype(np.float32) / 255 for split in (mnist.train, mnist.test))
    module = models.create("vit", num_classes=10, patch=7, eps=1e-5, **sizes)
    network, init = networks.linen(module, x.shape[1:])
    train, test = (x[:5000], mnist.train.labels[:5000]), (tx[:2000], mnist.test.labels[:2000])
    return Case(
        "ViT, MNIST", network, init, network, lambda p: p, "vit", objectives.CLASSIFICATION, train, test, 50, 10
    )


def gpt(sizes: dict[str, int]) -> Case:
    """A GPT-2 on characters."""
    x, y, tx, ty = own_networks.module("language_model", "text").load()
    options = {"vocab": 96, "positions": x.shape[1], **sizes}
    (network, init), (body, _) = (
        networks.linen(models.create("gpt2", head=head, **options), x.shape[1:], dtype=jnp.int32)
        for head in ("causal_lm", "none")
    )
    return Case(
        "GPT-2, characters", network, init, orthogonal.untied(body),
        lambda params: orthogonal.untied_params(params, "body/words/embedding"), "gpt2", objectives.next_token(),
        (x[:3200], y[:3200]), (tx[:500], ty[:500]), 32, 5,
    )  # fmt: skip


def run(full: bool = False) -> dict[str, Any]:
    """Trains the networks, aligns each pair in every way and walks between its two."""
    settings = FULL if full else SMALL
    sizes = {name: settings[name] for name in ("width", "depth", "heads", "mlp")}
    cases = [_case(make(sizes), settings) for make in (vit, gpt)]
    return {"settings": settings, "alphas": grid(11).tolist(), "cases": cases}


def _case(case: Case, settings: dict[str, Any]) -> dict[str, Any]:
    members = _trained(case, settings)
    sample = jax.tree.map(lambda leaf: leaf[:4], case.test[0])
    spec, turned_spec = (
        matching.permutation_spec(network, params, sample)
        for network, params in (
            (case.network, members[0]),
            (case.turned_network, case.turned_params(members[0])),
        )
    )
    lines = []
    for method, title in METHODS.items():
        console.print(f"orthogonal: {case.title}, {title}", style="bold")
        ends, facts = [], []
        for a, b in zip(members[::2], members[1::2], strict=True):
            start = time.perf_counter()
            aligned, objective = _aligned(method, case, spec, turned_spec, a, b)
            facts.append(
                {"seconds": time.perf_counter() - start, "objective": objective, "distance": _distance(*aligned)}
            )
            ends += aligned
        network = case.turned_network if method == "orthogonal" else case.network
        pairs = np.arange(2 * PAIRS).reshape(PAIRS, 2)
        path = evaluate_paths(
            network, stack(ends), pairs, grid(11), {"test": case.test}, objective=case.objective, batch_size=500
        )["test"]
        metric = "accuracy" if case.objective.classes else "perplexity"
        lines.append({
            "method": method, "loss": path.loss, "barrier": barrier(path, metric="loss"), metric: path.value(metric),
            **{key: [fact[key] for fact in facts] for key in facts[0]},
        })  # fmt: skip
    result: dict[str, Any] = to_json({
        "title": case.title, "epochs": case.epochs, "parameters": sum(leaf.size for leaf in jax.tree.leaves(members[0])), "unit": case.objective.unit,
        "lines": lines,
    })  # fmt: skip
    return result


def _aligned(method: str, case: Case, spec: Any, turned_spec: Any, a: Any, b: Any) -> tuple[list[Any], float]:
    """Both ends of a path, and the inner product of their weights that the method reached."""
    if method == "plain":
        return [a, b], _product(a, b)
    if method == "permutations":
        b = matching.head_matching(spec, a, b, restarts=5).matching.params
        return [a, b], _product(a, b)
    match = orthogonal.orthogonal_matching(
        turned_spec, case.turned_params(a), case.turned_params(b), norms=orthogonal.NORMS[case.norms], restarts=5
    )
    return [match.reference, match.params], match.objective


def _product(a: Any, b: Any) -> float:
    return float(sum(np.vdot(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)))


def _distance(a: Any, b: Any) -> float:
    """How far two models are apart, as a share of the length of the first."""
    apart, length = (
        sum(float(np.sum(np.square(leaf, dtype=np.float64))) for leaf in jax.tree.leaves(tree))
        for tree in (jax.tree.map(np.subtract, a, b), a)
    )
    return float((apart / length) ** 0.5)


def _trained(case: Case, settings: dict[str, Any]) -> list[Any]:
    """Networks from different initial values, one ensemble; kept in a folder of runs."""
    folder = RUNS / "orthogonal"
    name = "_".join([case.norms, *(f"{key}{value:g}" for key, value in (settings | {"epochs": case.epochs}).items())])
    file = folder / f"{name}.npz"
    first = [jax.tree.map(np.asarray, case.init(jax.random.key(seed))[0]) for seed in range(2 * PAIRS)]
    if file.exists():
        with np.load(file) as stored:
            return [
                trees.like(tree, [stored[trees.name(path)][i] for path, _ in trees.named_leaves(tree)])
                for i, tree in enumerate(first)
            ]
    console.print(f"orthogonal: training {case.title}", style="bold")
    steps = case.epochs * (len(case.train[1]) // case.batch_size)
    optimizer = optax.adam(optax.cosine_decay_schedule(settings["learning_rate"], steps))
    trainer = Trainer(case.network, optimizer, case.batch_size, objective=case.objective)
    members = init_ensemble(trainer, stack(first), jax.random.split(jax.random.key(1), 2 * PAIRS))
    members, _ = train_ensemble(trainer, members, *case.train, case.epochs)
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {trees.name(path): np.asarray(leaf) for path, leaf in trees.named_leaves(members.params)}
    np.savez(file, **arrays)
    return [jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), members.params) for i in range(2 * PAIRS)]


def figure(result: dict[str, Any], file: Path) -> None:
    """Draws the loss along the line, a panel for each kind of network."""
    with page(file, 1, len(result["cases"])) as axes:
        for axis, case in zip(axes[0], result["cases"], strict=True):
            for line, color, style in zip(case["lines"], GREYS, ("-", "--", "-."), strict=False):
                loss = np.array(line["loss"], float)
                axis.errorbar(result["alphas"], loss.mean(0), loss.std(0, ddof=1), color=color, linestyle=style, marker="o",
                              markersize=3, capsize=2, label=METHODS[line["method"]])  # fmt: skip
            axis.set_title(case["title"], loc="left", fontsize=9)
            axis.set_xlabel("α, from one model to the other", fontsize=8)
            axis.set_ylabel(f"test loss, {case['unit']}", fontsize=8)
        axes[0, 0].legend(fontsize=7, frameon=False)


def table(result: dict[str, Any]) -> None:
    """Prints ends, midpoint, barrier and what the search reached."""
    rows = []
    for case in result["cases"]:
        for line in case["lines"]:
            loss = np.array(line["loss"], float)
            columns = [loss[:, [0, -1]].mean(1), loss[:, loss.shape[1] // 2], line["barrier"], line["distance"],
                       line["objective"], line["seconds"]]  # fmt: skip
            spread = [format_mean_std((np.mean(c), np.std(c, ddof=1)), 3) for c in columns]
            rows.append([case["title"], METHODS[line["method"]], str(len(loss)), *spread])
    heads = [
        "networks",
        "second model",
        "n",
        "loss, ends",
        "loss, midpoint",
        "barrier",
        "distance",
        "inner product",
        "seconds",
    ]
    show_table(Table("Transformers trained apart: mean ± std over pairs", heads, rows, keys=2))
