"""Matching of many models: all to their common mean (MergeMany), all at once (C2M3), or all to the first."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import numpy as np

from tna_jax import averaging, prng, sharding, trees
from tna_jax.masks import Params
from tna_jax.matching import assignment, permutations, synchronized
from tna_jax.matching.ascent import Counts, add, best_of
from tna_jax.matching.assignment import Matching
from tna_jax.matching.gains import Gains, Leaves, real_leaves
from tna_jax.matching.permutations import Permutation, PermutationSpec
from tna_jax.networks import State
from tna_jax.trees import Tree

Algorithm = Literal["coordinate_ascent", "frank_wolfe"]
"""How many models are matched: MergeMany of arXiv 2209.04836 from the order of the first model, or C2M3, arXiv 2405.17897."""


class Merged(NamedTuple):
    """N networks matched to their common mean."""

    members: Params
    """(N, ...)"""
    state: State
    """(N, ...)"""
    matchings: list[Matching]
    """Of each model, the whole way from where it started; `objective` is the inner product with the mean of the others, `sweeps`
    and the other counts are sums over the rounds."""
    rounds: int
    """Passes over the models, the last one, in which nothing moves, included."""

    def between(self, i: int, j: int) -> dict[str, np.ndarray]:
        """Returns the permutation that brings model `j`, as it was, into the order of model `i`, as it was.

        All go by way of the common order, so that they agree along cycles: from k to j and from j to i is from k to i.
        """
        first, second = self.matchings[i].permutation, self.matchings[j].permutation
        return {name: order[np.argsort(first[name])] for name, order in second.items()}


@sharding.outside_meshes
def merge_many(
    spec: PermutationSpec,
    members: Params,
    *,
    state: State = (),
    key: jax.Array | None = None,
    rounds: int = 50,
    restarts: int = 4,
    algorithm: Algorithm = "coordinate_ascent",
    check: bool = True,
    tolerance: float | None = None,
) -> Merged:
    """Matches N >= 2 networks with each other, so that the inner products between all of them are large.

    "coordinate_ascent" is MergeMany of arXiv 2209.04836, algorithm 3, without its last step, the mean: one model after the
    other, in random order, is matched to the mean of all others, until none moves. It begins with all models matched to the
    first, or with the order in which they come, whichever is better: from an order that says nothing it gets stuck.

    "frank_wolfe" is C2M3 (arXiv 2405.17897): all permutations at once, as doubly stochastic matrices, by Frank-Wolfe; what it
    ends in is where coordinate ascent begins. It takes longer and often ends higher.

    Laws: the sum of the inner products is never below that of the models as they come; each model keeps its function;
    `Merged.between` agrees along cycles.

    Args:
      spec: of the network.
      members: (N, ...) parameters, or a list or tuple of N models.
      state: (N, ...), or as the members.
      key: of the orders and the shuffles; default: `jax.random.key(0)`.
      rounds: passes at most; each raises the inner products between all models, so few are needed.
      restarts: number of starts of each matching, as in `weight_matching`.
      algorithm: one of `Algorithm`.
      check: compare the functions of each model before and after.
      tolerance: what they may differ by, as in `weight_matching`.

    Raises:
      ValueError: fewer than 2 models, an unknown algorithm; and as `weight_matching`.
    """
    models, states = _each(spec, members, state)
    count = len(models)
    if count < 2:
        raise ValueError(f"matching needs at least 2 models, got {count}")
    if restarts < 1 or rounds < 1:
        raise ValueError(f"restarts and rounds must be at least 1, got {restarts} and {rounds}")
    if algorithm not in ("coordinate_ascent", "frank_wolfe"):
        raise ValueError(f"algorithm must be 'coordinate_ascent' or 'frank_wolfe', got {algorithm!r}")
    permutations.require_leaves(spec, **{f"model {i}": model for i, model in enumerate(models)})
    leaves = [real_leaves(model) for model in models]
    assignment.require_finite_models(**{f"model {i}": model for i, model in enumerate(leaves)})
    draws = np.random.default_rng(prng.words(prng.root_key(0) if key is None else key))
    if algorithm == "frank_wolfe":
        orders = synchronized.frank_wolfe(spec, leaves)
        counts: list[Counts] = [(0, 0, 0)] * count
    else:
        orders, counts = _to_first(spec, leaves, draws, restarts)
    nothing = [permutations.identity(spec)] * count
    if _agreement(spec, leaves, orders) < _agreement(spec, leaves, nothing):
        orders = nothing
    orders, objectives, counts, done = _rounds(spec, leaves, orders, counts, draws, rounds, restarts)
    matchings = [
        assignment.finish(spec, order, model, model_state, objective, each, check, tolerance)
        for order, model, model_state, objective, each in zip(orders, models, states, objectives, counts, strict=True)
    ]
    return Merged(_stack([m.params for m in matchings]), _stack([m.state for m in matchings]), matchings, done)


Orders = list[dict[str, np.ndarray]]
"""Of each model, by group."""


def _to_first(
    spec: PermutationSpec, leaves: Sequence[Leaves], draws: np.random.Generator, restarts: int
) -> tuple[Orders, list[Counts]]:
    orders, counts = [permutations.identity(spec)], [(0, 0, 0)]
    for other in leaves[1:]:
        order, _, each = best_of(Gains(spec, leaves[0], other), draws, restarts)
        orders.append(order)
        counts.append(each)
    return orders, counts


def _rounds(
    spec: PermutationSpec,
    leaves: Sequence[Leaves],
    orders: Orders,
    counts: list[Counts],
    draws: np.random.Generator,
    rounds: int,
    restarts: int,
) -> tuple[Orders, list[float], list[Counts], int]:
    """Matches one model after the other to the mean of all others."""
    orders, counts, objectives = list(orders), list(counts), [0.0] * len(leaves)
    current = [_permuted(spec, model, order) for model, order in zip(leaves, orders, strict=True)]
    for done in range(rounds):  # noqa: B007
        moved = False
        for i in draws.permutation(len(leaves)):
            others = [model for k, model in enumerate(current) if k != i]
            mean = {path: _mean([model[path] for model in others]) for path in spec.params}
            order, objectives[i], more = best_of(Gains(spec, mean, current[i]), draws, restarts, settled=True)
            counts[i] = add(counts[i], more)
            if any((new != np.arange(len(new))).any() for new in order.values()):
                moved = True
                orders[i] = {name: orders[i][name][new] for name, new in order.items()}
                current[i] = _permuted(spec, leaves[i], orders[i])
        if not moved:
            break
    return orders, objectives, counts, done + 1


def _mean(leaves: Sequence[np.ndarray]) -> np.ndarray:
    return np.asarray(np.mean(leaves, 0, np.result_type(*leaves)))


def _agreement(spec: PermutationSpec, leaves: Sequence[Leaves], orders: Orders) -> float:
    """Half the square of the sum of all models, which differs from the inner products of all pairs by a constant."""
    total = [_permuted(spec, model, order) for model, order in zip(leaves, orders, strict=True)]
    sums = [np.sum([model[path] for model in total], 0, np.float64) for path in spec.params]
    return sum(float(np.vdot(leaf, leaf)) for leaf in sums) / 2


def _permuted(spec: PermutationSpec, leaves: Leaves, order: Permutation) -> Leaves:
    return {path: permutations.permuted(leaf, spec.params[path], order) for path, leaf in leaves.items()}


@sharding.outside_meshes
def match_to_first(members: Params, match: Callable[[Params, Params, State], Matching], state: State = ()) -> Merged:
    """Matches each of N networks to the first, which stays as it is.

    Args:
      members: (N, ...) parameters, or a list or tuple of N models.
      state: (N, ...), or as the members.
      match: (the first's parameters, another's, its state) -> `Matching`, e.g.
        `lambda a, b, s: weight_matching(spec, a, b, state=s)`.
    """
    members, state = averaging.stacked(members), averaging.stacked(state)
    count = jax.tree.leaves(members)[0].shape[0]
    models, states = _separate(members, count), _separate(state, count)
    matchings = [match(models[0], other, s) for other, s in zip(models[1:], states[1:], strict=True)]
    return Merged(
        _stack([models[0], *(m.params for m in matchings)]),
        _stack([states[0], *(m.state for m in matchings)]),
        matchings,
        1,
    )


def _each(spec: PermutationSpec, members: Params, state: State) -> tuple[list[Params], list[State]]:
    """The models and their states, one by one."""
    if type(members) in (list, tuple) and {path for path, _ in trees.named_leaves(members)} != set(spec.params):
        models = list(members)
        states = (
            _separate(state, len(models))
            if type(state) not in (list, tuple) or len(state) != len(models)
            else list(state)
        )
        return models, states
    count = np.shape(jax.tree.leaves(members)[0])[0]
    return _separate(members, count), _separate(state, count)


def _separate(tree: Tree, count: int) -> list[Tree]:
    return [jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), tree) for i in range(count)]


def _stack(trees: list[Tree]) -> Tree:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
