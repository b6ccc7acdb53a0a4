"""REPAIR: the activations of a model between two others are given the means and spreads that lie between theirs."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from tna_jax import interpolation, networks, sharding, trees
from tna_jax.masks import Params
from tna_jax.matching import function_check, layers
from tna_jax.matching.magnitudes import brought_near, exponent_of
from tna_jax.networks import Network, Stateful
from tna_jax.repair.linen import BATCH_NORM, LinenLayers
from tna_jax.repair.statistics import Scalar
from tna_jax.trees import KeyPath


@dataclasses.dataclass(frozen=True)
class Repaired:
    """A repaired network: `params` alone where `shift` is empty.

    Attributes:
      params: pytree like the fused model's: rescaled kernels, and biases where the layer has one.
      shift: by module path, (units,) to add to the outputs of layers that have no bias; see `apply`.
      layers: the module paths that were repaired.
      unknown: paths of layers that were left as they are because their units are not known: of Linen modules others than `nn.Dense`,
        `nn.DenseGeneral`, `nn.Conv` and `nn.ConvTranspose` whose parameters activations are multiplied with, of functions kernels with
        several axes of units, one for each expert, or of tied layers.
    """

    params: Params
    shift: dict[str, Float[Array, "..."]]
    layers: tuple[str, ...]
    unknown: tuple[str, ...] = ()

    def apply(self, network: nn.Module | Network, inputs: Shaped[Array, "B ..."]) -> Float[Array, "B ..."]:
        """Computes logits of the repaired network, shifts included."""

        def add(path: str, output: jax.Array) -> jax.Array:
            return _shifted(output, self.shift.get(path))

        logits: Array = _layered(network, self.params, inputs).run(self.params, add)
        return logits


@sharding.outside_meshes
def repair(
    network: nn.Module | Network,
    params: Params,
    ends: Sequence[Params],
    weights: Sequence[Scalar] | Shaped[Array | np.ndarray, "..."],
    inputs: Shaped[Array, "N ..."],
    *,
    skip: Callable[[str], bool] | None = None,
    preprocess: Callable[[Any], Any] = lambda x: x,
) -> Repaired:
    """Rescales hidden units by REPAIR in closed form, for a network without BatchNorm (arXiv 2211.08403, section 4).

    Every dense and convolutional layer but the last is rescaled and shifted, unit by unit, so that over `inputs` the mean
    and standard deviation of its outputs (before the non-linearity) are the weighted means of the ends' means and standard
    deviations. Layers are repaired in the order in which the network runs them, each on the outputs of those before.

    The layers of a function are found in its jaxpr (`tna_jax.matching.layers`): products and convolutions of activations
    with one parameter that has one axis of units.

    Args:
      network: any function (params, inputs (B, ...)) -> (B, C), such as `from_nnx(...).network` (evaluation mode of a
        `Stochastic` one); or a Linen module, `module.apply({"params": params}, x)`, whose convolutions and dense layers are
        `nn.Conv` and `nn.Dense` or subclasses of them.
      params: the fused model, e.g. `line(a, b, 0.5)`.
      ends: the models it was fused from, pytrees of the same form.
      weights: one for each end, sum 1: (1 - alpha, alpha) on a line.
      inputs: (N, ...) training inputs, one batch.
      skip: module paths ("stage1_block0/conv1") to leave as they are; default: the last layer only.
      preprocess: run on the inputs first.

    Returns:
      `Repaired`. A unit that is constant over the inputs, up to rounding, is shifted, not rescaled. Law: one end, or equal
      ends, give the model back up to rounding.

    Raises:
      ValueError: another number of weights than ends, weights of another sum than 1, parameters that are not finite (named), no
        inputs or inputs that are not finite, a network with BatchNorm (`reset_batch_stats` is its
        repair), a layer to be repaired that the network runs more than once, layers that compute complex numbers, layers of a function
        that cannot be told apart, or kernels and biases that are used elsewhere too (a factor made of the kernel's norm, a bias of two
        layers), so that the rescaled network would be another one. Under `jit`, where values are not known, the last, the sum and
        the parameters are not looked at.
    """
    shares = jnp.asarray(weights, jnp.float32)
    if shares.shape != (len(ends),) or not len(ends):
        raise ValueError(f"expected one weight for each of 1 or more ends, got {shares.shape} for {len(ends)}")
    if not isinstance(shares, jax.core.Tracer) and not abs(float(shares.sum()) - 1) < SUM:
        raise ValueError(f"the weights of the ends must sum to 1, got {', '.join(map(str, shares.tolist()))}")
    _require_inputs(inputs)
    _require_finite(params, ends)
    layered = _layered(network, params, preprocess(inputs))
    moments = [_measure(layered, end) for end in ends]
    names = list(moments[0])
    chosen = set(names[:-1] if skip is None else [path for path in names if not skip(path)])
    goal: dict[str, list[Any]] = {
        path: [sum(share * m[path][i] for share, m in zip(shares, moments, strict=True)) for i in (0, 1)]
        for path in chosen
    }
    change: Change = {}

    def fix(path: str, output: jax.Array) -> jax.Array:
        if path not in chosen:
            return output
        if path in change:
            raise ValueError(f"{path!r} runs more than once: one rescaling cannot repair both, so skip it")
        mean, std = _moments(output)
        scale = jnp.where(std > 0, goal[path][1] / jnp.where(std > 0, std, np.float32(1)), np.float32(1))
        change[path] = scale, goal[path][0] - mean * scale
        return _affine(output, *change[path])

    outputs = layered.run(params, fix)
    rescaled, shift = _rescaled(layered, params, change)
    _require_same(layered, params, change, outputs)
    return Repaired(rescaled, shift, tuple(change), layered.unknown)


def _require_inputs(inputs: Any) -> None:
    """Raises ValueError for no inputs, and for NaN and infinities among them where values are known."""
    leaves = jax.tree.leaves(inputs)
    if not leaves or any(not np.size(leaf) for leaf in leaves):
        raise ValueError("means and spreads need inputs, and there are none")
    known = [
        leaf for leaf in leaves if not isinstance(leaf, jax.core.Tracer) and jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    wrong = sum(int(np.count_nonzero(~np.isfinite(np.asarray(leaf)))) for leaf in known)
    if wrong:
        raise ValueError(f"{wrong} entries of the inputs are not finite: all means and spreads would be NaN")


def _require_finite(params: Params, ends: Sequence[Params]) -> None:
    """Raises ValueError that names the leaves with values that are not finite, where values are known."""
    models = [("", params), *((f"end {i}: ", end) for i, end in enumerate(ends))]
    wrong = [model + name for model, tree in models for name in trees.names_not_finite(tree)]
    if wrong:
        raise ValueError(f"networks with values that are not finite cannot be repaired: {', '.join(wrong)}")


SUM = 1e-3
"""What the sum of weights may differ by from 1."""
TOLERANCE, ROUGH = 10.0, 0.05
"""What a rescaled network may differ by from one whose outputs are rescaled: times what the order of sums may change; and where scales are
beyond `MODERATE`, a share of the largest output, for rounding is rescaled too."""
MODERATE = (0.1, 10.0)

Change = dict[str, tuple[jax.Array, jax.Array]]
"""By layer, the factor and what is added, (units,) each."""


def _rescaled(
    layered: "LinenLayers | _TracedLayers", params: Params, change: Change
) -> tuple[Params, dict[str, jax.Array]]:
    """The parameters with rescaled layers, and what no bias can hold."""
    shift: dict[str, jax.Array] = {}
    flat = dict(trees.named_leaves(params))
    for path, (scale, offset) in change.items():
        new, rest = layered.scaled(path, flat, scale, offset)
        flat |= new
        if rest is not None:
            shift[path] = rest
    return trees.like(params, list(flat.values())), shift


def _require_same(layered: "LinenLayers | _TracedLayers", params: Params, change: Change, outputs: Any) -> None:
    """Raises ValueError unless the network with rescaled parameters is the one whose layers' outputs are rescaled."""
    leaves = jax.tree.leaves((params, outputs, change))
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return
    scales = np.concatenate([np.ones(1), *(np.asarray(scale) for scale, _ in change.values())])
    moderate = (np.abs(scales) > MODERATE[0]).all() and (np.abs(scales) < MODERATE[1]).all()
    usual = TOLERANCE * function_check.narrowest_tolerance(layered.closed)
    allowed = usual if moderate else max(usual, ROUGH)

    def gap(part: Change, outputs: Any) -> float:
        rescaled, shift = _rescaled(layered, params, part)
        return _gap(outputs, layered.run(rescaled, lambda path, x: _shifted(x, shift.get(path))))

    if not gap(change, outputs) > allowed:
        return
    wrong = []
    for path, (scale, offset) in change.items():

        def edit(
            other: str, x: jax.Array, path: str = path, to: tuple[jax.Array, jax.Array] = (scale, offset)
        ) -> jax.Array:
            return _affine(x, *to) if other == path else x

        if gap({path: (scale, offset)}, layered.run(params, edit)) > allowed:
            wrong.append(path)
    raise ValueError(
        f"rescaling these layers would change more than their units: {', '.join(wrong or change)}. Their kernels or biases are used elsewhere "
        "too (a factor made of a kernel's norm, a bias of several layers), or their outputs before the bias is added: skip them"
    )


