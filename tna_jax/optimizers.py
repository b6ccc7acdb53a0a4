"""What may stand where an optimizer is expected, what is often given there by mistake, and the types in which it computes."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax


def as_transformation(
    optimizer: Any, taker: str = "anchored(optimizer, mask)"
) -> optax.GradientTransformationExtraArgs:
    """Returns an optimizer as an optax transformation that takes extra arguments (`value=`, `value_fn=`, ...).

    Args:
      optimizer: an optax transformation, or an object with `init` and `update` like one (`optax.MultiSteps`).
      taker: the call that it is given to, for the message.

    Raises:
      TypeError: a mask or parameters, an optimizer that was not called (`optax.adam`), or anything else.
    """
    if isinstance(optimizer, optax.GradientTransformation):
        return optax.with_extra_args_support(optimizer)
    if callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None)):
        return optax.GradientTransformationExtraArgs(optimizer.init, optimizer.update)
    if isinstance(getattr(optimizer, "tx", None), optax.GradientTransformation):
        raise TypeError(
            f"{taker} takes the transformation, not the {type(optimizer).__name__} around it: give its `.tx`"
        )
    if callable(optimizer):
        name = uncalled(optimizer) or getattr(optimizer, "__name__", type(optimizer).__name__)
        raise TypeError(f"{taker} takes an optimizer, and {name} makes one: call it, {name}(...)")
    what = "a mask or parameters" if jax.tree.leaves(optimizer) else repr(optimizer)
    raise TypeError(f"{taker} takes an optax optimizer, got {what} ({type(optimizer).__name__}) in its place")


def is_transformation(value: Any) -> bool:
    """Returns whether a value is an optimizer: has `init` and `update`."""
    return callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))


def uncalled(function: Callable[..., Any]) -> str:
    """Returns the name of a function of optax that makes an optimizer (`optax.adam`), also inside `functools.partial`; else `""`."""
    while isinstance(function, functools.partial):
        function = function.func
    module = getattr(function, "__module__", "") or ""
    name = getattr(function, "__name__", "")
    if module.split(".")[0] != "optax" or not name or "<" in getattr(function, "__qualname__", name):
        return ""
    return f"optax.contrib.{name}" if ".contrib" in module else f"optax.{name}"


def is_float16(leaf: Any) -> bool:
    """Returns whether a leaf is an array of float16."""
    return bool(getattr(leaf, "dtype", None) == jnp.float16)


def in_float32(tree: Any) -> Any:
    """Returns a tree whose leaves of float16 are float32, as optimizers need them: in float16 the epsilon of Adam and its kin is 0."""
    return jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32) if is_float16(leaf) and hasattr(leaf, "astype") else leaf, tree
    )  # shapes stay


def steepest(gradients: Any) -> Any:
    """Returns gradients of `jax.grad` as optimizers take them, in the direction of steepest ascent: those of complex parameters conjugated.

    JAX's gradient by a complex number is the conjugate of that direction; steps along it would climb in the imaginary part.
    """
    return jax.tree.map(lambda g: jnp.conj(g) if jnp.iscomplexobj(g) else g, gradients)


def in_types_of(tree: Any, like: Any) -> Any:
    """Returns a tree back in float16 where `like`, of the same leaves, is so."""
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(like), strict=True)
    leaves = [leaf.astype(jnp.float16) if is_float16(other) else leaf for leaf, other in pairs]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)
