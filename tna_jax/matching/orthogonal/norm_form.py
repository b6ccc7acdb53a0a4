"""Takes scales and biases out of the norms of a residual stream, layer scale and the mean out of what is written: the same function."""

import numpy as np

from tna_jax import trees
from tna_jax.masks import Params
from tna_jax.matching.orthogonal.streams import ResidualStream

SMALLEST = 1e-4
"""A bias that no reader can take is divided by the norm's scale, which must be at least this share of the largest one."""


def norm_form(stream: ResidualStream, params: Params, *, centered: bool) -> Params:
    """Folds every norm into the layers that read it, layer scale and the mean's subtraction into those that write: the same function.

    A layer norm of a stream whose mean is 0 is an RMS norm, so what writes is centered (SliceGPT, arXiv 2401.15024, and
    2506.22712). Scales become 1; biases of norms go into those of the readers, and where one of the readers has none they are
    divided by the scale and stay. Factors of layer scale become 1. The same tree runs in the same network.

    Args:
      stream: of the network.
      params: of one model; computed in float64, in the old dtypes afterwards.
      centered: whether the norms subtract the mean (layer norm); False for RMS norms.

    Raises:
      ValueError: a norm's bias that no reader can take, beside scales near 0; all are named.
    """
    leaves = {path: np.asarray(leaf) for path, leaf in trees.named_leaves(params)}
    wide = {path: leaf.astype(np.float64) for path, leaf in leaves.items()}
    for factor in stream.layer_scales:
        for path, axis in factor.writers:
            wide[path] = wide[path] * _along(wide[factor.scale], wide[path], axis)
        wide[factor.scale] = np.ones_like(wide[factor.scale])
    wrong = []
    for norm in stream.norms:
        scale = wide[norm.scale]
        bias = None if norm.bias is None else wide[norm.bias]
        if bias is not None and all(reader.bias is not None for reader in norm.readers):
            for reader in norm.readers:
                assert reader.bias is not None
                wide[reader.bias] = wide[reader.bias] + _read(bias, wide[reader.kernel], reader.axis)
            wide[norm.bias] = np.zeros_like(bias)  # type: ignore[index]
        elif bias is not None:
            if np.abs(scale).min() < SMALLEST * np.abs(scale).max() and bias.any():
                wrong.append(trees.name(norm.scale))
                continue
            wide[norm.bias] = bias / scale  # type: ignore[index]
        for reader in norm.readers:
            kernel = wide[reader.kernel]
            wide[reader.kernel] = kernel * _along(scale, kernel, reader.axis)
        wide[norm.scale] = np.ones_like(scale)
    if wrong:
        raise ValueError(
            f"norms whose bias no reader takes have scales near 0: {', '.join(wrong)}. Give their readers biases (of 0)"
        )
    if centered:
        for path, axis in stream.writers:
            wide[path] = wide[path] - wide[path].mean(axis=axis, keepdims=True)
    return trees.like(params, [_as(wide[path], leaf) for path, leaf in leaves.items()])


def _as(values: np.ndarray, leaf: np.ndarray) -> np.ndarray:
    return values.astype(leaf.dtype)


def _along(values: np.ndarray, leaf: np.ndarray, axis: int) -> np.ndarray:
    """Values (..., D) along an axis of a leaf, of one or several tokens end to end; leading axes (layers of a scan) are the leaf's too."""
    values = np.concatenate([values] * (leaf.shape[axis] // values.shape[-1]), axis=-1)
    shape = [1] * leaf.ndim
    shape[: values.ndim - 1] = values.shape[:-1]
    shape[axis] = values.shape[-1]
    return values.reshape(shape)


def _read(bias: np.ndarray, kernel: np.ndarray, axis: int) -> np.ndarray:
    """What a kernel makes of a norm's bias (..., D)."""
    result: np.ndarray = (_along(bias, kernel, axis) * kernel).sum(axis=axis)
    return result
