"""Matching after training: which permutation of one network's hidden units brings it nearest to another network.

Weight and activation matching of Git Re-Basin (Ainsworth et al. 2023, arXiv 2209.04836). Linear assignments are solved on the
host by `scipy.optimize.linear_sum_assignment` (scipy comes with JAX), or `lapx` where it is installed; matrix products by NumPy.

spec = permutation_spec(network, a, x)
match = weight_matching(spec, a, b)
line(a, match.params, 0.5)
"""

import jax
import numpy as np

from tna_jax import prng, sharding
from tna_jax.masks import Params
from tna_jax.matching import permutations
from tna_jax.matching.activations import activation_matching
from tna_jax.matching.ascent import best_of
from tna_jax.matching.assignment import Matching, finish, require_finite_models
from tna_jax.matching.gains import Gains, real_leaves
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
    tolerance: float | None = None,
) -> Matching:
    """Permutes `b` so that the inner product of its weights with those of `a` is large: arXiv 2209.04836, algorithm 1.

    Coordinate ascent: for one group after the other, from the network's inputs on, the best permutation given all others is
    a linear assignment; until nothing moves. In the first pass a group is matched by what it shares with those matched before
    it. Later a group is solved again only if one that shares a tensor with it has moved, and only what the moved units change
    is computed anew. The result is a local optimum. Of complex weights the real part of the inner product counts. Laws: the
    objective is at least that of no permutation; matching a network with itself moves nothing; the network computes the same
    function.

    Args:
      spec: of the network.
      a, b: parameters of one model each.
      state: of `b`, permuted along.
      key: of the shuffles before restarts; default: `jax.random.key(0)`.
      restarts: number of starts: the first without any order, each other one from the best permutation so far with one group
        shuffled. The best is kept. Ours; the published algorithm is one start.
      check: compare the functions of `b` before and after, once at the end.
      tolerance: what they may differ by, as a share of the largest output; default: by the narrowest float of the program.

    Raises:
      ValueError: fewer than 1 start, leaves that are not those of the traced network, weights that are not finite, or, which would be an error
        here, another function.
    """
    if restarts < 1:
        raise ValueError(f"restarts must be at least 1, got {restarts}")
    permutations.require_leaves(spec, a=a, b=b)
    first, second = real_leaves(a), real_leaves(b)
    require_finite_models(a=first, b=second)
    draws = np.random.default_rng(prng.words(prng.root_key(0) if key is None else key))
    best, objective, counts = best_of(Gains(spec, first, second), draws, restarts)
    return finish(spec, best, b, state, objective, counts, check, tolerance)
