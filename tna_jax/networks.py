"""What a network is to the rest of the library: a function of parameters and inputs, or two if it has a state.

The state is what training changes without a gradient: BatchNorm's running statistics. `linen` makes
these from a Linen module; for other frameworks they are a few lines of the user's own.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree, Shaped

from tna_jax import program_cache, sharding
from tna_jax.masks import Params

State = Any
"""A pytree of arrays, `()` for networks without state."""

Inputs: TypeAlias = PyTree[Shaped[Array, "B ..."]]
"""A batch, (B, ...) in every leaf."""

Apply = Callable[[Params, jax.Array], jax.Array]
"""A network without state or randomness: parameters and a batch of inputs (B, ...) to logits (B, C)."""


@dataclasses.dataclass(frozen=True)
class Stateful:
    """A network with state, as two functions.

    Attributes:
      train: (params, state, inputs (B, ...), weight) -> (logits (B, C), new state). `weight` is (B,) float, 0 for padding
        that must not enter the statistics, or `None` if there is no padding.
        With `wants_key` it takes a fifth argument, the key of the step; `None` is training mode without randomness, in
        which running statistics are estimated.
      evaluate: (params, state, inputs (B, ...)) -> logits (B, C). Reads the state only.
      wants_key: whether `train` draws random numbers (dropout) and takes a key.
      settled: state -> state, run on statistics that were estimated anew (`repair.reset_batch_stats`) where a state holds
        more than the averages, say a count by which they are corrected; `None`: nothing to do.
    """

    train: Callable[..., tuple[jax.Array, State]]
    evaluate: Callable[[Params, State, jax.Array], jax.Array]
    wants_key: bool = False
    settled: Callable[[State], State] | None = None


@dataclasses.dataclass(frozen=True)
class Stochastic:
    """A network without state that draws random numbers in training: dropout, noise.

    Attributes:
      train: (params, inputs (B, ...), key) -> logits (B, C).
      evaluate: (params, inputs (B, ...)) -> logits (B, C).
    """

    train: Callable[[Params, jax.Array, jax.Array], jax.Array]
    evaluate: Apply


Network = Apply | Stateful | Stochastic


def wants_key(network: Network) -> bool:
    """Returns whether a network draws random numbers in training, so that `train` needs a key."""
    return isinstance(network, Stochastic) or (isinstance(network, Stateful) and network.wants_key)


def train(
    network: Network,
    params: Params,
    state: State,
    inputs: Inputs,
    weight: Float[Array, "..."] | None,
    key: Key[Array, ""] | None = None,
) -> tuple[Float[Array, "B ..."], State]:
    """Computes logits in training mode, and the state after the batch; any network.

    Args:
      network: with a state or without one.
      params: of one model.
      state: of that model, `()` without one, which is then returned as it is.
      inputs: (B, ...).
      weight: (B,) float, 0 for padding, or `None` if there is none.
      key: of this step, one typed key; only networks with randomness read it.

    Returns:
      Logits (B, C) or (B, K, C), and the new state.

    Raises:
      ValueError: a network with randomness (see `wants_key`) and no key.
    """
    if wants_key(network) and key is None:
        raise ValueError("this network draws random numbers in training (dropout): give a key for the step")
    params = sharding.unconstrained(params)
    if isinstance(network, Stochastic):
        assert key is not None
        return network.train(params, inputs, key), state
    if isinstance(network, Stateful):
        return network.train(params, state, inputs, weight, *([key] if network.wants_key else []))
    return network(params, inputs), state


def evaluate(network: Network, params: Params, state: State, inputs: Inputs) -> Float[Array, "B ..."]:
    """Computes logits in evaluation mode; any network. Arguments as in `train`."""
    params = sharding.unconstrained(params)
    if isinstance(network, Stateful):
        return network.evaluate(params, state, inputs)
    return network.evaluate(params, inputs) if isinstance(network, Stochastic) else network(params, inputs)


def linen(
    module: nn.Module,
    shape: tuple[int, ...],
    preprocess: Callable[[jax.Array], jax.Array] = lambda x: x,
    dtype: Any = jnp.float32,
) -> tuple[Network, Callable[[Key[Array, ""]], tuple[Params, State]]]:
    """Returns a Linen module as a `Network`, and its initialization.

    A module that makes a `batch_stats` collection becomes a `Stateful` network, called as `module(x, train=..., weight=...)` like
    those of `tna_jax.models`. A module with dropout, or with `batch_stats` and another call, becomes what
    `tna_jax.from_linen` makes of it.

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

    network = _Linen(module, shape, preprocess, dtype)
    collections, drops = _looked_at(network)
    if collections - {"params", "batch_stats"}:
        raise ValueError(
            f"{type(module).__name__} has collections other than params and batch_stats: {', '.join(collections)}"
        )

    if drops or ("batch_stats" in collections and not {"train", "weight"} <= _call_options(module)):
        from tna_jax.frameworks import from_linen

        model = from_linen(module, jax.ShapeDtypeStruct((1, *shape), dtype), preprocess=preprocess)
        return model.network, model.init
    if "batch_stats" not in collections:
        return network.stateless, network.init
    return Stateful(network.in_training, network.in_evaluation), network.init


