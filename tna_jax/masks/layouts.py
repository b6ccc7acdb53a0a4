"""Where the units of each layer stand in its leaves, told from names and shapes: Linen, NNX, Equinox, Haiku and PyTorch's names.

A unit is one output of a layer: its incoming weights and its bias. `cells` knows the recurrent cells, whose gates share their units;
this file knows all else. What a layout does not tell is refused by name.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tna_jax import trees
from tna_jax.trees import KeyPath

Shape = tuple[int, ...]
BIASES = ("bias", "b")
OUTPUTS_FIRST = re.compile(r"(^|_)weight$")  # Equinox and PyTorch; all others have their outputs on the last axes
TABLE = re.compile(r"embed|^w[tp]e$|^emb(_|$)|_emb$", re.IGNORECASE)  # a look-up: its outputs are on the last axis, too
TRANSPOSED = re.compile(r"transpose|deconv|upconv|convt", re.IGNORECASE)
KEY_OF = {"query": "key", "query_proj": "key_proj", "q_proj": "k_proj", "to_q": "to_k", "q": "k"}
PROJECTIONS = ("query", "key", "value")
VECTORS = {"scale", "bias", "weight", "gamma", "beta", "offset"}


class Units(NamedTuple):
    """The units of a layer, and where they stand in one of its leaves."""

    layer: KeyPath
    """What the draw is called: leaves with one name and one shape of units share them."""
    shape: Shape
    """The units; the first `stacked` axes count layers, each of which has its own."""
    stacked: int
    axes: tuple[int, ...]
    """The leaf's axes on which `shape` stands, ascending."""
    gates: int = 1
    """How often the units follow one another on the last of the axes: the gates of a cell in one matrix."""

    def spread(self, units: jax.Array, shape: Shape) -> jax.Array:
        """Returns what is said of units, of `self.shape`, for every entry of the leaf, of `shape`."""
        if self.gates > 1:
            units = jnp.tile(units, (*(1,) * (units.ndim - 1), self.gates))
        return jnp.broadcast_to(units.reshape([n if i in self.axes else 1 for i, n in enumerate(shape)]), shape)


class Refused(NamedTuple):
    """Why the units of a leaf are not known."""

    reason: str


class Layer(NamedTuple):
    """The leaves of one module that belong together, by their names."""

    name: KeyPath
    leaves: dict[str, tuple[KeyPath, Shape]]


def layers(shapes: Mapping[KeyPath, Shape]) -> list[Layer]:
    """Groups leaves by module; a flat name (`encoder.0.weight`, `Dense_0/kernel`) is taken apart at its last separator."""
    modules: dict[KeyPath, Layer] = {}
    for path, shape in shapes.items():
        inner, separator, leaf = re.fullmatch(r"(?:(.*)([./]))?([^./]*)", path[-1] if path else "").groups()  # type: ignore[union-attr]
        name = (*path[:-1], inner) if separator else path[:-1]
        modules.setdefault(name, Layer(name, {})).leaves[leaf] = path, shape
    return list(modules.values())


def last(units: Shape, shape: Shape, layer: KeyPath, stacked: int = 0) -> Units:
    """Units on the last axes of a leaf, behind `stacked` axes of layers."""
    own = len(units) - stacked
    return Units(layer, units, stacked, (*range(stacked), *range(len(shape) - own, len(shape))))


def kernel_units(layer: Layer, kernel: Shape, bias: Shape, label: str) -> Units | Refused:
    """The units of a kernel (..., outputs) with a bias: of one layer, or of a stack of layers, which has its axis first in both."""
    fits = [
        stacked
        for stacked in range(len(bias))
        if len(kernel) > len(bias) and bias == (*kernel[:stacked], *kernel[len(kernel) - len(bias) + stacked :])
    ]
    if not fits:
        if len(kernel) > len(bias) + 1 and bias == (*kernel[: len(bias) - 1], kernel[-2]):  # transpose_kernel=True
            return Units(layer.name, bias, len(bias) - 1, (*range(len(bias) - 1), len(kernel) - 2))
        return Refused(f"{kernel} and its bias {bias} have no axes of units in common")
    if len(fits) > 1 and label in PROJECTIONS:
        fits = [stacked for stacked in fits if len(bias) - stacked == 2]
    if len(fits) > 1 and re.search(r"(^|/)(Scan|Vmap)", trees.name(layer.name)):
        fits = fits[-1:]
    if len(fits) != 1:
        return Refused(
            f"{kernel} and its bias {bias} may be a stack of layers or one layer with {len(bias)} axes of units"
        )
    return last(bias, kernel, layer.name, fits[0])


def weight_units(layer: Layer, weight: Shape, bias: Shape, label: str, transposed: bool | None) -> Units | Refused:
    """The units of a weight (outputs, inputs, ...) with a bias; `transposed`: a square one has its outputs last, None: unknown."""
    fits = [
        stacked
        for stacked in range(min(len(bias), len(weight) - 1))
        if bias[: stacked + 1] == weight[: stacked + 1]
        and set(bias[stacked + 1 :]) <= {1}
        and len(bias) - stacked - 1 in (0, len(weight) - stacked - 2)
    ]
    if len(weight) == 2 and bias == weight[1:] and (not fits or transposed):  # GPT-2's Conv1D
        return last(bias, weight, layer.name)
    if len(weight) == 2 and weight[0] == weight[1] and transposed is None:
        return Refused(f"{weight} may be (outputs, inputs) or (inputs, outputs), and other layers have both")
    if len(weight) > 2 and len(bias) == 1:  # PyTorch: a transposed convolution is (inputs, outputs / groups, ...)
        if bias[0] == weight[1] and (not fits or TRANSPOSED.search(label)):
            return Units(layer.name, bias, 0, (1,))
        if not fits and bias[0] % weight[1] == 0:
            return Refused(f"{weight} with its bias {bias} is a transposed convolution in groups")
    if not fits:
        return Refused(f"{weight} and its bias {bias} have no axes of units in common")
    stacked = fits[
        0
    ]  # of two: one convolution rather than a stack of layers with one output; its units are whole either way
    return Units(layer.name, weight[: stacked + 1], stacked, tuple(range(stacked + 1)))


def votes(found: Sequence[Layer]) -> bool | None:
    """Whether matrices called `weight` have their outputs last, by those that are not square; None: some do, some do not."""
    seen = {
        bias[1] == shape[1:]
        for layer in found
        for name, (_, shape) in layer.leaves.items()
        if name == "weight" and len(shape) == 2 and shape[0] != shape[1] and (bias := layer.leaves.get("bias"))
    }
    return None if len(seen) == 2 else True in seen
