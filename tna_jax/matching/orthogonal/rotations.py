"""Rotations of a residual stream: the nearest one to a matrix of inner products, and a network turned by one."""

import numpy as np
from jaxtyping import Float

from tna_jax import trees
from tna_jax.masks import Params
from tna_jax.matching.orthogonal.streams import ResidualStream


def centered_basis(width: int) -> Float[np.ndarray, "D D-1"]:
    """Returns an orthonormal basis (width, width - 1) of the vectors whose mean is 0."""
    full = np.linalg.qr(np.concatenate([np.ones((width, 1)), np.eye(width)[:, 1:]], axis=1))[0]
    basis: np.ndarray = full[:, 1:]
    return basis


def procrustes(products: Float[np.ndarray, "D D"], *, centered: bool) -> Float[np.ndarray, "D D"]:
    """Computes the orthogonal matrix R that makes the sum of `products * R` largest: the polar factor (Schönemann 1966).

    Args:
      products: (D, D) inner products of the second network's entries i with the first one's entries j.
      centered: keep the mean apart: R maps the vector of ones to itself, and so vectors of mean 0 to such ones.

    Returns:
      (D, D) float64.
    """
    products = np.asarray(products, np.float64)
    if not centered:
        u, _, v = np.linalg.svd(products)
        rotation: np.ndarray = u @ v
        return rotation
    basis = centered_basis(len(products))
    u, _, v = np.linalg.svd(basis.T @ products @ basis)
    apart: np.ndarray = basis @ (u @ v) @ basis.T + 1 / len(products)
    return apart


def rotate(stream: ResidualStream, rotation: Float[np.ndarray, "D D"], params: Params) -> Params:
    """Turns a network's residual stream: what writes is multiplied with the rotation, what reads with its inverse.

    The network computes the same function if its norms, and factors of layer scale, are 1 (`norm_form`) and, where norms subtract the
    mean, the rotation maps the vector of ones to itself.

    Args:
      stream: of the network.
      rotation: (D, D) orthogonal; entry j of the turned stream is the old one times column j.
      params: of one model; computed in float64, in the old dtypes afterwards.
    """
    axes = {**dict(stream.writers), **dict(stream.readers)}
    axes |= {norm.bias: -1 for norm in stream.norms if norm.bias is not None}

    def turned(leaf: np.ndarray, axis: int) -> np.ndarray:
        axis %= leaf.ndim
        tokens = leaf.reshape(
            *leaf.shape[:axis], -1, stream.width, *leaf.shape[axis + 1 :]
        )  # one, or several end to end
        product = np.tensordot(tokens.astype(np.float64), rotation, (axis + 1, 0))
        return np.moveaxis(product, -1, axis + 1).reshape(leaf.shape).astype(leaf.dtype)

    return trees.like(
        params,
        [turned(np.asarray(leaf), axes[path]) if path in axes else leaf for path, leaf in trees.named_leaves(params)],
    )
