"""The permutations of hidden units that leave a network's function as it is, found by tracing the network.

spec = permutation_spec(apply, params, x)                    # no table written by hand
spec.groups                                                  # {"Dense_0": 512, "Dense_1": 512}
permuted = apply_permutation(spec, random_permutation(spec, key), params)
check_function(spec, params, permuted)                       # the same function, or a ValueError
"""

import dataclasses
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from tna_jax import networks, prng, sharding, trees
from tna_jax.masks import Params
from tna_jax.matching import axes, description, function_check, incoming, jaxprs, tracing, unification, values
from tna_jax.matching.axes import Axis, Fixed, Group
from tna_jax.matching.function_check import check_function, function_gap, narrowest_tolerance
from tna_jax.matching.tracing import MatmulSite
from tna_jax.networks import Network, State
from tna_jax.trees import KeyPath, Tree

__all__ = [
    "Permutation", "PermutationSpec", "apply_permutation", "check_function", "function_gap", "identity", "inverse",
    "permutation_spec", "permute_state", "permuted", "random_permutation",
]  # fmt: skip

Permutation = Mapping[str, np.ndarray]
"""By group, (units,) ints: unit i of the permuted network is unit `permutation[group][i]` of the old one."""


@dataclasses.dataclass(frozen=True)
class PermutationSpec:
    """The hidden units of a network that may be renamed, and where they stand in its parameters.

    Attributes:
      groups: number of units by the name of the group, which is that of the first layer that has the units as its outputs.
      params: by path of the leaf, what each of its axes holds (`tna_jax.matching.axes`).
      state: the same for the network's state (BatchNorm's statistics).
      sites: where activations meet weights.
      network: the network that was traced.
      inputs: its example inputs, (B, ...), a pytree of arrays or shapes.
      incoming: by path of the leaf, which of its axes units sum over: their inputs (`tna_jax.matching.incoming`).
      fixed_by: by path of the leaf, for each axis which operation fixed it, or parts of it; `""` where none is fixed.
      state_fixed_by: the same for the state.
      unknown: operations that hidden units reached and that have no rule here; they fixed all axes of what they took.
      tolerance: what `check_function` allows: by the narrowest float of the program.
      evaluate: the network in evaluation mode, (params, state, inputs) -> outputs, compiled at the first call.
    """

    groups: dict[str, int]
    params: dict[KeyPath, tuple[Axis, ...]]
    state: dict[KeyPath, tuple[Axis, ...]]
    sites: tuple[MatmulSite, ...]
    network: Network
    inputs: Any
    incoming: dict[KeyPath, tuple[bool, ...]]
    fixed_by: dict[KeyPath, tuple[str, ...]]
    state_fixed_by: dict[KeyPath, tuple[str, ...]]
    unknown: tuple[str, ...]
    tolerance: float
    evaluate: Callable[[Params, State, Any], Any] = dataclasses.field(repr=False)

    def describe(self) -> str:
        """Returns a table, one line for each axis of each tensor: its group, or which operation fixed it."""
        return description.describe(self)

    def units(self, path: KeyPath) -> tuple[tuple[int, ...], list[tuple[str, int]]]:
        """Returns which axes of a leaf count units, and whose: for `masks.neurons`.

        Returns:
          The axis that holds a group's units, the last one of several, and for each of its entries (name of the group, which
          unit), `""` for entries without a group; or, where no group is, all axes that no unit sums over, and nothing.
        """
        leaf = self.params[path]
        kept = [i for i, summed in enumerate(self.incoming[path]) if not summed]
        grouped = [i for i in kept if axes.groups(leaf[i])]
        return ((grouped[-1],), axes.units(leaf[grouped[-1]])) if grouped else (tuple(kept), [])

    def where(self, group: str) -> list[tuple[KeyPath, int]]:
        """Returns the leaves of the parameters, and their axes, that hold the units of a group."""
        return [
            (path, i) for path, leaf in self.params.items() for i, axis in enumerate(leaf) if group in axes.names(axis)
        ]


