"""Where a barrier comes from: of each layer alone, and after each epoch whose checkpoint was kept.

Of a layer (Adilova et al. 2024, arXiv 2307.06966): both models as they are, but for this layer, which is the average of both; how far
that falls below (in a loss: rises above) the two models, mean over the two that keep the other layers.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tna_jax import connectivity, trees
from tna_jax.connectivity import Path
from tna_jax.io.errors import UsageError
from tna_jax.io.restore import listed, newest
from tna_jax.masks import Params
from tna_jax.networks import State
from tna_jax.programs.cli.progress import console, plural
from tna_jax.programs.runs.folder import Run

ENDS = np.array([0.0, 0.5, 1.0])
Evaluate = Callable[[Params, State, np.ndarray, np.ndarray], dict[str, Path]]
"""Of members (M, ...), their state, pairs (P, 2) and alphas: a path for each split, metrics (P, A)."""


def by_layer(
    params: Params, state: State, pairs: np.ndarray, evaluate: Evaluate, names: list[str]
) -> list[dict[str, Any]]:
    """Returns a row for each pair, layer and split: how far the average of this layer alone is below both models.

    Args:
      params, state: (M, ...) on the host.
      pairs: (P, 2).
      evaluate: walks the paths.
      names: of the measures, the loss among them.
    """
    layers = layers_of(params)
    rows = []
    for pair in pairs:
        sides = [jax.tree.map(lambda x, i=i: x[i], params) for i in pair]
        swapped = [_with_layer(sides[k], sides[1 - k], layer) for layer in layers for k in (0, 1)]
        members = jax.tree.map(lambda *leaves: np.stack(leaves), *sides, *swapped)
        states = jax.tree.map(lambda x, pair=pair: np.stack([x[pair[k]] for k in [0, 1] * (1 + len(layers))]), state)
        chosen = np.array([[0, 1], *([k, 2 + 2 * i + k] for i in range(len(layers)) for k in (0, 1))], np.int32)
        with console.status(f"evaluating {len(layers)} layers of the pair {pair[0]}-{pair[1]}"):
            paths = evaluate(members, states, chosen, ENDS)
        for split, path in paths.items():
            for i, layer in enumerate(layers):
                row: dict[str, Any] = {"pair": pair, "split": split, "layer": layer}
                for name in names:
                    values = path.value(name)
                    ends, middles = values[0, [0, 2]].mean(), values[1 + 2 * i : 3 + 2 * i, 1].mean()
                    larger = path.metrics.metric(name).larger_is_better
                    row[f"{name}_barrier"] = ends - middles if larger else middles - ends
                rows.append(row)
    return rows


def layers_of(params: Params) -> list[str]:
    """Returns the layers, in the order of the tree: what stands above the arrays, `Dense_0` or `block_1/conv_0`."""
    return list(dict.fromkeys(_layer(path) for path, _ in trees.named_leaves(params)))


def kept_epochs(folder: Run) -> list[int]:
    """Returns the epochs whose checkpoints were kept, in their order.

    Raises:
      UsageError: one checkpoint alone was kept, or the models trained in waves.
    """
    models, wave = folder.plan()
    steps = sorted(listed(folder.checkpoints))
    if len(models) > wave:
        raise UsageError(
            f"--by epoch: the models of {folder.folder} trained in waves, at no time all of them are at one epoch"
        )
    if len(steps) < 2:
        raise UsageError(
            f"--by epoch: {folder.folder} has kept {plural(len(steps), 'checkpoint')}; train with --checkpoint-every 1 "
            "--checkpoints-kept 1000 to keep one for each epoch"
        )
    return steps


def by_epoch(
    folder: Run, epochs: list[int], like: dict[str, Any], pairs: np.ndarray, evaluate: Evaluate, names: list[str]
) -> list[dict[str, Any]]:
    """Returns a row for each kept checkpoint, pair and split: the barriers then.

    Args:
      folder: the run.
      epochs: of the checkpoints, see `kept_epochs`.
      like: `params` and `state` (M, ...), which give the form.
      pairs, evaluate, names: as of `by_layer`.
    """
    rows = []
    for epoch in epochs:
        _, saved, _ = newest(folder.checkpoints, like, only=epoch)
        with console.status(f"evaluating the checkpoint of epoch {epoch}"):
            paths = evaluate(saved["params"], saved["state"], pairs, ENDS)
        for split, path in paths.items():
            barriers = {name: np.asarray(connectivity.barrier(path, "linear", name)) for name in names}
            for i, pair in enumerate(pairs):
                rows.append({
                    "epoch": epoch, "pair": pair, "split": split, "examples": int(path.metrics.count[i][0]),
                    **{f"{name}_ends": path.value(name)[i, [0, 2]] for name in names},
                    **{f"{name}_barrier": values[i] for name, values in barriers.items()},
                })  # fmt: skip
    return rows


def _with_layer(model: Params, other: Params, layer: str) -> Params:
    parts = zip(trees.named_leaves(model), jax.tree.leaves(other), strict=True)
    return jax.tree.unflatten(jax.tree.structure(model), [b if _layer(path) == layer else a for (path, a), b in parts])


def _layer(path: Any) -> str:
    return trees.name(path[:-1] or path)
