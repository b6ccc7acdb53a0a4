"""The units of recurrent cells: a unit's gates are one unit, in every matrix and bias of its cell."""

import re
from collections.abc import Iterator, Sequence

from tna_jax import trees
from tna_jax.masks.layouts import Layer, Refused, Shape, Units
from tna_jax.trees import KeyPath

INPUT_GATES = {"ii", "if", "if_", "ig", "io", "in", "in_", "ir", "iz"}
STATE_GATES = {"hf", "hg", "hi", "ho", "hn", "hr", "hz"}
PAIRS = ({"i", "h"}, {"ih", "hh"}, {"dense_i", "dense_h"})  # all gates in one matrix, or a cell of one gate


def cell_units(found: Sequence[Layer]) -> Iterator[tuple[KeyPath, Units | Refused]]:
    """Yields the units of every leaf that belongs to a cell of Linen, NNX, Equinox, PyTorch, Haiku or Keras."""
    for layer in found:
        yield from _one_module(layer)
    parents: dict[KeyPath, list[Layer]] = {}
    for layer in found:
        if layer.name and any(len(shape) > 1 for _, shape in layer.leaves.values()):
            parents.setdefault(layer.name[:-1], []).append(layer)
    for parent, children in parents.items():
        names = {child.name[-1] for child in children}
        gates = names <= INPUT_GATES | STATE_GATES and names & INPUT_GATES and names & STATE_GATES
        if gates or names in PAIRS:
            yield from _several_modules(parent, children)


def _several_modules(parent: KeyPath, children: Sequence[Layer]) -> Iterator[tuple[KeyPath, Units | Refused]]:
    """Linen's and NNX's cells: a dense layer or a convolution for each gate, or one for all gates of the inputs, one for the state's."""
    state = next(child for child in children if child.name[-1].removeprefix("dense_").startswith("h"))
    kernels = [shape for _, shape in state.leaves.values() if len(shape) > 1]
    biases = [shape for name, (_, shape) in state.leaves.items() if name == "bias"]
    kernel = kernels[0]
    stacked = (
        len(biases[0]) - 1 if biases and state.name[-1] == "hh" else 0 if state.name[-1] == "hh" else len(kernel) - 2
    )
    for child in children:
        for path, shape in child.leaves.values():
            yield path, _gates(parent, (*kernel[:stacked], kernel[-2]), shape)


def _one_module(layer: Layer) -> Iterator[tuple[KeyPath, Units | Refused]]:
    """Cells whose matrices are leaves of one module: `weight_hh` (outputs first), `recurrent_kernel`, `w_h` (outputs last)."""
    for name, (_, recurrent) in layer.leaves.items():
        if name.startswith("weight_hh") and len(recurrent) > 1:
            suffix = name.removeprefix("weight_hh")
            owner = (*layer.name, suffix.lstrip("_")) if suffix else layer.name
            projection = layer.leaves.get(f"weight_hr{suffix}")
            hidden = (projection[1] if projection else recurrent)[-1]
            units = (*recurrent[:-2], hidden)
            for leaf, (path, shape) in layer.leaves.items():
                if not leaf.endswith(suffix) or not re.match(r"(weight_[ih]h|bias)", leaf) or _suffix(leaf) != suffix:
                    continue
                yield path, _gates(owner, units, shape, inputs_last=leaf.startswith("weight"))
            if projection:
                path, shape = projection
                stacked = len(shape) - 2
                yield path, Units((*owner, "projection"), shape[:-1], stacked, tuple(range(stacked + 1)))
    for name, size in (("recurrent_kernel", None), ("w_h", None), ("w", 4)):
        if name not in layer.leaves or (size and not re.search(r"(^|/)lstm(_\d+)?/linear$", trees.name(layer.name))):
            continue
        recurrent = layer.leaves[name][1]
        hidden = recurrent[-1] // size if size else recurrent[-2]
        for path, shape in layer.leaves.values():
            yield path, _gates(layer.name, (*recurrent[:-2], hidden), shape)


def _suffix(leaf: str) -> str:
    """`_l0_reverse` of PyTorch's `bias_ih_l0_reverse`, nothing for Equinox's `bias_n`."""
    return re.sub(r"^(weight|bias)(_[ih]h|_n)?", "", leaf)


def _gates(owner: KeyPath, units: Shape, shape: Shape, inputs_last: bool = False) -> Units | Refused:
    """The units of a leaf whose last axis (but one, under `inputs_last`) holds each unit once for every gate."""
    at, stacked = len(shape) - 1 - inputs_last, len(units) - 1
    if at < stacked or shape[:stacked] != units[:stacked] or shape[at] % units[-1]:
        return Refused(f"{shape} does not hold the gates of the {units[-1]} units of its cell")
    return Units(owner, units, stacked, (*range(stacked), at), shape[at] // units[-1])
