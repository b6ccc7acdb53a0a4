"""The features of a network: what its last dense layer reads."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from tna_jax.masks import Params
from tna_jax.networks import State


def penultimate(
    module: nn.Module, preprocess: Callable[[jax.Array], jax.Array] = lambda x: x
) -> Callable[[Params, State, jax.Array], jax.Array]:
    """Returns a function (params, state, inputs (B, ...)) -> (B, F): the inputs of the dense layer that a Linen module runs last.

    Args:
      module: as for `tna_jax.networks.linen`; run in evaluation mode.
      preprocess: stored inputs to what the module takes.

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

        variables: dict[str, Any] = {"params": params}
        if jax.tree.leaves(state):
            variables["batch_stats"] = state
        with nn.intercept_methods(watch):
            module.apply(variables, preprocess(inputs))
        if not seen:
            raise ValueError(f"{type(module).__name__} runs no dense layer: give features of your own")
        return seen[-1].reshape(inputs.shape[0], -1)

    return features