@program_cache.by_contents(128)
def _looked_at(network: "_Linen") -> tuple[frozenset[str], bool]:
    """Returns the collections that a module makes, and whether it draws random numbers in training; it is traced for that."""
    drops: list[bool] = []

    def look(call: Callable[..., Any], arguments: Any, options: Any, context: Any) -> Any:
        drops.append(draws_in_training(context.module))
        return call(*arguments, **options)

    with nn.intercept_methods(look):
        collections = frozenset(jax.eval_shape(network.variables, jax.random.key(0)))
    return collections, any(drops)


@dataclasses.dataclass(frozen=True)
class _Linen:
    """How a Linen module is called. Programs are found by what it holds (`program_cache`): equal modules share them."""

    module: nn.Module
    shape: tuple[int, ...]
    preprocess: Callable[[jax.Array], jax.Array]
    dtype: Any

    def variables(self, key: jax.Array) -> dict[str, Any]:
        drawn: Any = self.module.init(key, jnp.zeros((1, *self.shape), self.dtype))
        return dict(drawn)

    def init(self, key: jax.Array) -> tuple[Params, State]:
        drawn = self.variables(key)
        return drawn["params"], drawn.get("batch_stats", ())

    def stateless(self, params: Params, inputs: jax.Array) -> jax.Array:
        logits: Array = self._apply({"params": params}, inputs)
        return logits

    def in_training(
        self, params: Params, state: State, inputs: jax.Array, weight: jax.Array | None
    ) -> tuple[Array, State]:
        both = {"params": params, "batch_stats": state}
        outputs: tuple[Array, Any] = self._apply(both, inputs, train=True, weight=weight, mutable=["batch_stats"])
        return outputs[0], outputs[1]["batch_stats"]

    def in_evaluation(self, params: Params, state: State, inputs: jax.Array) -> jax.Array:
        logits: Array = self._apply({"params": params, "batch_stats": state}, inputs)
        return logits

    def _apply(self, variables: dict[str, Any], inputs: jax.Array, **options: Any) -> Any:
        return self.module.apply(variables, self.preprocess(inputs), **options)


def draws_in_training(module: nn.Module) -> bool:
    """Returns whether a Linen layer is dropout with a rate above 0, its own or inside it (attention)."""
    rate = getattr(module, "rate" if isinstance(module, nn.Dropout) else "dropout_rate", 0)
    return isinstance(rate, (int, float)) and rate > 0


def _call_options(module: nn.Module) -> set[str]:
    return set(inspect.signature(type(module).__call__).parameters)
