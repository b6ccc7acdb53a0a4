"""Averages of many models: uniform, weighted, and the greedy soup (Wortsman et al. 2022, arXiv 2203.05482).

Members are one pytree whose leaves have a leading axis, the model. As in `tna_jax.interpolation`: sums run in float32 (float64
stays float64) and are cast back; an entry that is equal in all models is copied, so anchors stay, bit for bit; leaves that
are not floating-point are the first model's.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, PyTree, Shaped

from tna_jax import interpolation, sharding, trees
from tna_jax.masks import Params

Stacked: TypeAlias = PyTree[Shaped[Array | np.ndarray, "M ..."]]
"""M models as one pytree with leaves (M, ...)."""

Tree = TypeVar("Tree")
"""The type of a model, which its average has too."""

Ties = Literal["keep", "drop"]
"""What becomes of an ingredient that leaves the score as it is: `keep` (the paper's rule, >=) or `drop` (its code's, >)."""


Weights: TypeAlias = Shaped[Array | np.ndarray, "..."] | Sequence[float]


@overload
def weighted_average(members: list[Tree], weights: Weights) -> Tree: ...
@overload
def weighted_average(members: tuple[Tree, Tree, *tuple[Tree, ...]], weights: Weights) -> Tree: ...
@overload
def weighted_average(members: Tree, weights: Weights) -> Tree: ...
def weighted_average(members: Any, weights: Weights) -> Any:
    """Returns the average of M models with the shares `weights / sum(weights)`.

    Laws: a single weight that is not 0 gives that model; copies of one model give that model; an entry equal in all models
    whose weight is not 0 is copied; all bit for bit.

    Args:
      members: one pytree with leaves (M, ...), NumPy or JAX, the models stacked; or a list or tuple of models of one structure, see
        `stacked`.
      weights: (M,) floats whose sum is not 0; negative ones extrapolate.

    Returns:
      A pytree with leaves (...). Works under `jit` and `vmap`.

    Raises:
      ValueError: leaves with unlike numbers of models (their paths are listed), another number of weights than models, or weights
        whose sum is 0 or not finite.
    """
    return average_stacked(stacked(members), weights)


def average_stacked(members: Tree, weights: Weights) -> Tree:
    """Returns `weighted_average` of one pytree with leaves (M, ...), also where that is a list whose entries look like models."""
    count = _leading(members)
    weights = jnp.asarray(weights, jnp.result_type(float))
    if weights.shape != (count,):
        raise ValueError(f"expected one weight for each of the {count} models, got the shape {weights.shape}")
    if not isinstance(weights, jax.core.Tracer) and not (np.isfinite(weights.sum()) and float(weights.sum())):
        raise ValueError(
            f"the weights and their sum must be finite, and the sum not 0; got {np.asarray(weights).tolist()}"
        )
    trees.require_exact(members)
    average: Tree = _mixture(members, weights / weights.sum())
    return average


_mixture = jax.jit(interpolation.mixture)


@overload
def uniform_soup(members: list[Tree]) -> Tree: ...
@overload
def uniform_soup(members: tuple[Tree, Tree, *tuple[Tree, ...]]) -> Tree: ...
@overload
def uniform_soup(members: Tree) -> Tree: ...
def uniform_soup(members: Any) -> Any:
    """Returns the plain average of M models; arguments, laws and errors as `weighted_average`."""
    return weighted_average(members, np.ones(count_of(members), np.float32))


def stack(models: Sequence[Tree]) -> Tree:
    """Returns models one by one as one pytree with leaves (M, ...), as averages and ensembles take them.

    Raises:
      ValueError: no models, or models that do not fit each other; all differing paths are listed.
      TypeError: leaves that are not arrays (a whole Equinox module); all their paths are listed.
    """
    if not models:
        raise ValueError("there are no models to stack")
    trees.require_arrays(models[0], "models are stacked array by array")
    others = [
        trees.align(model, models[0], what="first model", subject=f"model {i}", same_dtypes=True)
        for i, model in enumerate(models[1:], 1)
    ]
    trees.require_exact(*models)
    columns = zip(jax.tree.leaves(models[0]), *others, strict=True)
    return trees.like(models[0], [jnp.stack([jnp.asarray(leaf) for leaf in column]) for column in columns])


def stacked(members: Params) -> Stacked:
    """Returns a stacked tree as it is, and a list or tuple of models stacked.

    Trees of equal paths and shapes in a list or tuple are models one by one, one alone too, also where they could be the layers of stacked
    models: put such layers into a dict. Where their dtypes differ they are refused.

    >>> stacked([{"w": np.zeros(3)}, {"w": np.ones(3)}])["w"].shape
    (2, 3)
    """
    return stack(members) if _one_by_one(members) else members


def _one_by_one(members: Params) -> bool:
    if type(members) not in (list, tuple) or not members:
        return False
    forms = [
        {path: np.shape(leaf) for path, leaf in trees.named_leaves(model) if trees.is_array(leaf)} for model in members
    ]
    return bool(forms[0]) and all(form == forms[0] for form in forms[1:])


def count_of(members: Params) -> int:
    """Returns M of a stacked tree, leaves (M, ...), or of a list or tuple of models (see `stacked`).

    Raises:
      ValueError: no leaves, or leaves whose leading axes differ.
    """
    return len(members) if _one_by_one(members) else _leading(members)


def _leading(members: Stacked) -> int:
    if not jax.tree.leaves(members):
        raise ValueError(
            "there are no models: expected stacked ones, every leaf (M, ...), or a list of models one by one"
        )
    shapes = {trees.name(path): jnp.shape(leaf) for path, leaf in trees.named_leaves(members)}
    sizes = {shape[0] for shape in shapes.values() if shape}
    if len(sizes) != 1 or () in shapes.values():
        listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ValueError(
            "expected stacked models, every leaf (M, ...) with one M; tna_jax.stack makes that of models one by one: "
            + listed
        )
    return sizes.pop()


class Ingredient(NamedTuple):
    """One step of a greedy soup."""

    model: int
    """Its index."""
    own: float
    """Its score alone."""
    score: float
    """The score of the soup with it; not finite where that was not, or was not asked for, since the model had no score itself."""
    kept: bool


class GreedySoup(NamedTuple):
    """What a greedy soup is made of."""

    weights: Float32[np.ndarray, " M"]
    """(M,) float32, 1 for an ingredient and 0 else."""
    score: float
    """Of the soup."""
    trail: list[Ingredient]
    """All models in the order in which they were tried; the first is the best single model."""


def greedy_recipe(
    scores: Sequence[float] | Shaped[np.ndarray, " M"],
    score: Callable[[np.ndarray], float],
    ties: Ties = "keep",
    larger_is_better: bool = True,
) -> GreedySoup:
    """Returns which of M models to average: tried from the best to the worst, each kept if the soup's score does not fall with it.

    arXiv 2203.05482, recipe 1. Law: the score is at least the best single model's. Equal models are tried in their order.

    Args:
      scores: (M,) held-out score of each model; models whose score is not finite are left out, and those with which the soup's is not.
      score: (M,) weights, 1 for each ingredient and 0 else, to the held-out score of their average. It is called at most M - 1
        times.
      ties: see `Ties`.
      larger_is_better: whether the best score is the largest, or (losses) the smallest.

    Raises:
      ValueError: no finite score, or an unknown rule.
    """
    if ties not in ("keep", "drop"):
        raise ValueError(f"unknown rule for ties {ties!r}: known are keep, drop")
    alone = [float(value) for value in scores]
    sign = 1 if larger_is_better else -1
    order = sorted(range(len(alone)), key=lambda i: -sign * alone[i] if math.isfinite(alone[i]) else math.inf)
    if not order or not math.isfinite(alone[order[0]]):
        raise ValueError("a greedy soup needs at least one model with a finite score")
    best = alone[order[0]]
    weights = np.zeros(len(alone), np.float32)
    weights[order[0]] = 1
    trail = [Ingredient(order[0], best, best, True)]
    for i in order[1:]:
        soup_score = math.nan
        if math.isfinite(alone[i]):
            candidate = weights.copy()
            candidate[i] = 1
            soup_score = float(score(candidate))
        better = sign * soup_score >= sign * best if ties == "keep" else sign * soup_score > sign * best
        kept = better and math.isfinite(soup_score)
        if kept:
            weights, best = candidate, soup_score
        trail.append(Ingredient(i, alone[i], soup_score, kept))
    return GreedySoup(weights, best, trail)


@overload
def greedy_soup(
    members: list[Tree],
    score: Callable[[Tree], Any],
    ties: Ties = ...,
    scores: Sequence[float] | Shaped[np.ndarray, " M"] | None = ...,
    larger_is_better: bool = ...,
) -> tuple[Tree, GreedySoup]: ...
@overload
def greedy_soup(
    members: Tree,
    score: Callable[[Tree], Any],
    ties: Ties = ...,
    scores: Sequence[float] | Shaped[np.ndarray, " M"] | None = ...,
    larger_is_better: bool = ...,
) -> tuple[Tree, GreedySoup]: ...
def greedy_soup(
    members: Any,
    score: Callable[[Any], Any],
    ties: Ties = "keep",
    scores: Sequence[float] | Shaped[np.ndarray, " M"] | None = None,
    larger_is_better: bool = True,
) -> tuple[Any, GreedySoup]:
    """Returns the greedy soup of M models, and its recipe; see `greedy_recipe`.

    Args:
      members: as for `weighted_average`.
      score: one model's parameters to its score on held-out data (not on the test set).
      ties: see `Ties`.
      scores: (M,) of the single models, if they are known; else `score` computes them.
      larger_is_better: of the score; `False` for losses.

    Returns:
      The soup, leaves (...), and what it is made of.

    Raises:
      ValueError: as `greedy_recipe` and `weighted_average`.

    >>> members = {"w": jnp.array([[1.0], [2.0], [9.0]])}
    >>> soup, recipe = greedy_soup(members, lambda model: -jnp.abs(model["w"][0] - 1.6))
    >>> soup["w"].tolist(), recipe.weights.tolist()
    ([1.5], [1.0, 1.0, 0.0])
    """
    members = stacked(members)
    count = _leading(members)
    if scores is None:
        scores = [float(score(jax.tree.map(lambda leaf, i=i: sharding.entry(leaf, i), members))) for i in range(count)]
    if len(scores) != count:
        raise ValueError(f"expected one score for each of the {count} models, got {len(scores)}")
    recipe = greedy_recipe(
        scores, lambda weights: float(score(average_stacked(members, weights))), ties, larger_is_better
    )
    return average_stacked(members, recipe.weights), recipe
