"""The features of a network: what its last dense layer reads."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from tna_jax import networks
from tna_jax.masks import Params
from tna_jax.networks import Network, State


def penultimate(
    module: nn.Module | Network, preprocess: Callable[[jax.Array], jax.Array] = lambda x: x
) -> Callable[[Params, State, jax.Array], jax.Array]:
    """Returns a function (params, state, inputs (B, ...)) -> (B, F): the inputs of the dense layer that a Linen module runs last.

    Args:
      module: as for `tna_jax.networks.linen`, or a network that was made of one (`from_linen`); run in evaluation mode.
      preprocess: stored inputs to what it takes.

    Raises:
      ValueError: when called, if the module runs no dense layer.
    """

    def features(params: Params, state: State, inputs: jax.Array) -> jax.Array:
        seen: list[jax.Array] = []

        def watch(
            following: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any], context: Any
        ) -> Any:
            if isinstance(context.module, nn.Dense) and context.method_name == "__call__":
                seen.append(arguments[0])
            return following(*arguments, **options)

        with nn.intercept_methods(watch):
            evaluate(module, params, state, preprocess(inputs))
        if not seen:
            raise ValueError(f"{title(module)} runs no dense layer of Linen: give features of your own")
        return seen[-1].reshape(inputs.shape[0], -1)

    return features


def evaluate(module: nn.Module | Network, params: Params, state: State, inputs: Any) -> Any:
    """Runs a Linen module, or a network, in evaluation mode."""
    if not isinstance(module, nn.Module):
        return networks.evaluate(module, params, state, inputs)
    return module.apply({"params": params, **({"batch_stats": state} if jax.tree.leaves(state) else {})}, inputs)


def title(module: nn.Module | Network) -> str:
    """Returns what a module or network is called in messages."""
    return type(module).__name__ if isinstance(module, nn.Module) else "the network"
