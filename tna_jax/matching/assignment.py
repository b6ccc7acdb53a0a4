"""What all kinds of matching share: the linear assignment, and a network whose units were renamed by it."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer

try:
    from lap import lapjvs
except ImportError:  # also of a folder of the user's that is called lap
    lapjvs = None

from tna_jax import trees
from tna_jax.masks import Params
from tna_jax.matching import magnitudes, permutations
from tna_jax.matching.permutations import PermutationSpec
from tna_jax.networks import State
from tna_jax.trees import KeyPath


class Matching(NamedTuple):
    """A network whose units were renamed to match another one."""

    params: Params
    """Like the matched network's."""
    state: State
    """Its state, permuted as well."""
    permutation: dict[str, np.ndarray]
    objective: float
    """Inner product with the other network: of the weights, or of the activations' sums."""
    sweeps: int
    """Passes over the groups that were not known to be at their best, of all starts together; 1 for activation matching."""
    assignments: int
    """Linear assignments that were solved."""
    moving: int
    """Those of them that changed a permutation."""
    by_weights: tuple[str, ...] = ()
    """Groups that activation matching has no activations of, so that they were matched by weights."""

    @property
    def moved(self) -> int:
        """Units that were given another place; 0 if matching found nothing to do."""
        return sum(int((order != np.arange(len(order))).sum()) for order in self.permutation.values())


def assign(gain: Float[np.ndarray, "n n"]) -> Integer[np.ndarray, " n"]:
    """Finds the assignment of columns to rows with the largest sum of gains.

    Where each row's best column is another one, that is the answer; else an exact algorithm runs on the gains less those of
    the best column and row, which has the same answer and a shorter way to it: that of `lapx` where it is installed (the
    extra `lapx`), about twice as fast as SciPy's, which runs without.

    Args:
      gain: (n, n) finite floats.

    Returns:
      (n,) ints, the column of each row.
    """
    best: np.ndarray = gain.argmax(axis=1)
    if len(np.unique(best)) == len(best):
        return best
    cost = gain.max(axis=1, keepdims=True) - gain
    cost -= cost.min(axis=0, keepdims=True)
    return shortest_augmenting_paths(cost)


MODERATE = 16
"""Costs whose largest is further from 1 than 2 to the power of this are scaled before they are assigned."""


def shortest_augmenting_paths(cost: np.ndarray) -> np.ndarray:
    """Solves one assignment of least cost, with the compiled library at hand; the columns of the rows."""
    cost = np.ascontiguousarray(cost, np.float64)
    exponent = int(np.frexp(cost.max(initial=0))[1])
    if abs(exponent) > MODERATE:
        cost = np.ldexp(cost, -exponent)  # exact, so of the same answer; a library may have constants of its own
    if lapjvs is None:
        from scipy.optimize import linear_sum_assignment  # it takes as long to import as JAX, and few need it

        columns: np.ndarray = linear_sum_assignment(cost)[1]
    else:
        columns = lapjvs(cost, return_cost=False, jvx_like=False, prefer_float32=False)[0]
    return columns.astype(np.intp, copy=False)


def require_finite(leaves: Mapping[KeyPath, np.ndarray]) -> None:
    """Raises ValueError for values that are not finite, or whose products no float64 can hold; names the path of each."""
    unusual = {path: leaf for path, leaf in leaves.items() if not magnitudes.is_usual(leaf)}
    sizes = {trees.name(path): magnitudes.largest(leaf) for path, leaf in unusual.items()}
    if wrong := [name for name, size in sizes.items() if not np.isfinite(size)]:
        raise ValueError(f"networks with values that are not finite cannot be matched: {', '.join(wrong)}")
    if wrong := [name for name, size in sizes.items() if magnitudes.is_far(size, magnitudes.FARTHEST)]:
        raise ValueError(
            f"networks whose weights are all below 2**-{magnitudes.FARTHEST}, or some beyond 2**{magnitudes.FARTHEST}, cannot be matched: "
            f"{', '.join(wrong)}. Scale them"
        )


def require_finite_models(**models: Mapping[KeyPath, np.ndarray]) -> None:
    """Raises ValueError as `require_finite`, for the leaves of several models; names the model and the path."""
    require_finite({(name, *path): leaf for name, leaves in models.items() for path, leaf in leaves.items()})


def finish(
    spec: PermutationSpec,
    permutation: dict[str, np.ndarray],
    b: Params,
    state: State,
    objective: float,
    counts: tuple[int, int, int],
    check: bool,
    tolerance: float | None = None,
) -> Matching:
    """Permutes `b` and its state.

    Args:
      spec: of the network.
      permutation: the units of each group in their new order.
      b: the parameters to permute.
      state: theirs.
      objective: what the permutation reached.
      counts: sweeps, assignments and moves.
      check: raise where the permuted network does not compute what it computed.
      tolerance: what the outputs may differ by then, as in `permutations.check_function`.
    """
    params = permutations.apply_permutation(spec, permutation, b)
    moved_state = permutations.permute_state(spec, permutation, state)
    if check:
        permutations.check_function(spec, b, params, (state, moved_state), tolerance=tolerance)
    return Matching(params, moved_state, permutation, objective, *counts)
