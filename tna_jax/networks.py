"""What a network is to the rest of the library: a function of parameters and inputs, or two if it has a state.

The state is what training changes without a gradient: BatchNorm's running statistics. `linen` makes
these from a Linen module; for other frameworks they are a few lines of the user's own.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tna_jax.masks import Params

State = Any
"""A pytree of arrays, `()` for networks without state."""

Apply = Callable[[Params, jax.Array], jax.Array]
"""A network without state: parameters and a batch of inputs (B, ...) to logits (B, C)."""


@dataclasses.dataclass(frozen=True)
class Stateful:
    """A network with state, as two functions.

    Attributes:
      train: (params, state, inputs (B, ...), weight) -> (logits (B, C), new state). `weight` is (B,) float, 0 for padding
        that must not enter the statistics, or `None` if there is no padding.
      evaluate: (params, state, inputs (B, ...)) -> logits (B, C). Reads the state only.
    """

    train: Callable[[Params, State, jax.Array, jax.Array | None], tuple[jax.Array, State]]
    evaluate: Callable[[Params, State, jax.Array], jax.Array]


Network = Apply | Stateful


def train(
    network: Network, params: Params, state: State, inputs: jax.Array, weight: jax.Array | None
) -> tuple[jax.Array, State]:
    """Logits in training mode and the state after the batch; any network.

    Args:
      network: with a state or without one.
      params: of one model.
      state: of that model, `()` without one, which is then returned as it is.
      inputs: (B, ...).
      weight: (B,) float, 0 for padding, or `None` if there is none.
    """
    if isinstance(network, Stateful):
        return network.train(params, state, inputs, weight)
    return network(params, inputs), state


def evaluate(network: Network, params: Params, state: State, inputs: jax.Array) -> jax.Array:
    """Logits in evaluation mode; any network."""
    return network.evaluate(params, state, inputs) if isinstance(network, Stateful) else network(params, inputs)


def linen(
    module: nn.Module,
    shape: tuple[int, ...],
    preprocess: Callable[[jax.Array], jax.Array] = lambda x: x,
    dtype: Any = jnp.float32,
) -> tuple[Network, Callable[[jax.Array], tuple[Params, State]]]:
    """A Linen module as a `Network`, and its initialisation.

    A module that makes a `batch_stats` collection becomes a `Stateful` network; it must then be callable as
    `module(x, train=..., weight=...)`, like those of `tna_jax.models`.

    Args:
      module: the network.
      shape: of one input as the module takes it, without the batch axis: (H, W, C), or (T,) token ids.
      preprocess: stored inputs to what the module takes (scaling); run first.
      dtype: of what the module takes; an integer one for token ids.

    Returns:
      The network, and `init(key) -> (params, state)`.

    Raises:
      ValueError: the module has other collections than `params` and `batch_stats`.
    """

    def variables(key: jax.Array):
        return module.init(key, jnp.zeros((1, *shape), dtype))

    collections = set(jax.eval_shape(variables, jax.random.key(0)))
    if collections - {"params", "batch_stats"}:
        raise ValueError(f"{type(module).__name__} has collections that are not known here: {', '.join(collections)}")

    def init(key: jax.Array) -> tuple[Params, State]:
        made = variables(key)
        return made["params"], made.get("batch_stats", ())

    if "batch_stats" not in collections:

        def plain(params: Params, inputs: jax.Array) -> jax.Array:
            logits: Any = module.apply({"params": params}, preprocess(inputs))
            return logits

        return plain, init

    def trained(params: Params, state: State, inputs: jax.Array, weight: jax.Array | None):
        both = {"params": params, "batch_stats": state}
        options: dict[str, Any] = {"train": True, "weight": weight, "mutable": ["batch_stats"]}
        made: Any = module.apply(both, preprocess(inputs), **options)
        return made[0], made[1]["batch_stats"]

    def evaluated(params: Params, state: State, inputs: jax.Array) -> jax.Array:
        logits: Any = module.apply({"params": params, "batch_stats": state}, preprocess(inputs))
        return logits

    return Stateful(trained, evaluated), init
