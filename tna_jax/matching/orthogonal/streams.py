"""Where a residual stream stands in the parameters: what writes into it, what reads it, and the norms in between."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from tna_jax import trees
from tna_jax.matching import axes
from tna_jax.matching.axes import Axis, Concat, Fixed, Group, Product
from tna_jax.matching.orthogonal.declarations import Norms
from tna_jax.matching.permutations import PermutationSpec
from tna_jax.trees import KeyPath

SCALES, BIASES = ("scale", "weight", "gamma"), ("bias", "beta", "offset")
"""What frameworks call the parameters of a norm."""


class Reader(NamedTuple):
    """A layer that multiplies the stream with its kernel."""

    kernel: KeyPath
    axis: int
    """Of the kernel, the one along the stream."""
    bias: KeyPath | None
    """Of the shape of the kernel without that axis."""


class LayerScale(NamedTuple):
    """Factors, one a channel, that multiply what layers write into the stream."""

    scale: KeyPath
    writers: tuple[tuple[KeyPath, int], ...]
    """Kernels and biases of these layers, and their axis along the stream."""


class Norm(NamedTuple):
    """A norm over the stream, and what reads it."""

    scale: KeyPath
    bias: KeyPath | None
    readers: tuple[Reader, ...]


class ResidualStream(NamedTuple):
    """A residual stream in the parameters of a network."""

    group: str
    """Its group of hidden units."""
    width: int
    norms: tuple[Norm, ...]
    readers: tuple[tuple[KeyPath, int], ...]
    """Leaves that are multiplied with what a norm gives, and their axis along the stream, or along several of its tokens end to end."""
    writers: tuple[tuple[KeyPath, int], ...]
    """Leaves that are added to the stream, or make it: kernels, biases, embeddings."""
    layer_scales: tuple[LayerScale, ...] = ()


def residual_stream(spec: PermutationSpec, norms: Norms, layer_scales: Norms | None = None) -> ResidualStream:
    """Finds the residual stream that the norms stand in.

    Args:
      spec: of the network.
      norms: all norms with a scale, or a bias, and what reads them; `NORMS` has those of `tna_jax.models`. Other layers that
        read the stream must have a norm without parameters before them.
      layer_scales: all factors on what layers write, and these layers: `LAYER_SCALES` has those of `tna_jax.models`; default: none.

    Raises:
      ValueError: norms, factors or layers that are not there, that stand in several groups or in none, a reader that is written into the
        stream too (a tied head), a leaf part of an axis of which, or two axes, are the stream. All are named.
    """
    names = {trees.name(path): path for path in spec.params}
    wrong: list[str] = []
    norm_leaves: list[tuple[KeyPath, KeyPath | None, list[str]]] = []
    for pattern, readers in norms.items():
        found = _modules(pattern, names)
        if not found:
            wrong.append(f"no leaf under the norm {pattern}")
        for module, filling in found.items():
            leaves = {path[-1]: path for name, path in names.items() if path[:-1] and trees.name(path[:-1]) == module}
            scale, bias = (next((leaves[n] for n in kinds if n in leaves), None) for kinds in (SCALES, BIASES))
            if scale is None:
                wrong.append(f"the norm {module} has no leaf called {', '.join(SCALES)}")
                continue
            norm_leaves.append((scale, bias, [reader.replace("*", filling) for reader in readers]))
    groups = {name for scale, _, _ in norm_leaves for name in axes.names(spec.params[scale][-1])}
    odd = [trees.name(scale) for scale, _, _ in norm_leaves if not isinstance(spec.params[scale][-1], Group)]
    if odd or len(groups) != 1:
        wrong.append(
            f"the norms stand in {len(groups)} groups of hidden units ({', '.join(sorted(map(str, groups))) or 'none'}), one "
            f"is expected{f': {chr(44).join(odd)}' if odd else ''}; spec.describe() says why"
        )
    if wrong:
        raise ValueError(f"there is no residual stream as declared: {'; '.join(wrong)}")
    group = str(groups.pop())
    places = [(path, i) for path, i in spec.where(group)]
    wrong += [
        f"{trees.name(path)}: only a part of an axis is the stream"
        for path, i in places
        if not _is_stream(spec.params[path][i], several=spec.incoming[path][i])
    ]
    wrong += [
        f"{trees.name(path)}: two axes are the stream"
        for path in {path for path, _ in places}
        if sum(path == other for other, _ in places) > 1
    ]
    summed = {path: i for path, i in places if spec.incoming[path][i]}
    result = []
    for scale, bias, modules in norm_leaves:
        layers = [_reader(module, names, dict(places), summed, spec, wrong) for module in modules]
        result.append(Norm(scale, bias, tuple(layer for layer in layers if layer is not None)))
    written = {path: i for path, i in places if path not in summed}
    factors = _layer_scales(layer_scales or {}, names, written, wrong)
    if wrong:
        raise ValueError(f"the residual stream {group} cannot be turned: {'; '.join(wrong)}")
    apart = {path for norm in result for path in (norm.scale, norm.bias)} | {factor.scale for factor in factors}
    return ResidualStream(
        group,
        spec.groups[group],
        tuple(result),
        tuple(summed.items()),
        tuple((path, i) for path, i in written.items() if path not in apart),
        factors,
    )


def _is_stream(axis: Axis, several: bool) -> bool:
    """Whether all of an axis is the stream, or, of what reads it, several tokens of it end to end."""
    parts = axis.parts if several and isinstance(axis, Concat | Product) else (axis,)
    if isinstance(axis, Concat) and len(set(parts)) > 1:
        return False
    rest: tuple[Axis, ...] = parts[:-1] if isinstance(axis, Product) else ()
    return isinstance(parts[-1], Group) and all(isinstance(part, Fixed) for part in rest)


def _layer_scales(
    declared: Norms, names: Mapping[str, KeyPath], written: Mapping[KeyPath, int], wrong: list[str]
) -> tuple[LayerScale, ...]:
    factors = []
    for pattern, writers in declared.items():
        modules = _modules(pattern, names)
        if not modules:
            wrong.append(f"no leaf under the layer scale {pattern}")
        for module, filling in modules.items():
            inside = [path for path in written if trees.name(path[:-1]) == module]
            layers = [writer.replace("*", filling) for writer in writers]
            leaves = [(path, i) for path, i in written.items() if trees.name(path[:-1]) in layers]
            if len(inside) != 1:
                wrong.append(f"the layer scale {module} has {len(inside)} leaves in the stream, one is expected")
            missing = [layer for layer in layers if not any(trees.name(path[:-1]) == layer for path, _ in leaves)]
            if missing:
                wrong.append(
                    f"{', '.join(missing)}, which the layer scale {module} multiplies, has no leaf that is written into the stream"
                )
            if len(inside) == 1 and not missing:
                factors.append(LayerScale(inside[0], tuple(leaves)))
    return tuple(factors)


def _modules(pattern: str, names: Mapping[str, KeyPath]) -> dict[str, str]:
    """The modules that a pattern names, each with the text that `*` stands for."""
    expression = re.compile(re.escape(pattern).replace(r"\*", "([^/]*)", 1).replace(r"\*", r"\1"))
    found = {}
    for path in names.values():
        module = trees.name(path[:-1])
        match = expression.fullmatch(module)
        if match:
            found[module] = match[1] if match.groups() else ""
    return found


def _reader(
    module: str,
    names: Mapping[str, KeyPath],
    places: Mapping[KeyPath, int],
    summed: Mapping[KeyPath, int],
    spec: PermutationSpec,
    wrong: list[str],
) -> Reader | None:
    inside = [path for path in names.values() if trees.name(path[:-1]) == module]
    kernels = [path for path in inside if path in summed]
    if len(kernels) != 1:
        both = [trees.name(path) for path in inside if path in places]
        wrong.append(
            f"{', '.join(both)} is written into the stream as well as read: untie it"
            if both and not kernels
            else f"{module} has {len(kernels)} leaves that are multiplied with the stream, one is expected (a tied head is "
            "untied before: matching.orthogonal.untied)"
        )
        return None
    (kernel,) = kernels
    axis = summed[kernel]
    shape = [part.size for i, part in enumerate(spec.params[kernel]) if i != axis]
    biases = [path for path in inside if path not in places and [part.size for part in spec.params[path]] == shape]
    return Reader(kernel, axis, biases[0] if len(biases) == 1 else None)
