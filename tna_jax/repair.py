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
from jaxtyping import Array, Float, Shaped

from tna_jax import interpolation
from tna_jax.masks import Params
from tna_jax.networks import State, Stateful

Scalar = float | Shaped[Array | np.ndarray | np.number, ""]


def batch_statistics(
    network: Stateful,
    params: Params,
    state: State,
    inputs: Shaped[Array, "B ..."],
    weight: Shaped[Array, " B"] | None = None,
) -> State:
    """Computes the statistics of one batch, freed from the running average's momentum and start.

    A running average is `new = m * old + (1 - m) * batch`. Training mode is run with `old` = 0 and `old` = K, in one pass
    (only the averages differ), which gives m and the batch's own value, whatever the momentum. K is a power of two far
    above any statistic (2^64 in float32), so that m keeps its digits beside large statistics. Dropout is off, as it is when
    the network is evaluated.

    Args:
      network: the network; each floating-point leaf of its state must be such an average with m < 1.
      params, state: of one model; of `state` only the shapes are read, but leaves that are not floating-point are kept.
      inputs: (B, ...); weight: (B,), 0 for padding, or None.
    """

    def starts(leaf: Array) -> Array:
        return jnp.stack([jnp.zeros_like(leaf), jnp.full_like(leaf, _high(leaf))] if _floating(leaf) else [leaf, leaf])

    without_randomness = [None] if network.wants_key else []
    new = jax.vmap(lambda s: network.train(params, s, inputs, weight, *without_randomness)[1])(
        jax.tree.map(starts, state)
    )
    statistics: State = jax.tree.map(
        lambda n, s: n[0] / (1 - (n[1] - n[0]) / _high(s)) if _floating(s) else s, new, state
    )
    return statistics if network.settled is None else network.settled(statistics)


def reset_batch_stats(
    network: Stateful,
    params: Params,
    state: State,
    inputs: Shaped[Array, "N ..."],
    *,
    batch_size: int = 500,
) -> State:
    """Computes running statistics of `params`, estimated anew: the mean over batches of each batch's statistics.

    Every example counts once; within a batch the network normalizes by the batch's own statistics, as in training. For
    fused BatchNorm networks, where REPAIR's rescaling amounts to this.

    Args:
      network: the network in training and evaluation mode.
      params: pytree of one model's parameters.
      state: pytree of its state, of which floating-point leaves are replaced; only their shapes are read.
      inputs: (N, ...) training inputs as the network takes them, N >= 1; 2,000 are usually enough.
      batch_size: examples per pass, >= 1; a smaller rest is a batch of its own.

    Returns:
      The new state. Works under `jit`, `vmap` and `lax.map`.

    Raises:
      ValueError: no inputs, or a batch size below 1.
    """
    examples = inputs.shape[0]
    if examples < 1:
        raise ValueError("statistics need at least one input")
    if batch_size < 1:
        raise ValueError(f"the batch size must be at least 1, got {batch_size}")
    size = min(batch_size, examples)
    full = examples // size  # batches
    total = no_statistics(state)
    if examples > size:
        batches = inputs[: full * size].reshape(full, size, *inputs.shape[1:])
        share = np.float32(size / examples)

        def step(total: State, batch: Array) -> tuple[State, None]:
            return add_statistics(network, total, params, state, batch, share), None

        total, _ = jax.lax.scan(step, total, batches)
        inputs = inputs[full * size :]
    if inputs.shape[0]:
        total = add_statistics(network, total, params, state, inputs, np.float32(inputs.shape[0] / examples))
    return total


def no_statistics(state: State) -> State:
    """Returns the zero from which `add_statistics` sums: leaves that are not floating-point are kept."""
    zero: State = jax.tree.map(lambda s: jnp.zeros_like(s) if _floating(s) else s, state)
    return zero


def add_statistics(
    network: Stateful,
    total: State,
    params: Params,
    state: State,
    inputs: Shaped[Array, "B ..."],
    share: Scalar,
) -> State:
    """Returns `total + share * statistics of the batch`; summed over batches whose shares add up to 1 this is `reset_batch_stats`.

    For programs that loop over batches in Python. Arguments as there; `share` is a float32 scalar.
    """
    statistics = batch_statistics(network, params, state, inputs)
    factor = jnp.asarray(share)
    added: State = jax.tree.map(lambda t, s: t + s * factor.astype(t.dtype) if _floating(t) else s, total, statistics)
    return added


