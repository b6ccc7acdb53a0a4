"""Weight matching of heads whose units have an order of their own in every head: assignments of units inside an assignment of heads.

`permutation_spec` finds one order of units for all heads. Attention allows more: each head its own. That is tried on the network, and
matched by weights: a pair of heads is worth what the best order of its units gains, and the pairs are assigned by that.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from tna_jax import prng, sharding, trees
from tna_jax.masks import Params
from tna_jax.matching import permutations
from tna_jax.matching.assignment import Matching, assign, require_finite_models
from tna_jax.matching.axes import Axis
from tna_jax.matching.gains import ROUNDING, Block, Gains, blocks, real_leaves
from tna_jax.matching.permutations import Permutation, PermutationSpec
from tna_jax.matching.weights import weight_matching
from tna_jax.networks import State
from tna_jax.trees import KeyPath

Nests = dict[str, str]
"""By group of units, the group of heads that they belong to."""


def nests(spec: PermutationSpec, params: Params, state: State = ()) -> Nests:
    """Returns the groups of units that may have an order of their own in each head: always beside the same group of heads, and tried.

    All that may be are tried at once, and one by one where the network does not compute the same then.

    Args:
      spec: of the network.
      params, state: with which it is tried on the traced inputs, in random orders; and with drawn parameters, for what mixes
        heads may hardly show in those of a network.
    """
    draws = np.random.default_rng(0)
    trials = (params, _drawn(params, draws))

    def same_function(nested: Nests) -> bool:
        order = {units: _apart(spec.groups[heads], spec.groups[units], draws) for units, heads in nested.items()}
        moved_state = apply_head_permutation(spec, nested, order, state, spec.state)
        gaps = [
            permutations.function_gap(
                spec, tried, apply_head_permutation(spec, nested, order, tried), (state, moved_state)
            )
            for tried in trials
        ]
        telling = [gap for gap in gaps if not np.isnan(gap)]  # drawn ones may give NaN, so may weights of extreme size
        return bool(telling) and max(telling) <= spec.tolerance

    hopeful = _beside_heads(spec, lambda nested: True)
    return hopeful if not hopeful or same_function(hopeful) else _beside_heads(spec, same_function)


def _beside_heads(spec: PermutationSpec, accepted: Callable[[Nests], bool]) -> Nests:
    """The groups of units that always stand beside the same group of heads, if they are accepted."""
    found: Nests = {}
    every = [groups for path, leaf in spec.params.items() for groups in _groups(leaf)]
    for units in sorted(spec.groups, key=lambda name: -spec.groups[name]):
        beside = [set(filter(None, groups)) - {units} for groups in every if units in groups]
        for heads in sorted(set.intersection(*beside)) if beside else []:
            alike = {name for name, group in found.items() if group == heads}
            if (
                any(groups.count(heads) + groups.count(units) != 2 for groups in every if units in groups)
                or any(alike & groups for groups in beside)  # units of the same heads on another axis there
                or heads in found
                or units in found.values()
            ):
                continue
            if accepted({units: heads}):
                found[units] = heads
                break
    return found


def _apart(count: int, size: int, draws: np.random.Generator) -> np.ndarray:
    """Orders of the units (count x size,) of all heads, counted through them, that are not the same in each."""
    inside = np.stack([draws.permutation(size) for _ in range(count)])
    if count > 1 and (inside == inside[0]).all():
        inside[-1] = np.roll(inside[-1], 1)
    return (np.arange(count)[:, None] * size + inside).reshape(-1)


def _drawn(params: Params, draws: np.random.Generator) -> Params:
    """Parameters like these under which everything a network computes has a size of about 1."""

    def leaf(old: Any) -> np.ndarray:
        shape = np.shape(old)
        values = (
            draws.normal(size=shape) * np.prod(shape[:-1]) ** -0.5 if len(shape) > 1 else draws.uniform(0.5, 1.5, shape)
        )
        result: np.ndarray = values.astype(old.dtype)
        return result

    return trees.like(params, [leaf(old) for _, old in trees.named_leaves(params)])


def _groups(leaf: tuple[Axis, ...]) -> list[tuple[str | None, ...]]:
    shape = tuple(axis.size for axis in leaf)
    empty = np.broadcast_to(np.float32(0), shape)
    return [block.groups for block in blocks(empty, empty, leaf)]


def _joined(block: Block, nested: Nests) -> Block:
    """A block with heads and their units as one axis, named after the units."""
    for i, units in enumerate(block.groups):
        if units in nested:
            at = block.groups.index(nested[units])
            names = [name for k, name in enumerate(block.groups) if k not in (at, i)]
            a, b = (np.moveaxis(x, (at, i), (0, 1)) for x in (block.a, block.b))
            a, b = (x.reshape(-1, *x.shape[2:]) for x in (a, b))
            return _joined(Block(a, b, (f"{units} of heads", *names)), nested)
    return block


def apply_head_permutation(
    spec: PermutationSpec,
    nested: Nests,
    permutation: Permutation,
    tree: trees.Tree,
    table: Mapping[KeyPath, tuple[Axis, ...]] | None = None,
) -> trees.Tree:
    """Renames the hidden units of a network, those of heads each in an order of their own.

    Args:
      spec: of the network.
      nested: see `nests`.
      permutation: by group; of units in heads (heads x units,) ints: which entry, counted through all heads, takes each place.
      tree: parameters.
      table: what their axes hold; default: `spec.params`.
    """
    table = spec.params if table is None else table
    leaves = [_renamed(leaf, nested, permutation, table[path]) for path, leaf in trees.named_leaves(tree)]
    return trees.like(tree, leaves)


def _renamed(leaf: Any, nested: Nests, permutation: Permutation, leaf_axes: tuple[Axis, ...]) -> Any:
    orders = {f"{name} of heads" if name in nested else name: order for name, order in permutation.items()}
    numbers = np.arange(np.size(leaf)).reshape(np.shape(leaf))
    source = numbers.reshape(-1).copy()
    for block in blocks(numbers, numbers, leaf_axes):
        block = _joined(block, nested)
        moved = block.b
        for i, name in enumerate(block.groups):
            if name in orders:
                moved = moved.take(orders[name], axis=i)
        source[block.a.reshape(-1)] = moved.reshape(-1)
    return sharding.rearranged(leaf, lambda whole: whole.reshape(-1)[source].reshape(whole.shape))


def head_indices(axis: Axis, nested: Nests, permutation: Permutation) -> np.ndarray:
    """Returns (size,) ints: where the entries of a permuted axis come from, as `axes.indices` does, heads with units of their own too.

    Args:
      axis: of a leaf; units of heads stand beside their heads on it.
      nested, permutation: as in `apply_head_permutation`.
    """
    sources: np.ndarray = _renamed(np.arange(axis.size), nested, permutation, (axis,))
    return sources


class HeadMatching(NamedTuple):
    """A network whose units, and heads with units of their own, were renamed to match another one."""

    matching: Matching
    """Its `permutation` has (heads x units,) ints for the groups in `nested`."""
    nested: Nests
    """For `apply_head_permutation`."""


@sharding.outside_meshes
def head_matching(
    spec: PermutationSpec,
    a: Params,
    b: Params,
    *,
    state: State = (),
    key: jax.Array | None = None,
    restarts: int = 1,
    check: bool = True,
    tolerance: float | None = None,
) -> HeadMatching:
    """Permutes `b` as `weight_matching` does, and then heads together with the units of each head in an order of its own.

    Where a network has no such heads it is `weight_matching`. Laws: as there; the objective is at least that of `weight_matching`.

    Args:
      spec, a, b, state, key, restarts, check, tolerance: as there.
    """
    permutations.require_leaves(spec, a=a, b=b)
    first, second = real_leaves(a), real_leaves(b)
    require_finite_models(a=first, b=second)
    nested = nests(spec, b, state)
    common = weight_matching(
        spec, a, b, state=state, key=prng.root_key(0) if key is None else key, restarts=restarts,
        check=check and not nested, tolerance=tolerance,
    )  # fmt: skip
    if not nested:
        return HeadMatching(common, nested)
    gains = HeadGains(spec, first, second, nested)
    order = dict(common.permutation)
    for units, heads in nested.items():
        size = spec.groups[units]
        order[units] = (order[heads][:, None] * size + order[units][None, :]).reshape(-1)
    order, counts = ascend_heads(gains, order)
    params = apply_head_permutation(spec, nested, order, b)
    moved_state = apply_head_permutation(spec, nested, order, state, spec.state)
    if check:
        permutations.check_function(spec, b, params, (state, moved_state), tolerance=tolerance)
    sums = (common.sweeps + counts[0], common.assignments + counts[1], common.moving + counts[2])
    objective = gains.objective({f"{name} of heads" if name in nested else name: o for name, o in order.items()})
    return HeadMatching(Matching(params, moved_state, order, objective, *sums), nested)


class HeadGains(Gains):
    """Gains with heads and their units joined."""

    def __init__(self, spec: PermutationSpec, a: Any, b: Any, nested: Nests) -> None:
        parts = [
            _joined(block, nested) for path, leaf in spec.params.items() for block in blocks(a[path], b[path], leaf)
        ]
        sizes = {name: size for name, size in spec.groups.items() if name not in nested}
        joined = {f"{units} of heads": spec.groups[units] * spec.groups[heads] for units, heads in nested.items()}
        super().__init__(spec, a, b, parts, {**sizes, **joined})
        self.nested, self.sizes = nested, spec.groups

    def solve(self, heads: str, order: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The best order of heads and, in each of them, of their units, if it gains anything; else nothing."""
        units = [name for name, group in self.nested.items() if group == heads]
        count, rows = self.sizes[heads], np.arange(self.sizes[heads])
        named = {f"{name} of heads" if name in self.nested else name: o for name, o in order.items()}
        worth = self.of(heads, named).copy()
        before = worth[rows, order[heads]].sum()
        inside = {}
        for name in units:
            size = self.sizes[name]
            gain = self.of(f"{name} of heads", named)
            before += gain[np.arange(len(gain)), order[name]].sum()
            pairs = gain.reshape(count, size, count, size).swapaxes(1, 2)
            inside[name] = np.array([[assign(pair) for pair in row] for row in pairs])
            worth += np.take_along_axis(pairs, inside[name][..., None], 3).sum((2, 3))
        best = assign(worth)
        after = worth[rows, best].sum()
        if not after > before + ROUNDING * max(abs(before), abs(after)):
            return {}
        flat = {name: (best[:, None] * self.sizes[name] + inside[name][rows, best]).reshape(-1) for name in units}
        return {heads: best, **flat}


def ascend_heads(
    gains: HeadGains, order: dict[str, np.ndarray], free: set[str] | None = None
) -> tuple[dict[str, np.ndarray], tuple[int, int, int]]:
    """Climbs over groups and heads in turn until none gains anything.

    Args:
      gains: of the two networks.
      order: to begin with, by group; of units in heads counted through all heads.
      free: the groups that may move; None: all.

    Returns:
      The order reached; sweeps, assignments and moves.
    """
    order, sweeps, assignments, moving, moved = dict(order), 0, 0, 0, True
    while moved:
        moved, sweeps = False, sweeps + 1
        for name in gains.sizes:
            if name in gains.nested or (free is not None and name not in free):
                continue
            assignments += 1
            if name in gains.nested.values():
                new = gains.solve(name, order)
            else:
                named = {f"{g} of heads" if g in gains.nested else g: o for g, o in order.items()}
                gain = gains.of(name, named)
                best = assign(gain)
                new = {name: best} if gains.better(name, best, gain, named) else {}
            if new:
                order.update(new)
                moved, moving = True, moving + 1
    return order, (sweeps, assignments, moving)
