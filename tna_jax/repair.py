"""Statistics of fused networks: BatchNorm reset, and REPAIR (Jordan et al. 2023, arXiv 2211.08403).

Averaged networks have too little variance in their hidden units. Networks with BatchNorm are mended by estimating the
running statistics again (`reset_batch_stats`); others by rescaling each hidden unit (`repair`).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, Shaped

from tna_jax import interpolation, networks, running_averages, sharding, trees
from tna_jax.masks import Params
from tna_jax.matching import layers
from tna_jax.networks import Network, State, Stateful
from tna_jax.repair_linen import BATCH_NORM, LinenLayers
from tna_jax.trees import KeyPath

Scalar = float | Shaped[Array | np.ndarray | np.number, ""]


def batch_statistics(
    network: Stateful,
    params: Params,
    state: State,
    inputs: PyTree[Shaped[Array, "B ..."]],
    weight: Shaped[Array, " B"] | None = None,
) -> State:
    """Computes the statistics of one batch, freed from the running average's momentum and start.

    A running average is `new = m * old + (1 - m) * batch`. Training mode is run with `old` = 0 and `old` = K, in one pass
    (only the averages differ), which gives m and the batch's own value, whatever the momentum. K is a power of two far
    above any statistic (2^64 in float32), so that m keeps its digits beside large statistics. It runs in float32 at
    least, where the network takes a half-precision state as that. Dropout is off, as it is when
    the network is evaluated.

    Args:
      network: the network; the averages of its state must have m < 1.
      params, state: of one model; of averages only the shapes are read, all other leaves are kept
        (`tna_jax.running_averages`).
      inputs: (B, ...); weight: (B,), 0 for padding, or None.
    """

    def starts(leaf: Array, average: bool) -> Array:
        return jnp.stack([jnp.zeros_like(leaf), jnp.full_like(leaf, _high(leaf))] if average else [leaf, leaf])

    trained = _in_training(network, params, inputs, weight)
    averages = _averages(trained, state)
    original = state
    state = _widest(trained, state)
    new = jax.vmap(trained)(jax.tree.map(starts, state, averages))

    def batch_value(ends: Any, leaf: Any, before: Any, average: bool) -> Any:
        if not average:
            return before
        low, high = _at_least_float32(ends)
        return low / (1 - (high - low) / _high(leaf))

    statistics: State = jax.tree.map(batch_value, new, state, original, averages)
    return statistics if network.settled is None else network.settled(statistics)


@sharding.outside_meshes
def reset_batch_stats(
    network: Network,
    params: Params,
    state: State,
    inputs: PyTree[Shaped[Array, "N ..."]],
    *,
    batch_size: int = 500,
) -> State:
    """Computes running statistics of `params`, estimated anew: the mean over batches of each batch's statistics.

    Every example counts once; within a batch the network normalizes by the batch's own statistics, as in training. For
    fused BatchNorm networks, where REPAIR's rescaling amounts to this.

    Args:
      network: the network in training and evaluation mode.
      params: pytree of one model's parameters.
      state: pytree of its state, of which running averages are replaced; only their shapes are read. What else lives beside
        them (vectors of a spectral norm, counters) is kept bit for bit.
      inputs: (N, ...) training inputs as the network takes them, in every leaf, N >= 1; 2,000 are usually enough.
      batch_size: examples per pass, >= 1; a smaller rest is a batch of its own.

    Returns:
      The new state. Works under `jit`, `vmap` and `lax.map`.

    Raises:
      ValueError: no inputs, or a batch size below 1.
      TypeError: a network without a state.
    """
    if not isinstance(network, Stateful):
        raise TypeError(
            f"only a network with a state (networks.Stateful) has running statistics, got {type(network).__name__}"
        )
    examples = jax.tree.leaves(inputs)[0].shape[0]
    if examples < 1:
        raise ValueError("statistics need at least one input")
    if batch_size < 1:
        raise ValueError(f"the batch size must be at least 1, got {batch_size}")
    size = min(batch_size, examples)
    full = examples // size  # batches
    total = no_statistics(state)
    if examples > size:
        batches = jax.tree.map(lambda x: x[: full * size].reshape(full, size, *x.shape[1:]), inputs)
        share = np.float32(size / examples)

        def step(total: State, batch: Any) -> tuple[State, None]:
            return add_statistics(network, total, params, state, batch, share), None

        total, _ = jax.lax.scan(step, total, batches)
        inputs = jax.tree.map(lambda x: x[full * size :], inputs)
    rest = jax.tree.leaves(inputs)[0].shape[0]
    if rest:
        total = add_statistics(network, total, params, state, inputs, np.float32(rest / examples))
    as_stored: State = jax.tree.map(lambda t, s: t.astype(jnp.result_type(s)) if is_statistic(s) else t, total, state)
    return as_stored


RESET_TOLERANCE = 0.05
"""How far, relative to the largest output, evaluation after a reset may be from training mode on the same batch."""


def reset_disagreement(
    network: Stateful, params: Params, state: State, inputs: PyTree[Shaped[Array, "B ..."]]
) -> Float[Array, ""]:
    """Computes how far evaluation on the statistics of one batch is from training mode on that batch, relative to the largest output.

    It is 0 up to rounding where `reset_batch_stats` means something: where each floating-point leaf of the state is a running
    average of what training mode normalizes by. It is large or not a number for a state that evaluation reads in another way: a
    count by which it corrects the averages (say so in `Stateful.settled`), power iterations, averaged weights. 0 where training mode
    itself gives no finite outputs.
    """
    fresh = batch_statistics(network, params, state, inputs)
    trained = network.train(params, state, inputs, None, *([None] if network.wants_key else []))[0]
    evaluated = network.evaluate(params, fresh, inputs)
    gaps = [
        jnp.stack([jnp.abs(e.astype(jnp.float32) - t.astype(jnp.float32)).max(), jnp.abs(t.astype(jnp.float32)).max()])
        for e, t in zip(jax.tree.leaves(evaluated), jax.tree.leaves(trained), strict=True)
    ]
    gap, largest = jnp.stack(gaps).max(0)
    return jnp.where(jnp.isfinite(largest), gap / jnp.maximum(largest, np.float32(1e-6)), np.float32(0))


def no_statistics(state: State) -> State:
    """Returns the zero from which `add_statistics` sums, at least float32: leaves that are not floating-point are kept."""
    zero: State = jax.tree.map(lambda s: jnp.zeros_like(_at_least_float32(s)) if is_statistic(s) else s, state)
    return zero


def add_statistics(
    network: Stateful,
    total: State,
    params: Params,
    state: State,
    inputs: PyTree[Shaped[Array, "B ..."]],
    share: Scalar,
) -> State:
    """Returns `total + share * statistics of the batch`; summed over batches whose shares add up to 1 this is `reset_batch_stats`.

    For programs that loop over batches in Python. Arguments as there; `share` is a float32 scalar.
    """
    statistics = batch_statistics(network, params, state, inputs)
    factor = jnp.asarray(share)
    averages = _averages(_in_training(network, params, inputs), state)
    added: State = jax.tree.map(
        lambda t, s, average: t + s * factor.astype(t.dtype) if average else jnp.asarray(s, t.dtype),
        total,
        statistics,
        averages,
    )
    return added


def _in_training(
    network: Stateful, params: Params, inputs: PyTree[Shaped[Array, "B ..."]], weight: Shaped[Array, " B"] | None = None
) -> Callable[[State], State]:
    """A step in training mode without randomness, of the state alone."""
    without_randomness = [None] if network.wants_key else []
    return lambda state: network.train(params, state, inputs, weight, *without_randomness)[1]


def _averages(trained: Callable[[State], State], state: State) -> PyTree[bool]:
    """Of each leaf of a state whether it is a running average."""
    averages: PyTree[bool] = jax.tree.unflatten(
        jax.tree.structure(state), running_averages.running_averages(trained, state)
    )
    return averages


def _at_least_float32(leaf: Any) -> Any:
    """Half-precision statistics as float32: a share of a batch would be below their last digit."""
    half = is_statistic(leaf) and jnp.finfo(jnp.result_type(leaf)).bits < 32
    return jnp.asarray(leaf, jnp.float32) if half else leaf


def _widest(trained: Callable[[State], State], state: State) -> State:
    """The state in float32 at least, unless the network has half-precision types of its own."""
    wide = jax.tree.map(_at_least_float32, state)
    types = [jnp.result_type(leaf) for leaf in jax.tree.leaves(wide)]
    if types == [jnp.result_type(leaf) for leaf in jax.tree.leaves(state)]:
        return state
    try:
        after = jax.eval_shape(trained, wide)
    except (TypeError, ValueError):  # under strict promotion
        return state
    return wide if types == [leaf.dtype for leaf in jax.tree.leaves(after)] else state


def is_statistic(leaf: Any) -> bool:
    """Returns whether a leaf of a state may be a running average: floating-point."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def _high(leaf: Any) -> float:
    return float(2.0 ** (int(jnp.finfo(jnp.result_type(leaf)).maxexp) // 2))


@dataclasses.dataclass(frozen=True)
class Repaired:
    """A repaired network: `params` alone where `shift` is empty.

    Attributes:
      params: pytree like the fused model's: rescaled kernels, and biases where the layer has one.
      shift: by module path, (units,) to add to the outputs of layers that have no bias; see `apply`.
      layers: the module paths that were repaired.
      unknown: paths of layers that were left as they are because their units are not known: of Linen modules others than `nn.Dense`,
        `nn.DenseGeneral`, `nn.Conv` and `nn.ConvTranspose` that have a kernel, of functions kernels with several axes of units.
    """

    params: Params
    shift: dict[str, Float[Array, "..."]]
    layers: tuple[str, ...]
    unknown: tuple[str, ...] = ()

    def apply(self, network: nn.Module | Network, inputs: Shaped[Array, "B ..."]) -> Float[Array, "B ..."]:
        """Computes logits of the repaired network, shifts included."""

        def add(path: str, output: jax.Array) -> jax.Array:
            shift = self.shift.get(path)
            return output if shift is None else _affine(output, jnp.ones_like(shift), shift)

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
      ValueError: another number of weights than ends, a network with BatchNorm (`reset_batch_stats` is its repair), a
        layer to be repaired that the network runs more than once, or layers of a function that cannot be told apart.
    """
    shares = jnp.asarray(weights, jnp.float32)
    if shares.shape != (len(ends),) or not len(ends):
        raise ValueError(f"expected one weight for each of 1 or more ends, got {shares.shape} for {len(ends)}")
    layered = _layered(network, params, preprocess(inputs))
    moments = [_measure(layered, end) for end in ends]
    names = list(moments[0])
    chosen = set(names[:-1] if skip is None else [path for path in names if not skip(path)])
    goal: dict[str, list[Any]] = {
        path: [sum(share * m[path][i] for share, m in zip(shares, moments, strict=True)) for i in (0, 1)]
        for path in chosen
    }
    change: dict[str, tuple[jax.Array, jax.Array]] = {}

    def fix(path: str, output: jax.Array) -> jax.Array:
        if path not in chosen:
            return output
        if path in change:
            raise ValueError(f"{path!r} runs more than once: one rescaling cannot repair both, so skip it")
        mean, std = _moments(output)
        scale = jnp.where(std > 0, goal[path][1] / jnp.where(std > 0, std, np.float32(1)), np.float32(1))
        change[path] = scale, goal[path][0] - mean * scale
        return _affine(output, *change[path])

    layered.run(params, fix)
    shift: dict[str, jax.Array] = {}
    flat = dict(trees.named_leaves(params))
    for path, (scale, offset) in change.items():
        new, rest = layered.scaled(path, flat, scale, offset)
        flat |= new
        if rest is not None:
            shift[path] = rest
    return Repaired(trees.like(params, list(flat.values())), shift, tuple(change), layered.unknown)


def _moments(output: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation of each unit (the last axis) over examples and positions, float32.

    The deviation of a unit whose values differ by rounding only is 0, which that around a rounded mean is not.
    """
    flat = output.astype(jnp.float32).reshape(-1, output.shape[-1])
    constant = jnp.ptp(flat, 0) <= np.float32(1e-6) * jnp.abs(flat).max(0)
    return flat.mean(0), jnp.where(constant, np.float32(0), flat.std(0))


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
