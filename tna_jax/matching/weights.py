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
from tna_jax.matching import axes, permutations
from tna_jax.matching.activations import activation_matching
from tna_jax.matching.assignment import Matching, assign, finish, require_finite
from tna_jax.matching.axes import Fixed
from tna_jax.matching.permutations import Permutation, PermutationSpec
from tna_jax.networks import State
from tna_jax.trees import KeyPath

__all__ = ["Matching", "activation_matching", "weight_matching"]


class _Weights:
    """The weights of two networks on the host, float32, and what they gain by a permutation."""

    def __init__(self, spec: PermutationSpec, a: Params, b: Params) -> None:
        self.spec = spec
        self.a, self.b = (
            {path: np.asarray(leaf, np.float32) for path, leaf in trees.named_leaves(tree)} for tree in (a, b)
        )
        self.places = {group: spec.where(group) for group in spec.groups}
        self.holders = {path: set().union(*map(axes.names, leaf)) for path, leaf in spec.params.items()}
        self.neighbors: dict[str, set[str]] = {
            group: set().union(*(self.holders[path] for path, _ in places)) - {group}
            for group, places in self.places.items()
        }
        held = [[str(g.name) for axis in leaf for g in axes.groups(axis)] for leaf in spec.params.values()]
        self.quadratic = {name for names in held for name in names if names.count(name) > 1}
        self.fronts = {
            (group, place): self._front(self.a[place[0]], group, place)
            for group, places in self.places.items()
            for place in places
        }

        self.known: dict[tuple[str, tuple[KeyPath, int]], tuple[tuple[bytes, ...], np.ndarray]] = {}

    def _front(self, leaf: np.ndarray, group: str, place: tuple[KeyPath, int]) -> list[np.ndarray]:
        path, i = place
        axis = self.spec.params[path][i]
        return axes.views(np.moveaxis(leaf, i, 0).reshape(axis.size, -1), axis, group)

    def gain(self, group: str, permutation: dict[str, np.ndarray]) -> np.ndarray:
        """(n, n) float32: the inner product of the first network's unit i with the second's unit j, the other groups permuted.

        Where a leaf has the group on two axes, the other one is held: a linearization. Leaves around which nothing has moved
        since the group was last solved give what they gave then.
        """
        total = np.zeros((self.spec.groups[group],) * 2, np.float32)
        for place in self.places[group]:
            around = self.holders[place[0]] - (set() if group in self.quadratic else {group})
            state = tuple(permutation[name].tobytes() for name in sorted(around))
            if self.known.get((group, place), (None, None))[0] != state:
                self.known[group, place] = state, self._gain(group, place, permutation)
            total += self.known[group, place][1]
        return total

    def _gain(self, group: str, place: tuple[KeyPath, int], permutation: dict[str, np.ndarray]) -> np.ndarray:
        path, i = place
        leaf, around = self.b[path], self.spec.params[path]
        here = {name: order for name, order in permutation.items() if name != group}
        leaf = permutations.permuted(leaf, tuple(a if k == i else Fixed(a.size) for k, a in enumerate(around)), here)
        leaf = permutations.permuted(
            leaf, tuple(Fixed(a.size) if k == i else a for k, a in enumerate(around)), permutation
        )
        fronts = zip(self.fronts[group, place], self._front(leaf, group, place), strict=True)
        total: np.ndarray = sum(left @ right.T for left, right in fronts)
        return total

    def objective(self, permutation: Permutation, leaves: set[KeyPath] | None = None) -> float:
        """The inner product of both networks' weights, in float64; of some leaves only, if they are named."""
        return sum(
            float(
                np.vdot(
                    self.a[path].astype(np.float64), permutations.permuted(leaf, self.spec.params[path], permutation)
                )
            )
            for path, leaf in self.b.items()
            if leaves is None or path in leaves
        )

    def better(self, group: str, old: np.ndarray, new: np.ndarray, gain: np.ndarray, permutation: Permutation) -> bool:
        """Whether the new order of a group gains more than rounding."""
        if np.array_equal(old, new):
            return False
        rows = np.arange(len(old))
        if group in self.quadratic:
            leaves = {path for path, _ in self.places[group]}
            before, after = (self.objective({**permutation, group: order}, leaves) for order in (old, new))
        else:
            before, after = (float(gain[rows, order].sum(dtype=np.float64)) for order in (old, new))
        return after > before + 1e-6 * max(abs(before), abs(after))


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

    Coordinate ascent: for one group after the other, in random order, the best permutation given all others is a linear
    assignment; until nothing moves. A group is solved again only if one that shares a tensor with it has moved. The result
    is a local optimum. Laws: the objective is at least that of no permutation; matching a network with itself moves
    nothing; the network computes the same function.

    Args:
      spec: of the network.
      a, b: parameters of one model each.
      state: of `b`, permuted along.
      key: of the orders and the shuffles; default: `jax.random.key(0)`.
      restarts: number of starts: the first from the identity, each other one from the best permutation so far with one group
        shuffled. The best is kept. Ours; the published algorithm is one start.
      check: compare the functions of `b` before and after.

    Raises:
      ValueError: fewer than 1 start, non-finite weights, or, which would be an error here, another function.
    """
    if restarts < 1:
        raise ValueError(f"restarts must be at least 1, got {restarts}")
    weights = _Weights(spec, a, b)
    require_finite({**weights.a, **{("b", *path): leaf for path, leaf in weights.b.items()}})
    draws = np.random.default_rng(prng.words(prng.root_key(0) if key is None else key))
    best, counts = _ascend(weights, draws, permutations.identity(spec), set(spec.groups))
    objective = weights.objective(best)
    for _ in range(restarts - 1 if spec.groups else 0):
        shaken = list(spec.groups)[draws.integers(len(spec.groups))]
        start = {**best, shaken: draws.permutation(spec.groups[shaken])}
        order, more = _ascend(weights, draws, start, weights.neighbors[shaken] or {shaken})
        counts = counts[0] + more[0], counts[1] + more[1], counts[2] + more[2]
        reached = weights.objective(order)
        if reached > objective:
            best, objective = order, reached
    return finish(spec, best, b, state, objective, counts, check)


def _ascend(
    weights: _Weights, draws: np.random.Generator, start: dict[str, np.ndarray], waiting: set[str]
) -> tuple[dict[str, np.ndarray], tuple[int, int, int]]:
    """Coordinate ascent from `start`, where the groups `waiting` are not known to be at their best."""
    permutation, waiting, names = dict(start), set(waiting), list(weights.spec.groups)
    sweeps = assignments = moving = 0
    while waiting:
        sweeps += 1
        for group in draws.permutation(len(names)):
            name = names[group]
            if name not in waiting:
                continue
            waiting.discard(name)
            gain = weights.gain(name, permutation)
            new = assign(gain)
            assignments += 1
            if weights.better(name, permutation[name], new, gain, permutation):
                permutation[name] = new
                moving += 1
                waiting |= weights.neighbors[name] | ({name} & weights.quadratic)
    return permutation, (sweeps, assignments, moving)
