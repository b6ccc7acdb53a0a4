"""BatchNorm's running statistics estimated anew, and whether that gives what evaluation reads."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, Shaped

from tna_jax import sharding
from tna_jax.masks import Params
from tna_jax.networks import Network, State, Stateful
from tna_jax.repair import running_averages

Scalar = float | Shaped[Array | np.ndarray | np.number, ""]


RESET_TOLERANCE = 0.05
"""How far, relative to the largest output, evaluation after a reset may be from training mode on the same batch."""


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
        (`tna_jax.repair.running_averages`).
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
