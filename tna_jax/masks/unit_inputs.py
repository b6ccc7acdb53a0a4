"""Draws an exact number of anchored inputs for each output unit, as W-asymmetric networks have them."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import trees
from tna_jax.masks.draws import Leaf, check_ratio, draw_leaves, uniform
from tna_jax.masks.layouts import Shape, Units
from tna_jax.masks.operations import Mask, Params
from tna_jax.masks.units import units_by_layout
from tna_jax.trees import KeyPath, PathFilter

Counts = int | Mapping[str, int] | Callable[[str, int], int]
"""Anchored inputs of a unit: of all leaves, by a regular expression of the path, or as a function of (path, inputs of a unit)."""


def per_unit(
    key: jax.Array, params: Params, counts: Counts, where: PathFilter | None = None, *, shared: bool = False
) -> Mask:
    """Anchors exactly so many of each output unit's inputs as `counts` says; every unit has a random subset of its own.

    The masks of W-asymmetric networks (Lim et al. 2024, arXiv 2405.20231, section 4.1): there 12 inputs of each channel of a first
    convolution, 36 to 72 of the others. A unit is one entry of a layer's output: a unit of a dense layer, a channel of a
    convolution (also of one in groups, whose units have the inputs of their group, and of a depthwise one), one entry of one head in
    the projections of attention, one gate of a unit in a recurrent cell. Its inputs are all other entries of the kernel. Leaves
    without inputs, biases and norms, are never anchored. Which axes count units is told from names and shapes, as in `neurons`.

    Args:
      key: a PRNG key. Masks of one key are nested: larger counts anchor the same inputs and more. As for every mask, the bits of
        a leaf depend on the key, its path and its shape alone.
      params: a pytree of floating-point arrays, or their shapes.
      counts: a number for all leaves; numbers by regular expressions, each searched in the path, of which a leaf may match one
        (those that match none stay trainable); or a function of a leaf's path, as text, and its number of inputs.
      where, shared: as in `bernoulli`.

    Returns:
      A mask as of `bernoulli`.

    Raises:
      ValueError: counts that are negative or larger than the inputs of a unit, a pattern that matches no leaf with inputs, a leaf
        that two patterns match, or leaves whose units no layout tells; all paths are listed.
      TypeError: a count that is not a whole number; and as in `bernoulli`.

    >>> mask = per_unit(jax.random.key(0), {"kernel": jnp.ones((20, 3)), "bias": jnp.ones(3)}, 12)
    >>> (~mask["kernel"]).sum(0).tolist(), mask["bias"].all().item()
    ([12, 12, 12], True)
    """

    def leaf_masks(named: Sequence[Leaf], chosen: Sequence[Leaf]) -> list[jax.Array]:
        axes = unit_axes({path: leaf.shape for path, leaf in named})
        shapes = {path: leaf.shape for path, leaf in chosen if len(axes[path] or ()) < len(leaf.shape)}
        numbers = _counts(counts, shapes, axes)
        return [
            _draw(key, path, leaf.shape, axes[path], numbers[path]) if numbers.get(path) else jnp.ones(leaf.shape, bool)
            for path, leaf in chosen
        ]

    return draw_leaves(params, where, shared, leaf_masks)


def share_per_unit(key: jax.Array, params: Params, ratio: float, where: PathFilter | None = None) -> Mask:
    """Anchors `round(ratio * inputs)` of each output unit's inputs (halves round up): `per_unit` by a share, the form for every network.

    `ratio` is a Python number, the share of anchored inputs; arguments, result and errors else as in `per_unit`.
    """
    check_ratio(ratio, concrete=True)
    return per_unit(key, params, lambda path, inputs: int(ratio * inputs + 0.5), where)


def unit_axes(shapes: Mapping[KeyPath, Shape]) -> dict[KeyPath, tuple[int, ...] | None]:
    """Returns the axes of each leaf that count units (or layers, in a stack of them), ascending; None where no layout tells."""
    apart, together = units_by_layout(shapes, apart=True), units_by_layout(shapes)
    units = {path: together[path] if isinstance(together[path], Units) else apart[path] for path in shapes}
    return {path: unit.axes if isinstance(unit, Units) else None for path, unit in units.items()}


def _counts(
    counts: Counts, shapes: Mapping[KeyPath, Shape], axes: Mapping[KeyPath, tuple[int, ...] | None]
) -> dict[KeyPath, int]:
    """The count of each leaf with inputs; those that no pattern names are left out."""
    numbers = dict.fromkeys(shapes, counts) if isinstance(counts, int) else {}
    if isinstance(counts, Mapping):
        numbers = trees.by_path(counts, list(shapes), "counts")
    unknown = [trees.name(path) for path in shapes if axes[path] is None and (callable(counts) or path in numbers)]
    if unknown:
        raise ValueError(
            f"the inputs of a unit cannot be told from the layout of these leaves: {', '.join(unknown)}. Leave them out by where="
        )
    inputs = {
        path: int(np.prod([n for axis, n in enumerate(shape) if axis not in (axes[path] or ())]))
        for path, shape in shapes.items()
    }
    if callable(counts):
        numbers = {path: counts(trees.name(path), inputs[path]) for path in shapes}
    odd = [f"{trees.name(path)} ({n!r})" for path, n in numbers.items() if isinstance(n, bool) or int(n) != n]
    if odd:
        raise TypeError(f"counts are whole numbers of inputs, but not those of: {', '.join(odd)}")
    bad = [
        f"{trees.name(path)} ({n} of {inputs[path]} inputs)"
        for path, n in numbers.items()
        if not 0 <= n <= inputs[path]
    ]
    if bad:
        raise ValueError(f"a unit has at least 0 anchored inputs and at most all of them, not: {', '.join(bad)}")
    return {path: int(n) for path, n in numbers.items()}


def _draw(key: jax.Array, path: KeyPath, shape: Shape, axes: tuple[int, ...] | None, count: int) -> jax.Array:
    """Bool of `shape`: False for the `count` smallest draws of each unit."""
    assert axes is not None
    keep: jax.Array = _all_but_smallest_of_units(uniform(key, path, shape), np.int32(count), axes)
    return keep


@functools.partial(jax.jit, static_argnames="axes")  # one program for a shape, whatever the count
def _all_but_smallest_of_units(drawn: jax.Array, count: int | jax.Array, axes: tuple[int, ...]) -> jax.Array:
    order = (*axes, *(axis for axis in range(drawn.ndim) if axis not in axes))
    units = drawn.transpose(order)
    rows = units.reshape(-1, math.prod(units.shape[len(axes) :]))
    ranks = jnp.argsort(jnp.argsort(rows, axis=-1), axis=-1)
    return (ranks >= count).reshape(units.shape).transpose(np.argsort(order).tolist())