def _gap(outputs: Any, others: Any) -> float:
    """The largest difference of two networks' outputs, as a share of the largest entry; 0 where they are not finite."""
    gaps = [0.0]
    for x, y in zip(jax.tree.leaves(outputs), jax.tree.leaves(others), strict=True):
        if jnp.issubdtype(x.dtype, jnp.floating) and x.size:
            x, y = (np.asarray(leaf, np.float64) for leaf in (x, y))
            gaps.append(float(np.abs(x - y).max() / max(np.abs(x).max(), np.finfo(np.float32).tiny)))
    return float(np.max(gaps))


def _shifted(values: jax.Array, shift: jax.Array | None) -> jax.Array:
    return values if shift is None else _affine(values, jnp.ones_like(shift), shift)


def _moments(output: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation of each unit (the last axis) over examples and positions, float32.

    The deviation of a unit whose values differ by rounding only is 0, which that around a rounded mean is not.
    """
    if jnp.issubdtype(output.dtype, jnp.complexfloating):
        raise ValueError("layers that compute complex numbers have no spread by which they could be repaired")
    moments: tuple[jax.Array, jax.Array] = _of_units(output.astype(jnp.float32).reshape(-1, output.shape[-1]))
    return moments


@jax.jit
def _of_units(flat: jax.Array) -> tuple[jax.Array, jax.Array]:
    exponent = exponent_of(flat)
    flat = brought_near(flat, exponent)  # whose squares are numbers
    constant = jnp.ptp(flat, 0) <= np.float32(1e-6) * jnp.abs(flat).max(0)
    std = jnp.where(constant, np.float32(0), flat.std(0))
    return brought_near(flat.mean(0), -exponent), brought_near(std, -exponent)


def _affine(values: jax.Array, scale: jax.Array, offset: jax.Array | None = None, axis: int = -1) -> jax.Array:
    """`values * scale + offset` along one axis, in float32; the dtype of `values` is kept."""
    scaled = values.astype(jnp.float32) * _along_units(scale, values, axis)
    return (scaled if offset is None else scaled + _along_units(offset, values, axis)).astype(values.dtype)


def _along_units(values: jax.Array, like: jax.Array, axis: int) -> jax.Array:
    shape = [1] * like.ndim
    shape[axis] = -1
    return values.reshape(shape)


Edit = Callable[[str, jax.Array], jax.Array]
"""(module path, a layer's output with its units on the last axis) -> what stands in its place."""


class _TracedLayers:
    """A network given as a function, whose layers are found in its jaxpr."""

    def __init__(self, network: Network, params: Params, inputs: Any) -> None:
        def run(params: Params, inputs: Any) -> Any:
            return networks.evaluate(network, params, (), inputs)

        self.inputs = inputs
        self.closed, shape = jax.make_jaxpr(run, return_shape=True)(params, inputs)
        self.outputs = jax.tree.structure(shape)
        self.layers, unknown = layers.find_layers(self.closed, params, len(jax.tree.leaves(inputs)))
        self.unknown = tuple(map(trees.name, unknown))

    def run(self, params: Params, edit: Edit) -> Any:
        """As that of Linen."""
        arguments = [jnp.asarray(leaf) for leaf in jax.tree.leaves((params, self.inputs))]
        outputs = layers.run_layers(self.closed, arguments, self.layers, lambda i, x: edit(self.layers[i].name, x))
        return jax.tree.unflatten(self.outputs, outputs)

    def scaled(
        self, path: str, flat: dict[KeyPath, Any], scale: jax.Array, offset: jax.Array
    ) -> tuple[dict[KeyPath, Any], jax.Array | None]:
        """As that of Linen."""
        layer = next(layer for layer in self.layers if layer.name == path)
        new = {layer.kernel: _affine(flat[layer.kernel], scale, axis=layer.kernel_axis)}
        if layer.bias is None:
            return new, offset
        new[layer.bias] = _affine(flat[layer.bias], scale, offset, axis=layer.bias_axis)
        return new, None


def _layered(network: nn.Module | Network, params: Params, inputs: Any) -> LinenLayers | _TracedLayers:
    if isinstance(network, nn.Module):
        return LinenLayers(network, params, inputs)
    if isinstance(network, Stateful):
        raise ValueError(BATCH_NORM)
    return _TracedLayers(network, params, inputs)


def _measure(layered: LinenLayers | _TracedLayers, params: Params) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Moments of every layer's outputs, by module path, in the order of the network."""
    moments: dict[str, tuple[jax.Array, jax.Array]] = {}

    def look(path: str, output: jax.Array) -> jax.Array:
        moments[path] = _moments(output)
        return output

    layered.run(params, look)
    return moments


def repair_line(
    network: nn.Module | Network, a: Params, b: Params, alpha: Scalar, inputs: Shaped[Array, "N ..."], **options: Any
) -> Repaired:
    """Runs `repair` on the model at `alpha` on the line from `a` to `b`; arguments and options as there."""
    weights = jnp.asarray([1 - alpha, alpha], jnp.float32)
    return repair(network, interpolation.line(a, b, alpha), [a, b], weights, inputs, **options)
