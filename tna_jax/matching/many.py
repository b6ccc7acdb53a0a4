"""Matching of many models: all to their common mean (MergeMany), or all to the first."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from tna_jax import prng, sharding
from tna_jax.masks import Params
from tna_jax.matching import assignment, permutations
from tna_jax.matching.assignment import Matching
from tna_jax.matching.permutations import PermutationSpec
from tna_jax.matching.weights import weight_matching
from tna_jax.networks import State
from tna_jax.trees import Tree


class Merged(NamedTuple):
    """N networks matched to their common mean."""

    members: Params
    """(N, ...)"""
    state: State
    """(N, ...)"""
    matchings: list[Matching]
    """Of each model, the whole way from where it started; `sweeps` and the other counts are sums over the rounds."""
    rounds: int
    """Passes over the models, the last one, in which nothing moves, included."""


@sharding.outside_meshes
def merge_many(
    spec: PermutationSpec, members: Params, *, state: State = (), key: jax.Array | None = None, rounds: int = 50
) -> Merged:
    """Matches N >= 2 networks with each other: MergeMany of arXiv 2209.04836, algorithm 3, without its last step, the mean.

    One model after the other, in random order, is matched to the mean of all others, until none moves.

    Args:
      members: (N, ...) parameters.
      state: (N, ...).
      key: of the orders; default: `jax.random.key(0)`.
      rounds: passes at most; each raises the inner products between all models, so few are needed.

    Raises:
      ValueError: fewer than 2 models; and as `weight_matching`.
    """
    count = jax.tree.leaves(members)[0].shape[0]
    if count < 2:
        raise ValueError(f"matching needs at least 2 models, got {count}")
    key = prng.root_key(0) if key is None else prng.threefry(key)
    models, states = _separate(members, count), _separate(state, count)
    matchings = [
        assignment.finish(spec, permutations.identity(spec), m, s, 0.0, (0, 0, 0), False)
        for m, s in zip(models, states, strict=True)
    ]
    for done in range(rounds):
        turn = jax.random.fold_in(key, done)
        moved = 0
        for i in np.asarray(prng.same_bits(jax.random.permutation)(turn, count)):
            others = [other.params for k, other in enumerate(matchings) if k != i]
            mean = jax.tree.map(lambda *x: np.mean(np.stack([np.asarray(y, np.float32) for y in x]), 0), *others)
            new = weight_matching(
                spec, mean, matchings[i].params, state=matchings[i].state, key=jax.random.fold_in(turn, i)
            )
            moved += new.moved
            order_of = {name: matchings[i].permutation[name][order] for name, order in new.permutation.items()}
            counts = (x + y for x, y in zip(matchings[i][4:], new[4:], strict=True))
            matchings[i] = Matching(new.params, new.state, order_of, new.objective, *counts)
        if not moved:
            break
    return Merged(_stack([m.params for m in matchings]), _stack([m.state for m in matchings]), matchings, done + 1)


@sharding.outside_meshes
def match_to_first(members: Params, match: Callable[[Params, Params, State], Matching], state: State = ()) -> Merged:
    """Matches each of N networks to the first, which stays as it is.

    Args:
      members: (N, ...) parameters.
      state: (N, ...).
      match: (the first's parameters, another's, its state) -> `Matching`, e.g.
        `lambda a, b, s: weight_matching(spec, a, b, state=s)`.
    """
    count = jax.tree.leaves(members)[0].shape[0]
    models, states = _separate(members, count), _separate(state, count)
    matchings = [match(models[0], other, s) for other, s in zip(models[1:], states[1:], strict=True)]
    return Merged(
        _stack([models[0], *(m.params for m in matchings)]),
        _stack([states[0], *(m.state for m in matchings)]),
        matchings,
        1,
    )


def _separate(tree: Tree, count: int) -> list[Tree]:
    return [jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), tree) for i in range(count)]


def _stack(trees: list[Tree]) -> Tree:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
