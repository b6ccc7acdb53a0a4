"""The units of all leaves of a tree, by their layouts: which leaves share units, and what is refused because no layout tells."""

import math
from collections.abc import Iterator, Mapping, Sequence

from tna_jax import trees
from tna_jax.masks import cells
from tna_jax.masks.layouts import (
    BIASES,
    KEY_OF,
    OUTPUTS_FIRST,
    PROJECTIONS,
    TABLE,
    TRANSPOSED,
    VECTORS,
    Layer,
    Refused,
    Shape,
    Units,
    kernel_units,
    last,
    layers,
    votes,
    weight_units,
)
from tna_jax.trees import KeyPath

Found = dict[KeyPath, Units | Refused]


def units_by_layout(shapes: Mapping[KeyPath, Shape], apart: bool = False) -> Found:
    """Returns the units of every leaf, or why they are not known.

    Args:
      shapes: of all leaves of a tree of parameters, by path.
      apart: a norm is a layer of its own, and so are the queries and keys of attention; else a norm is refused where another
        layer has as many units, and queries and keys share theirs.
    """
    modules = layers(shapes)
    found: Found = dict(cells.cell_units(modules))
    rest = [Layer(m.name, {n: leaf for n, leaf in m.leaves.items() if leaf[0] not in found}) for m in modules]
    rest = [layer for layer in rest if layer.leaves]
    square = votes(rest)
    for layer in rest:
        found |= _with_bias(layer, square)
    biased = {path: units for path, units in found.items() if isinstance(units, Units)}
    attention = {} if apart else _attention(rest, found)
    for layer in rest:
        for path, units in _others(layer, {**found, **attention}, biased, shapes, bool(square)):
            found[path] = units
    if not apart:
        found |= dict(_queries_and_keys(rest, found))
        found |= dict(_norms(rest, found))
    return found


def _prefixed(layer: Layer) -> Iterator[tuple[Layer, str, str]]:
    """The pairs of a matrix and its bias in a module: (those leaves, the matrix's name, the bias's name)."""
    for name, (_, shape) in layer.leaves.items():
        if name in BIASES or len(shape) < 2:
            continue
        first = OUTPUTS_FIRST.search(name)
        prefix = name[: -len("weight")] if first else ""
        bias = next((b for b in ((f"{prefix}bias",) if first else BIASES) if b in layer.leaves), "")
        owner = (*layer.name, prefix.rstrip("_")) if prefix else layer.name
        yield Layer(owner, layer.leaves), name, bias


def _label(layer: Layer) -> str:
    return layer.name[-1].rsplit("/", 1)[-1].rsplit(".", 1)[-1] if layer.name else ""


def _with_bias(layer: Layer, square: bool | None) -> Found:
    """The units of each matrix that has a bias, and of that bias."""
    found: Found = {}
    refused: dict[KeyPath, Found] = {}
    for owner, name, bias in _prefixed(layer):
        if not bias or layer.leaves[bias][0] in found:
            continue
        (path, shape), (bias_path, bias_shape) = layer.leaves[name], layer.leaves[bias]
        if shape == bias_shape:  # norms of a stack of layers, or over several axes
            continue
        units: Units | Refused
        if OUTPUTS_FIRST.search(name) and not TABLE.search(_label(layer)):
            units = weight_units(owner, shape, bias_shape, _label(layer), square)
        else:
            units = kernel_units(owner, shape, bias_shape, _label(layer))
        if isinstance(units, Refused):
            refused[bias_path] = {path: units, bias_path: Refused(f"its kernel: {units.reason}")}
        else:
            found[path] = units
            found[bias_path] = Units(owner.name, units.shape, units.stacked, tuple(range(len(units.shape))))
    for bias_path, pair in refused.items():
        found = (
            found if bias_path in found else found | pair
        )  # beside a matrix that has the bias, others are layers of their own
    return found


def _attention(rest: Sequence[Layer], found: Found) -> Found:
    """Linen's and NNX's projections without bias, (..., inputs, heads, head size), beside an output (..., heads, head size, outputs)."""
    named = {layer.name: layer for layer in rest}
    units: Found = {}
    for layer in rest:
        path, shape = layer.leaves.get("kernel", ((), ()))
        out = named.get((*layer.name[:-1], "out"), Layer((), {})).leaves.get("kernel", ((), ()))[1]
        heads = len(shape) > 2 and shape[-2:] == out[-3:-1]
        if _label(layer) in PROJECTIONS and heads and path not in found:
            stacked = len(shape) - 3
            units[path] = last((*shape[:stacked], *shape[-2:]), shape, layer.name, stacked)
    return units