@sharding.outside_meshes
def permutation_spec(
    network: Network, params: Params, x: Any, state: State = (), *, tolerance: float | None = None
) -> PermutationSpec:
    """Finds the groups of hidden units that can be permuted without changing what the network computes.

    The network's jaxpr is walked once on shapes; nothing is run. Axes of the inputs and outputs stay as they are; every axis
    of a parameter is a group until an operation ties it to another one (a residual sum), cuts it (the channels that a
    zero-padded shortcut adds), takes it apart (attention heads, groups of a group norm) or fixes it; `describe` says which
    did. What is found is a subgroup of all symmetries: units inside attention heads, or inside groups of a group norm, get
    one common permutation for all heads, or groups, and so do the layers of a `scan`. The operations that are known are
    listed in `tna_jax.matching.operations`; any other fixes the axes of what it takes.

    Args:
      network: (params, x) -> outputs, any pytree of arrays, or a `Stateful` network, of which evaluation mode is traced.
      params: pytree of arrays or shapes, of one model.
      x: example inputs, any pytree of arrays (B, ...), B >= 2, or their shapes; `check_function` compares outputs on them.
      state: of a `Stateful` network.
      tolerance: what `check_function` allows; default: by the narrowest float of the program.

    Warns:
      UserWarning: hidden units reach an operation that is not known here; it is named.
    """

    def run(params: Params, state: State, x: Any) -> Any:
        return networks.evaluate(network, params, state, x)

    with function_check.precision():  # under which `evaluate` finds this trace again
        closed = jax.make_jaxpr(run)(params, state, x)
    unifier = unification.Unifier()
    tracer = tracing.AxisPropagation(unifier, jaxprs.idle(closed.jaxpr))
    named = [trees.named_leaves(tree) for tree in (params, state)]
    fresh = [[tuple(unifier.new(size) for size in np.shape(leaf)) for _, leaf in leaves] for leaves in named]
    arguments = [values.AxisInfo(leaf, untied=(True,) * len(leaf)) for leaf in fresh[0]] + [
        values.AxisInfo(leaf) for leaf in fresh[1]
    ]
    arguments += [values.AxisInfo(tuple(map(Fixed, np.shape(leaf))), data=True) for leaf in jax.tree.leaves(x)]
    known = [values.constant(value) for value in closed.consts]
    outputs = jaxprs.eval_jaxpr_with(closed.jaxpr, known, arguments, tracer.rule, values.constant)
    unifier.operation = "being an output of the network"
    for axis in [axis for value in outputs for axis in tracer.plain(value).axes]:
        unifier.fix(axis)
    unifier.operation = "having no use"
    for value, used in zip(arguments, jaxprs.used_inputs(closed.jaxpr), strict=True):
        for axis in () if used else value.axes:
            unifier.fix(axis)
    tables = [
        {path: tuple(map(unifier.resolve, leaf)) for (path, _), leaf in zip(leaves, tree, strict=True)}
        for leaves, tree in zip(named, fresh, strict=True)
    ]
    why = [
        {path: tuple(_why(unifier, axis) for axis in leaf) for (path, _), leaf in zip(leaves, tree, strict=True)}
        for leaves, tree in zip(named, fresh, strict=True)
    ]
    names = _names(tables)
    sizes = {
        names[group.name]: int(group.size)
        for table in tables
        for leaf in table.values()
        for axis in leaf
        for group in axes.groups(axis)
    }
    tables = [{path: tuple(_named(axis, names) for axis in leaf) for path, leaf in table.items()} for table in tables]
    around = [tuple(_named(unifier.resolve(axis), names) for axis in site.operand_axes) for site in tracer.sites]
    sites = [
        site._replace(axis=operand_axes[site.dimension], operand_axes=operand_axes)
        for site, operand_axes in zip(tracer.sites, around, strict=True)
    ]
    if tracer.strangers:
        warnings.warn(
            f"operations that are not known here meet hidden units, and fix them: {', '.join(sorted(tracer.strangers))}. What "
            "is found is right, but there may be more: spec.describe() says which axes were fixed. A rule is six lines: "
            "tna_jax.matching.operations",
            stacklevel=3,
        )
    return PermutationSpec(
        groups=sizes,
        params=tables[0],
        state=tables[1],
        sites=tuple(site for site in sites if axes.groups(site.axis)),
        network=network,
        inputs=x,
        incoming=incoming.incoming_axes(closed, params, state),
        fixed_by=why[0],
        state_fixed_by=why[1],
        unknown=tuple(sorted(tracer.strangers)),
        tolerance=narrowest_tolerance(closed) if tolerance is None else tolerance,
        evaluate=function_check.compiled(run),
    )


def _why(unifier: unification.Unifier, axis: Axis) -> str:
    """What fixed an axis, or parts of it, in words."""
    if axis.size == 1:
        return "having one entry"
    return ", ".join(dict.fromkeys(map(description.reason, unifier.reasons(axis))))


