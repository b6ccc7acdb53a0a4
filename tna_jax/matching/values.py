"""What the walk over a network's program knows of every value: an axis for each of its dimensions, and whose positions it counts."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax.matching.axes import Axis, Constant, Fixed


class Positions(NamedTuple):
    """Integers that say where on an axis something is (`argmax`, `iota`): where the axis is permuted, they are renamed."""

    spaces: tuple[Axis | None, ...]
    """The axis; several beside each other along the last dimension, as a look-up takes them, `None` for other integers."""
    offset: int = 0
    """What was added to them."""
    sound: bool = True
    """Whether they are renamed for certain: the first of equal entries stays the first wherever they are moved."""


class AxisInfo(NamedTuple):
    """What is known of an array."""

    axes: tuple[Axis, ...]
    data: bool = False
    """Whether it depends on the network's inputs."""
    positions: Positions | None = None
    value: Any = None
    """Of an array of equal entries that stand in the program, the entry."""
    untied: tuple[bool, ...] = ()
    """For each axis whether entries along it differ for almost all weights (`operations/ties.py`); `()` if it is not known."""

    def differs(self, axis: int) -> bool:
        """Returns whether entries along an axis differ for almost all weights."""
        return bool(self.untied) and self.untied[axis]


def constant(array: Any) -> AxisInfo:
    """Returns what is known of an array that stands in the program: axes along which all entries are equal are `Constant`."""
    if not hasattr(array, "shape") or array.ndim == 0 or jnp.issubdtype(array.dtype, jax.dtypes.extended):
        scalar = np.ndim(array) == 0 and not jnp.issubdtype(jnp.result_type(array), jax.dtypes.extended)
        value = np.asarray(array)[()] if scalar else None
        return AxisInfo(tuple(Fixed(int(size)) for size in np.shape(array)), value=value)
    array = np.asarray(array)

    def uniform(axis: int) -> bool:
        return bool((array == array.take([0], axis)).all()) if array.size else False

    return AxisInfo(tuple(Constant(n) if uniform(i) else Fixed(n) for i, n in enumerate(array.shape)))


def uniform(shape: tuple[int, ...], value: Any = None) -> AxisInfo:
    """Returns what is known of an array of equal entries."""
    return AxisInfo(tuple(Constant(size) if size != 1 else Fixed(1) for size in shape), value=value)