def _floating(leaf: Any) -> bool:
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
    """

    params: Params
    shift: dict[str, Float[Array, "..."]]
    layers: tuple[str, ...]

    def apply(self, module: nn.Module, inputs: Shaped[Array, "B ..."]) -> Float[Array, "B ..."]:
        """Computes logits of the repaired network, shifts included."""

        def add(path: str, output: jax.Array) -> jax.Array:
            shift = self.shift.get(path)
            return output if shift is None else _affine(output, jnp.ones_like(shift), shift)

        logits: Array = _run(module, self.params, inputs, add)
        return logits


def repair(
    module: nn.Module,
    params: Params,
    ends: Sequence[Params],
    weights: Sequence[Scalar] | Shaped[Array | np.ndarray, "..."],
    inputs: Shaped[Array, "N ..."],
    *,
    skip: Callable[[str], bool] | None = None,
    preprocess: Callable[[Any], Any] = lambda x: x,
) -> Repaired:
    """Rescales hidden units by REPAIR in closed form, for a Linen network without BatchNorm (arXiv 2211.08403, section 4).

    Every dense and convolutional layer but the last is rescaled and shifted, unit by unit, so that over `inputs` the mean
    and standard deviation of its outputs (before the non-linearity) are the weighted means of the ends' means and standard
    deviations. Layers are repaired in the order in which the network runs them, each on the outputs of those before.

    Args:
      module: the network, `module.apply({"params": params}, x) -> (B, C)`; convolutions and dense layers are `nn.Conv`
        and `nn.Dense` or subclasses of them.
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
      ValueError: another number of weights than ends, a network with BatchNorm (`reset_batch_stats` is its repair), or a
        layer to be repaired that the network runs more than once.
    """
    shares = jnp.asarray(weights, jnp.float32)
    if shares.shape != (len(ends),) or not len(ends):
        raise ValueError(f"expected one weight for each of 1 or more ends, got {shares.shape} for {len(ends)}")
    inputs = preprocess(inputs)
    moments = [_measure(module, end, inputs) for end in ends]
    layers = list(moments[0])
    chosen = set(layers[:-1] if skip is None else [path for path in layers if not skip(path)])
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

    _run(module, params, inputs, fix)
    shift: dict[str, jax.Array] = {}
    flat = {tuple(p.key for p in path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]}
    for path, (scale, offset) in change.items():
        at = tuple(path.split("/"))
        kernel = flat[*at, "kernel"]
        flat[*at, "kernel"] = _affine(kernel, scale)
        if (*at, "bias") in flat:
            flat[*at, "bias"] = _affine(flat[*at, "bias"], scale, offset)
        else:
            shift[path] = offset
    leaves = [flat[tuple(p.key for p in path)] for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    return Repaired(jax.tree.unflatten(jax.tree.structure(params), leaves), shift, tuple(change))


def _moments(output: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation of each unit (the last axis) over examples and positions, float32.

    The deviation of a unit whose values differ by rounding only is 0, which that around a rounded mean is not.
    """
    flat = output.astype(jnp.float32).reshape(-1, output.shape[-1])
    constant = jnp.ptp(flat, 0) <= np.float32(1e-6) * jnp.abs(flat).max(0)
    return flat.mean(0), jnp.where(constant, np.float32(0), flat.std(0))


def _affine(values: jax.Array, scale: jax.Array, offset: jax.Array | None = None) -> jax.Array:
    """`values * scale + offset` along the last axis, in float32; the dtype of `values` is kept."""
    scaled = values.astype(jnp.float32) * _along_units(scale, values)
    return (scaled if offset is None else scaled + _along_units(offset, values)).astype(values.dtype)


def _along_units(values: jax.Array, like: jax.Array) -> jax.Array:
    return values.reshape((1,) * (like.ndim - 1) + (-1,))


def _measure(module: nn.Module, params: Params, inputs: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Moments of every layer's outputs, by module path, in the order of the network."""
    moments: dict[str, tuple[jax.Array, jax.Array]] = {}

    def look(path: str, output: jax.Array) -> jax.Array:
        moments[path] = _moments(output)
        return output

    _run(module, params, inputs, look)
    return moments


def _run(module: nn.Module, params: Params, inputs: jax.Array, edit: Callable[[str, jax.Array], jax.Array]) -> Any:
    """Applies the network with `edit(path, output)` on the output of every dense and convolutional layer."""

    def intercept(call: Callable[..., Any], arguments: Any, options: Any, context: Any) -> Any:
        if isinstance(context.module, nn.BatchNorm):
            raise ValueError("this network has BatchNorm: use reset_batch_stats, which is its repair")
        output = call(*arguments, **options)
        layer = isinstance(context.module, nn.Dense | nn.Conv) and context.method_name == "__call__"
        return edit("/".join(context.module.path), output) if layer else output

    with nn.intercept_methods(intercept):
        return module.apply({"params": params}, inputs)


def repair_line(
    module: nn.Module, a: Params, b: Params, alpha: Scalar, inputs: Shaped[Array, "N ..."], **options: Any
) -> Repaired:
    """Runs `repair` on the model at `alpha` on the line from `a` to `b`; arguments and options as there."""
    weights = jnp.asarray([1 - alpha, alpha], jnp.float32)
    return repair(module, interpolation.line(a, b, alpha), [a, b], weights, inputs, **options)
