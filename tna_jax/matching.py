"""Matching after training: which permutation of one network's hidden units brings it nearest to another network.

Weight and activation matching of Git Re-Basin (Ainsworth et al. 2023, arXiv 2209.04836). Linear assignments are solved on the
host by `scipy.optimize.linear_sum_assignment` (scipy comes with JAX), matrix products by NumPy.

spec = permutation_spec(network, a, x)
found = weight_matching(spec, a, b)
line(a, found.params, 0.5)
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from scipy.optimize import linear_sum_assignment

from tna_jax import axes, network, paths, permutations, tracing
from tna_jax.axes import Fixed
from tna_jax.masks import Params
from tna_jax.network import State
from tna_jax.paths import KeyPath
from tna_jax.permutations import Permutation, PermutationSpec


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

    @property
    def moved(self) -> int:
        """Units that were given another place; 0 if matching found nothing to do."""
        return sum(int((order != np.arange(len(order))).sum()) for order in self.permutation.values())


def assign(gain: np.ndarray) -> np.ndarray:
    """(n,) ints: the assignment of columns to rows with the largest sum of gains; `gain` (n, n) finite floats.

    Where each row's best column is another one, that is the answer; else SciPy's algorithm runs on the gains less those of
    the best column and row, which has the same answer and a shorter way to it.
    """
    best = gain.argmax(axis=1)
    if len(np.unique(best)) == len(best):
        return best
    cost = gain.max(axis=1, keepdims=True) - gain
    cost -= cost.min(axis=0, keepdims=True)
    return linear_sum_assignment(cost)[1]


class _Weights:
    """The weights of two networks on the host, float32, and what they gain by a permutation."""

    def __init__(self, spec: PermutationSpec, a: Params, b: Params) -> None:
        self.spec = spec
        self.a, self.b = (
            {path: np.asarray(leaf, np.float32) for path, leaf in paths.named_leaves(tree)} for tree in (a, b)
        )
        self.places = {group: spec.where(group) for group in spec.groups}
        self.holders = {path: set().union(*map(axes.names, leaf)) for path, leaf in spec.params.items()}
        self.neighbours: dict[str, set[str]] = {
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

        Where a leaf has the group on two axes, the other one is held: a linearisation. Leaves around which nothing has moved
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
        return sum(one @ other.T for one, other in fronts)

    def objective(self, permutation: Permutation, leaves: set | None = None) -> float:
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

    def better(self, group: str, old: np.ndarray, new: np.ndarray, gain: np.ndarray, permutation) -> bool:
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
    _finite({**weights.a, **{("b", *path): leaf for path, leaf in weights.b.items()}})
    draws = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.key(0) if key is None else key)).tolist())
    best, counts = _ascend(weights, draws, permutations.identity(spec), set(spec.groups))
    objective = weights.objective(best)
    for _ in range(restarts - 1 if spec.groups else 0):
        shaken = list(spec.groups)[draws.integers(len(spec.groups))]
        start = {**best, shaken: draws.permutation(spec.groups[shaken])}
        found, more = _ascend(weights, draws, start, weights.neighbours[shaken] or {shaken})
        counts = counts[0] + more[0], counts[1] + more[1], counts[2] + more[2]
        reached = weights.objective(found)
        if reached > objective:
            best, objective = found, reached
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
                waiting |= weights.neighbours[name] | ({name} & weights.quadratic)
    return permutation, (sweeps, assignments, moving)


def _finite(leaves: dict) -> None:
    wrong = [paths.name(path) for path, leaf in leaves.items() if not np.isfinite(leaf).all()]
    if wrong:
        raise ValueError(f"networks with values that are not finite cannot be matched: {', '.join(wrong)}")


def finish(
    spec: PermutationSpec, permutation, b: Params, state: State, objective: float, counts, check: bool
) -> Matching:
    """The `Matching` that permutes `b` and its state; with `check` only if that leaves their function."""
    params = permutations.apply_permutation(spec, permutation, b)
    moved_state = permutations.permute_state(spec, permutation, state)
    if check:
        permutations.check_function(spec, b, params, (state, moved_state))
    return Matching(params, moved_state, permutation, objective, *counts)


def activation_matching(
    spec: PermutationSpec,
    a: Params,
    b: Params,
    inputs: jax.Array,
    *,
    states: tuple[State, State] = ((), ()),
    batch_size: int = 500,
    check: bool = True,
) -> Matching:
    """Permutes `b` so that its units are active where those of `a` are: arXiv 2209.04836, section 3.1.

    For each group the sum over examples and positions of the products of both networks' activations is the gain of one
    linear assignment. Which activations: those that meet the next layer's weights (after the non-linearity), all such places
    of a residual stream together; this choice is ours. Laws: as `weight_matching`, but for the objective.

    Args:
      spec, a, b, check: as there.
      inputs: (N, ...) training inputs.
      states: of `a` and of `b`.
      batch_size: inputs per pass.

    Raises:
      ValueError: no inputs, non-finite activations.
    """
    if not len(inputs):
        raise ValueError("activation matching needs at least one input")
    gains = _activation_gains(spec)
    total: dict[str, np.ndarray] = {}
    for start in range(0, len(inputs), batch_size):
        part = gains((a, states[0]), (b, states[1]), inputs[start : start + batch_size])
        total = {name: total.get(name, 0) + np.asarray(gain, np.float64) for name, gain in part.items()}
    _finite({(name,): gain for name, gain in total.items()})
    permutation = permutations.identity(spec)
    for name, gain in total.items():
        new, old = assign(gain), permutation[name]
        rows = np.arange(len(old))
        if gain[rows, new].sum() > gain[rows, old].sum():
            permutation[name] = new
    objective = sum(float(gain[np.arange(len(gain)), permutation[name]].sum()) for name, gain in total.items())
    moving = sum(bool((order != np.arange(len(order))).any()) for order in permutation.values())
    return finish(spec, permutation, b, states[1], objective, (1, len(total), moving), check)


def _activation_gains(spec: PermutationSpec) -> Callable:
    """A compiled function of two models, ((params, state), ...), and inputs (B, ...): by group, the gains (n, n) float32."""

    def run(params, state, x):
        return network.evaluate(spec.network, params, state, x)

    def activations(model, x) -> list[jax.Array]:
        """By site: the activations with the summed axis first."""
        closed = jax.make_jaxpr(run)(*model, x)
        operands = list(tracing.contractions(closed, jax.tree.leaves((*model, x))))
        found = []
        for site in spec.sites:
            front = jax.numpy.moveaxis(operands[site.contraction][site.operand], site.dimension, 0)
            found.append(front.reshape(front.shape[0], -1).astype(np.float32))
        return found

    @jax.jit
    def gains(a, b, x):
        both = list(zip(spec.sites, activations(a, x), activations(b, x), strict=True))
        total = {}
        for name in spec.groups:
            parts = [
                p @ q.T
                for site, one, other in both
                for p, q in zip(axes.views(one, site.axis, name), axes.views(other, site.axis, name), strict=True)
            ]
            if parts:
                total[name] = sum(parts[1:], parts[0])
        return total

    return gains
