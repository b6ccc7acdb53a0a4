"""A network of the user's own in bfloat16 (`--precision bf16`): parameters and inputs are rounded, its code stays as it is."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from tna_jax.networks import Network, Stateful, Stochastic


def rounded(tree: Any) -> Any:
    """Returns the tree with float32 leaves as bfloat16; others are kept."""
    return jax.tree.map(lambda x: x.astype(jnp.bfloat16) if x.dtype == jnp.float32 else x, tree)


def rounded_inputs(preprocess: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns the preprocessing with its result in bfloat16."""
    return lambda inputs: rounded(preprocess(inputs))


def in_bfloat16(network: Network) -> Network:
    """Returns the network with parameters rounded to bfloat16 and outputs in float32; a state keeps its dtypes."""
    if isinstance(network, Stateful):
        train, evaluate = network.train, network.evaluate

        def in_training(params: Any, state: Any, *rest: Any) -> Any:
            outputs, new = train(rounded(params), state, *rest)
            return _float32(outputs), jax.tree.map(lambda n, s: n.astype(s.dtype), new, state)

        return dataclasses.replace(
            network,
            train=in_training,
            evaluate=lambda params, state, inputs: _float32(evaluate(rounded(params), state, inputs)),
        )
    if isinstance(network, Stochastic):
        noisy, still = network.train, network.evaluate
        return Stochastic(
            lambda params, inputs, key: _float32(noisy(rounded(params), inputs, key)),
            lambda params, inputs: _float32(still(rounded(params), inputs)),
        )
    return lambda params, inputs: _float32(network(rounded(params), inputs))


def _float32(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, tree)
