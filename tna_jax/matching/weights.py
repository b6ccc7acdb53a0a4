"""Matching after training: which permutation of one network's hidden units brings it nearest to another network.

Weight and activation matching of Git Re-Basin (Ainsworth et al. 2023, arXiv 2209.04836). Linear assignments are solved on the
host by `scipy.optimize.linear_sum_assignment` (scipy comes with JAX), matrix products by NumPy.

spec = permutation_spec(network, a, x)
match = weight_matching(spec, a, b)
line(a, match.params, 0.5)
"""

import jax
import numpy as np

from tna_jax import prng, sharding, trees
from tna_jax.masks import Params
from tna_jax.matching import permutations
from tna_jax.matching.activations import activation_matching
from tna_jax.matching.assignment import Matching, assign, finish, require_finite
from tna_jax.matching.gains import Gains, front_to_back
from tna_jax.matching.permutations import PermutationSpec
from tna_jax.networks import State

__all__ = ["Matching", "activation_matching", "weight_matching"]


@sharding.outside_meshes
def weight_matching(
    spec: PermutationSpec,
    a: Params,
    b: Params,
    *,
    state: State = (),
    key: jax.Array | None = None,
    restarts: int = 1,
    check: bool = True,
) -> Matching:
    """Permutes `b` so that the inner product of its weights with those of `a` is large: arXiv 2209.04836, algorithm 1.

    Coordinate ascent: for one group after the other, from the network's inputs on, the best permutation given all others is
    a linear assignment; until nothing moves. In the first pass a group is matched by what it shares with those matched before
    it. Later a group is solved again only if one that shares a tensor with it has moved, and only what the moved units change
    is computed anew. The result is a local optimum. Laws: the objective is at least that of no permutation; matching a network with itself moves
    nothing; the network computes the same function.

    Args:
      spec: of the network.
      a, b: parameters of one model each.
      state: of `b`, permuted along.
      key: of the shuffles before restarts; default: `jax.random.key(0)`.
      restarts: number of starts: the first without any order, each other one from the best permutation so far with one group
        shuffled. The best is kept. Ours; the published algorithm is one start.
      check: compare the functions of `b` before and after.

    Raises:
      ValueError: fewer than 1 start, non-finite weights, or, which would be an error here, another function.
    """
    if restarts < 1:
        raise ValueError(f"restarts must be at least 1, got {restarts}")
    first, second = (
        {path: np.asarray(leaf, np.float32) for path, leaf in trees.named_leaves(tree)} for tree in (a, b)
    )
    require_finite({**first, **{("b", *path): leaf for path, leaf in second.items()}})
    gains = Gains(spec, first, second)
    draws = np.random.default_rng(prng.words(prng.root_key(0) if key is None else key))
    nothing = permutations.identity(spec)
    best, counts = ascend(gains, nothing, set(spec.groups), settled=False)
    objective = gains.objective(best)
    if objective < gains.objective(nothing):
        best, more = ascend(gains, nothing, set(spec.groups))
        objective, counts = gains.objective(best), add(counts, more)
    for _ in range(restarts - 1 if spec.groups else 0):
        shaken = list(spec.groups)[draws.integers(len(spec.groups))]
        start = {**best, shaken: draws.permutation(spec.groups[shaken])}
        order, more = ascend(gains, start, gains.neighbors[shaken] or {shaken})
        counts = add(counts, more)
        reached = gains.objective(order)
        if reached > objective:
            best, objective = order, reached
    return finish(spec, best, b, state, objective, counts, check)


Counts = tuple[int, int, int]
"""Sweeps, assignments and moves."""


def add(counts: Counts, more: Counts) -> Counts:
    """Returns the sums."""
    return counts[0] + more[0], counts[1] + more[1], counts[2] + more[2]


def ascend(
    gains: Gains, start: dict[str, np.ndarray], waiting: set[str], settled: bool = True
) -> tuple[dict[str, np.ndarray], Counts]:
    """Climbs from `start`, one group after the other from the network's inputs on, until none gains anything.

    Args:
      gains: of the two networks.
      start: by group, the units of the second network in their order.
      waiting: the groups that are not known to be at their best.
      settled: whether the orders at the start say anything; else a group is first matched by what it shares with groups that
        were matched before it, which takes fewer assignments and reaches more.

    Returns:
      The permutation reached, and what it took.
    """
    permutation, waiting = dict(start), set(waiting)
    unsettled = set() if settled else set(start)
    sweeps = assignments = moving = 0
    while waiting:
        sweeps += 1
        for name in front_to_back(gains.spec):
            if name not in waiting:
                continue
            waiting.discard(name)
            unsettled.discard(name)
            if gains.neighbors[name] & unsettled:
                waiting.add(name)
            gain = gains.of(name, permutation, unsettled)
            new = assign(gain)
            assignments += 1
            if gains.better(name, new, gain, permutation):
                permutation[name] = new
                moving += 1
                waiting |= gains.neighbors[name] | ({name} & gains.quadratic)
    return permutation, (sweeps, assignments, moving)
