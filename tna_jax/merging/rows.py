"""Which axes of a tensor are a unit's inputs: told by the tensor's name, as `masks.neurons` does."""

from collections.abc import Callable

from tna_jax.merging.method import Array


def inputs_first(name: str) -> bool:
    """Returns whether a tensor has its inputs on the first axes: a Flax `kernel` (in, out); others, as PyTorch's `weight`, have (out, in)."""
    return name.replace(".", "/").rsplit("/", 1)[-1] == "kernel"


def by_unit(tensor: Array, name: str, function: Callable[[Array], Array]) -> Array:
    """Applies `function` of (units, inputs) to a tensor; one with a single axis is one row. Returns an array of the tensor's shape."""
    if tensor.ndim < 2:
        return function(tensor.reshape(1, -1)).reshape(tensor.shape)
    if inputs_first(name):
        columns = tensor.reshape(-1, tensor.shape[-1])
        return function(columns.T).T.reshape(tensor.shape)
    return function(tensor.reshape(tensor.shape[0], -1)).reshape(tensor.shape)
