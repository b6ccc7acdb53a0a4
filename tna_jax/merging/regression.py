"""RegMean: the weights whose outputs are closest to every model's on its own inputs (Jin et al., arXiv 2212.09849).

    merged = (sum_i w_i G_i)^-1 sum_i w_i G_i W_i,    G_i = X_i^T X_i

for each dense layer with weights W (in, out) and inputs X; entries of G off the diagonal are multiplied by `scale` (the
paper's alpha; 0.9 for most models). All other parameters, biases among them, are averaged, as in the paper. Only Gram
matrices are needed, no data. Ours: G is a mean over inputs, so that the number of inputs does not weigh; where the sum is
singular, the solution closest to the average is taken: inputs that are never active keep it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tna_jax.masks.operations import Mask, Params
from tna_jax.merging import tensors
from tna_jax.merging.columns import columns_of, like
from tna_jax.merging.grams import Gram
from tna_jax.merging.method import Array
from tna_jax.merging.methods import METHODS

SINGULAR = 1e-10
"""Share of the largest eigenvalue below which one is taken for 0."""


def regmean(
    models: Sequence[Params],
    grams: Sequence[Mapping[str, Gram]],
    weights: Sequence[float] | None = None,
    *,
    scale: float = 0.9,
    mask: Mask | None = None,
) -> Params:
    """Returns M models merged layer by layer, by the Gram matrices of what enters each.

    Laws: equal Gram matrices give the weighted average, equal models that model. Entries equal in all models are copied, bit
    for bit, and what `mask` anchors is the first model's.

    Args:
      models: M pytrees of the same paths, shapes and dtypes.
      grams: M results of `gram_matrices`, each of a model on inputs of its own task.
      weights: (M,), not negative; default: equal.
      scale: of entries off the diagonal, in [0, 1]; 0 is a mean weighted by each input's mean square.
      mask: a mask like the models.

    Raises:
      ValueError: trees or Gram matrices that do not fit, another number of them, or a `scale` outside [0, 1].
    """
    if not 0 <= scale <= 1:
        raise ValueError(f"scale must be in [0, 1], got {scale}")
    if len(grams) != len(models) or len({tuple(sorted(g)) for g in grams}) > 1:
        raise ValueError(
            f"expected Gram matrices of the same layers for each of the {len(models)} models, got {len(grams)}"
        )
    shares = METHODS["average"].shares(weights, len(models))
    if (shares < 0).any():
        raise ValueError(f"weights must not be negative, got {shares.tolist()}")
    columns = columns_of(models, mask=mask)
    unknown = sorted(set(grams[0]) - {column.name for column in columns})
    if unknown:
        raise ValueError(f"Gram matrices of parameters that the models do not have: {', '.join(unknown)}")
    merged: list[Any] = []
    for column in columns:
        if not column.is_merged:
            merged.append(column.models[0].copy())
            continue
        wide = np.stack([model.astype(np.float64) for model in column.models])
        values = np.einsum("m,m...->...", shares, wide)
        if column.name in grams[0]:
            values = _regression(wide, [g[column.name] for g in grams], shares, scale, values, column.name)
        merged.append(tensors.settle(values, column.models, None, column.anchored, "regmean", column.name))
    return like(models[0], merged)


def _regression(weights: Array, grams: list[Gram], shares: Array, scale: float, average: Array, name: str) -> Array:
    """Solves for one layer, (M, ...) float64 to (...); `average` is where nothing is known."""
    axes = grams[0].axes
    sizes = [average.shape[axis] for axis in axes]
    if any(gram.axes != axes or gram.matrix.shape != (int(np.prod(sizes)),) * 2 for gram in grams):
        raise ValueError(f"the Gram matrices of {name} do not fit its shape {average.shape}")

    def matrix(array: Array) -> Array:
        front = np.moveaxis(array, axes, tuple(range(len(axes))))
        return front.reshape(int(np.prod(sizes)), -1)

    total = np.zeros_like(grams[0].matrix)
    residual = np.zeros_like(matrix(average))
    for weight, gram, share in zip(weights, grams, shares, strict=True):
        shrunk = share * np.where(np.eye(len(total), dtype=bool), gram.matrix, scale * gram.matrix)
        total += shrunk
        residual += shrunk @ (matrix(weight) - matrix(average))
    solved = matrix(average) + np.linalg.pinv(total, rcond=SINGULAR, hermitian=True) @ residual
    shape = [*sizes, *(size for i, size in enumerate(average.shape) if i not in axes)]
    return np.moveaxis(solved.reshape(shape), tuple(range(len(axes))), axes)
