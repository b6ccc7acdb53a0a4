"""Types that stay the same from step to step: one compiled program, and a loop can carry what is trained."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def at_least_float32(dtype: Any) -> Any:
    """Returns the dtype itself, or float32 for a narrower floating-point one."""
    return jnp.float32 if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32 else dtype


def as_types(tree: Any, like: Any) -> Any:
    """`tree` with the dtypes of `like`, a tree of the same structure, where both are arrays of numbers."""

    def cast(x: Any, other: Any) -> Any:
        numbers = all(jnp.issubdtype(jnp.result_type(y), jnp.number) for y in (x, other))
        return jax.lax.convert_element_type(x, jnp.result_type(other)) if numbers else x

    structures: list[Any] = [jax.tree.structure(x) for x in (tree, like)]
    return jax.tree.map(cast, tree, like) if structures[0] == structures[1] else tree


def strong_typed(value: Any) -> Any:
    """An array of a type of its own: of a weak one (`jnp.full(shape, 0.1)`) a step would make another, and be compiled twice."""
    # NumPy's not by `jnp.asarray`, which may compile for a shape; and copied, since `device_put` shares its memory on a CPU, even if
    # told not to, and the caller may write into it later.
    array = jax.device_put(np.array(value)) if isinstance(value, np.ndarray) else jnp.asarray(value)
    return jnp.asarray(array, array.dtype) if getattr(array, "weak_type", False) else array
