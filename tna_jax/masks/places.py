"""Which draws of units a leaf's mask is made of, and where they go: by layout, or by the groups that were traced."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import trees
from tna_jax.masks.layouts import Refused, Shape, Units
from tna_jax.trees import KeyPath


@runtime_checkable
class UnitSpec(Protocol):
    """What is needed of a `matching.PermutationSpec`."""

    @property
    def groups(self) -> Mapping[str, int]:
        """Number of units by the name of their group."""

    @property
    def params(self) -> Mapping[KeyPath, Sequence[Any]]:
        """By path of the leaf, its axes, each with a `size`."""

    def units(self, path: KeyPath) -> tuple[tuple[int, ...], list[tuple[str, int]]]:
        """Returns which axes of a leaf count units, and for each entry of that axis its group (or `""`) and unit."""


class Draw(NamedTuple):
    """One draw of units: its name, its shape, and how many leading axes count layers."""

    layer: KeyPath
    shape: Shape
    stacked: int = 0


class Place(NamedTuple):
    """The draws of a leaf's units, and the function that makes the leaf's mask of them."""

    draws: list[Draw]
    spread: Callable[[list[jax.Array]], jax.Array]


def as_place(units: Units | Refused, shape: Shape) -> Place:
    """Returns the place of units that a layout tells."""
    assert isinstance(units, Units)
    return Place([Draw(units.layer, units.shape, units.stacked)], lambda drawn: units.spread(drawn[0], shape))


def traced_place(spec: UnitSpec, path: KeyPath, shape: Shape) -> Place:
    """Returns the place of units that were traced; what has no group is drawn as the layer's own."""
    axes, entries = spec.units(path)
    if not entries:
        units = Units(path[:-1] if shape else path, tuple(shape[i] for i in axes), 0, axes)
        return as_place(units, shape)
    groups = list(dict.fromkeys(name for name, _ in entries))
    sizes = [spec.groups[name] if name else 1 + max(i for n, i in entries if not n) for name in groups]
    draws = [Draw(tuple(name.split("/")) if name else path, (size,)) for name, size in zip(groups, sizes, strict=True)]
    starts = dict(zip(groups, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
    index = np.array([starts[name] + i for name, i in entries])

    def spread(drawn: list[jax.Array]) -> jax.Array:
        units = drawn[0] if len(drawn) == 1 else jnp.concatenate(drawn)
        if not np.array_equal(index, np.arange(units.size)):
            units = units[index]
        return jnp.broadcast_to(units.reshape([n if i in axes else 1 for i, n in enumerate(shape)]), shape)

    return Place(draws, spread)


def check_shapes(spec: UnitSpec, shapes: Mapping[KeyPath, Shape]) -> None:
    """Raises ValueError where leaves are not those of the network that was traced."""
    traced = {path: tuple(axis.size for axis in axes) for path, axes in spec.params.items()}
    odd = sorted(trees.name(path) for path in {*traced, *shapes} if traced.get(path) != shapes.get(path))
    if odd:
        raise ValueError(
            f"spec is of another network: these leaves are not in both, or have other shapes: {', '.join(odd)}. Trace it with "
            "these parameters: matching.permutation_spec(network, params, x); of stacked models, trace one and say shared=True"
        )
