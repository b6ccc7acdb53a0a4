"""How much anchors weigh at a moment of training, and how alike two networks are in what they trained."""

import jax
import numpy as np

from tna_jax import trees
from tna_jax.masks.operations import Mask, Params, is_anchored
from tna_jax.trees import PathFilter


def beta(params: Params, mask: Mask) -> dict[str, float]:
    """Computes the norm of the trainable part over the norm of the anchors, layer by layer.

    The quantity that bounds the deviation from linearity in arXiv 2606.04754. Entries under a soft anchor count as anchors.

    Args:
      params: a pytree of floating-point arrays, of one model.
      mask: what it trains or trained under.

    Returns:
      By path of the leaf, `"Dense_0/kernel"`, for every leaf that holds anchors; infinity where all of them are 0.

    Raises:
      ValueError: the mask does not fit the parameters.

    >>> beta({"w": np.float32([3.0, 4.0, 10.0])}, {"w": np.array([True, True, False])})
    {'w': 0.5}
    """
    ratios = {}
    for (path, leaf), m in zip(trees.parameters(params), trees.align(mask, params), strict=True):
        anchored = np.broadcast_to(np.asarray(is_anchored(m)), leaf.shape)
        if not anchored.any():
            continue
        values = np.abs(np.asarray(leaf).astype(np.complex128 if np.iscomplexobj(leaf) else np.float64))
        trained, fixed = (float(np.sqrt((values[part] ** 2).sum())) for part in (~anchored, anchored))
        ratios[trees.name(path)] = trained / fixed if fixed else float("inf")
    return ratios


def trained_cosine(a: Params, b: Params, mask: Mask | None = None, where: PathFilter | None = None) -> float:
    """Computes the cosine of the trainable parts of two models, over all leaves together: 1 for equal ones, about 0 for independent ones.

    Args:
      a, b: pytrees of the same paths and shapes.
      mask: what both train under; None: all entries count.
      where: leaves to look at, a regular expression or a predicate of the path; norms, which start at 1, are best left out.

    Returns:
      The cosine, in float64; 0 where one of the parts is 0. Of complex entries the real part of the inner product counts.

    Raises:
      ValueError: the models or the mask do not fit, or `where` selects nothing.
    """
    first, second, inner = _products(a, b, mask, where)
    return inner / np.sqrt(first * second).item() if first and second else 0.0


def trained_distance(a: Params, b: Params, mask: Mask | None = None, where: PathFilter | None = None) -> float:
    """Computes the Euclidean distance of the trainable parts of two models; arguments and errors as in `trained_cosine`."""
    pairs = zip(
        trees.parameters(a), _aligned(a, b), strict=True
    )  # in 64 bits: a difference of float16 rounds, and overflows
    difference = trees.like(a, [np.asarray(x).astype(np.complex128) - np.asarray(y) for (_, x), y in pairs])
    return float(np.sqrt(_products(difference, difference, mask, where)[0]))


def _aligned(a: Params, b: Params) -> list[jax.Array]:
    return trees.align(b, a, what="first model", subject="second model")


def _products(a: Params, b: Params, mask: Mask | None, where: PathFilter | None) -> tuple[float, float, float]:
    """The squared norms of the trainable parts of `a` and `b`, and their inner product."""
    named = trees.parameters(a)
    chosen = trees.selector(where, [path for path, _ in named])
    masks = [True] * len(named) if mask is None else trees.align(mask, a)
    sums = np.zeros(3)
    for (path, x), y, m in zip(named, _aligned(a, b), masks, strict=True):
        if not chosen(path):
            continue
        trained = np.broadcast_to(~np.asarray(is_anchored(m)), x.shape)
        u, v = (np.asarray(z).astype(np.complex128)[trained] for z in (x, y))
        sums += [np.vdot(u, u).real, np.vdot(v, v).real, np.vdot(u, v).real]
    return float(sums[0]), float(sums[1]), float(sums[2])