def _names(tables: list[dict[KeyPath, tuple[Axis, ...]]]) -> dict[int | str, str]:
    """A name for every group: that of the first layer whose last axis holds it, numbered where several share it."""
    last = [(path, leaf[-1:]) for table in tables for path, leaf in table.items()]
    every = last + [(path, leaf[:-1]) for table in tables for path, leaf in table.items()]
    names: dict[int | str, str] = {}
    uses: Counter[str] = Counter()
    for path, leaf in every:
        for group in (group for axis in leaf for group in axes.groups(axis)):
            if group.name not in names:
                layer = trees.name(path[:-1]) or trees.name(path)
                uses[layer] += 1
                names[group.name] = layer if uses[layer] == 1 else f"{layer}#{uses[layer]}"
    return names


def _named(axis: Axis, names: Mapping[int | str, str]) -> Axis:
    if isinstance(axis, Group):
        return Group(axis.size, names[axis.name]) if axis.name in names else axes.Fixed(axis.size)
    if isinstance(axis, axes.Concat | axes.Product):
        return type(axis)(tuple(_named(part, names) for part in axis.parts))
    return axis


def identity(spec: PermutationSpec) -> dict[str, np.ndarray]:
    """Returns the permutation that moves nothing."""
    return {name: np.arange(size) for name, size in spec.groups.items()}


def random_permutation(spec: PermutationSpec, key: jax.Array) -> dict[str, np.ndarray]:
    """Draws a uniformly random permutation of every group; a group's draw depends on the key and its place among the groups."""
    draws = np.random.default_rng(prng.words(key))
    return {name: draws.permutation(size) for name, size in spec.groups.items()}


def inverse(permutation: Permutation) -> dict[str, np.ndarray]:
    """Returns the permutation that undoes `permutation`."""
    return {name: np.argsort(order) for name, order in permutation.items()}


def apply_permutation(spec: PermutationSpec, permutation: Permutation, params: Params) -> Params:
    """Renames the hidden units of a network: entries of its parameters are moved, none is computed.

    Laws: the identity changes nothing; `inverse(permutation)` undoes it, bit for bit; the network computes the same function
    up to the order of its sums (`check_function`; with running statistics, `permute_state` belongs to it).

    Args:
      spec: of this network.
      permutation: by group; groups that are left out stay.
      params: pytree like the parameters that were traced.

    Raises:
      ValueError: unknown groups, or what is not a permutation of a group's units; all are listed. Parameters of other shapes.
    """
    return _apply(spec, spec.params, permutation, params)


def permute_state(spec: PermutationSpec, permutation: Permutation, state: State) -> State:
    """Renames the hidden units in a network's state, as `apply_permutation` does in its parameters."""
    return _apply(spec, spec.state, permutation, state)


def require_leaves(spec: PermutationSpec, **models: Params) -> None:
    """Raises ValueError that names every leaf of a model, by the name it is given, that is not one of the traced network, or of another shape."""
    for name, params in models.items():
        _require_leaves(spec.params, params, f"{name}: ")


def _require_leaves(table: Mapping[KeyPath, tuple[Axis, ...]], tree: Tree, what: str = "") -> None:
    shapes = {path: tuple(axis.size for axis in leaf) for path, leaf in table.items()}
    actual = {path: np.shape(leaf) for path, leaf in trees.named_leaves(tree)}
    odd = [
        f"{trees.name(path)} ({actual.get(path, 'missing')} instead of {shapes.get(path, 'none')})"
        for path in sorted({*actual, *shapes}) if actual.get(path) != shapes.get(path)
    ]  # fmt: skip
    if odd:
        raise ValueError(f"{what}these leaves are not those of the network that was traced: {', '.join(odd)}")


def _apply(
    spec: PermutationSpec, table: Mapping[KeyPath, tuple[Axis, ...]], permutation: Permutation, tree: Tree
) -> Tree:
    wrong = [
        f"{name} ({np.shape(order)} for {spec.groups.get(name, 'no such')} units)"
        for name, order in permutation.items()
        if not np.array_equal(np.sort(order), np.arange(spec.groups.get(name, -1)))
    ]
    if wrong:
        raise ValueError(f"these are not permutations of this network's groups: {', '.join(wrong)}")
    _require_leaves(table, tree)

    def renamed(path: KeyPath, leaf: Any) -> Any:
        return sharding.rearranged(leaf, lambda unspread: permuted(unspread, table[path], permutation))

    return trees.like(tree, [renamed(path, leaf) for path, leaf in trees.named_leaves(tree)])


def permuted(leaf: Any, leaf_axes: tuple[Axis, ...], permutation: Permutation) -> Any:
    """Returns one leaf, NumPy or JAX, with the units of the groups in `permutation` moved."""
    for i, axis in enumerate(leaf_axes):
        if axes.names(axis) & permutation.keys():
            leaf = leaf.take(axes.indices(axis, dict(permutation)), axis=i)
    return leaf