def _others(
    layer: Layer, found: Found, biased: Mapping[KeyPath, Units], shapes: Mapping[KeyPath, Shape], square: bool
) -> Iterator[tuple[KeyPath, Units | Refused]]:
    """The units of what has no bias of its own: matrices, norms, and whatever else a module holds."""
    siblings = {units.layer: units for path, (_, units) in _siblings(layer, found).items()}
    bias = layer.leaves.get("bias", ((), ()))[1]
    for name, (path, shape) in layer.leaves.items():
        units, stacked = siblings.get(layer.name), _stack(path, biased, shapes)
        if path in found:
            yield path, found[path]
        elif not shape:
            yield path, Units(path, (), 0, ())
        elif units is not None and len(units.shape) <= len(shape) and shape[-len(units.shape) :] == units.shape:
            yield path, last(units.shape, shape, layer.name, units.stacked)
        elif set(layer.leaves) <= VECTORS and (shape == bias or (stacked and len(shape) == stacked + 1)):
            yield path, last(shape, shape, layer.name, stacked if stacked < len(shape) else 0)
        elif OUTPUTS_FIRST.search(name) and len(shape) > 1 and not TABLE.search(_label(layer)):
            yield path, _weight_alone(layer, path, shape, biased, shapes, square)
        else:
            yield path, last(shape[-1:], shape, layer.name)


def _siblings(layer: Layer, found: Found) -> dict[str, tuple[KeyPath, Units]]:
    return {
        name: (path, units) for name, (path, _) in layer.leaves.items() if isinstance(units := found.get(path), Units)
    }


def _weight_alone(
    layer: Layer,
    path: KeyPath,
    shape: Shape,
    biased: Mapping[KeyPath, Units],
    shapes: Mapping[KeyPath, Shape],
    square: bool,
) -> Units | Refused:
    """A matrix (outputs, inputs, ...) without bias; a stack of layers is known by the layers with a bias around it."""
    if len(shape) == 2:
        return last(shape[1:], shape, layer.name) if square else Units(layer.name, shape[:1], 0, (0,))
    stacked = _stack(path, biased, shapes)
    if (
        not biased
        and len(shapes) > 1
        and len({s[:1] for s in shapes.values()}) == 1
        and all(len(s) > 1 for s in shapes.values())
    ):
        return Refused(f"{shape} may be a stack of layers or one convolution, and so may all others")
    if stacked + 2 > len(shape):
        stacked = 0
    at = stacked + (not stacked and "." in path[-1] and TRANSPOSED.search(_label(layer)) is not None)
    return Units(layer.name, (*shape[:stacked], shape[at]), stacked, (*range(stacked), at))


def _stack(path: KeyPath, biased: Mapping[KeyPath, Units], shapes: Mapping[KeyPath, Shape]) -> int:
    """How many leading axes count layers, by the nearest layers with a bias: theirs, if all leaves there have the same ones."""
    for length in range(len(path) - 1, -1, -1):
        near = [units for other, units in biased.items() if other[:length] == path[:length]]
        if near:
            leading = {units.shape[: units.stacked] for units in near}
            first = leading.pop()
            same = all(s[: len(first)] == first for p, s in shapes.items() if p[:length] == path[:length])
            return len(first) if not leading and same else 0
    return 0


def _queries_and_keys(rest: Sequence[Layer], found: Found) -> Iterator[tuple[KeyPath, Units]]:
    """Keys share the units of the queries that they meet: one cannot be permuted without the other."""
    named = {layer.name: layer for layer in rest}
    for layer in rest:
        label = _label(layer)
        if label not in KEY_OF:
            continue
        key = named.get((*layer.name[:-1], layer.name[-1][: len(layer.name[-1]) - len(label)] + KEY_OF[label]))
        queries = {units.shape for _, units in _siblings(layer, found).values()}
        for path, units in _siblings(key, found).values() if key else ():
            if {units.shape} == queries:
                yield path, units._replace(layer=layer.name)


def _norms(rest: Sequence[Layer], found: Found) -> Iterator[tuple[KeyPath, Refused]]:
    """Norms, where a layer has as many units: nothing in a tree says which layer they follow."""

    def is_norm(layer: Layer) -> bool:
        return (
            set(layer.leaves) <= VECTORS
            and not set(layer.leaves) <= {"bias", "beta"}
            and all(
                isinstance(units := found[path], Units) and len(units.axes) == len(shape)
                for path, shape in layer.leaves.values()
            )
        )

    norms = {path for layer in rest if is_norm(layer) for path, _ in layer.leaves.values()}
    sizes = {
        math.prod(u.shape[u.stacked :]) for p, u in found.items() if isinstance(u, Units) and p not in norms and u.shape
    }
    for path in norms:
        units = found[path]
        if isinstance(units, Units) and math.prod(units.shape[units.stacked :]) in sizes:
            yield path, Refused("a norm, of another layer's units")


def refuse(found: Found, chosen: Sequence[KeyPath]) -> None:
    """Raises ValueError for the chosen leaves whose units are not known; all are listed."""
    bad = [f"{trees.name(path)} ({units.reason})" for path in chosen if isinstance(units := found[path], Refused)]
    if bad:
        raise ValueError(
            f"whole units cannot be told from the layout of these leaves: {'; '.join(bad)}. Give spec=matching.permutation_spec("
            "network, params, x), which traces whose units they are; or leave them out by where=; or draw norms as layers of "
            "their own by apart=True"
        )
