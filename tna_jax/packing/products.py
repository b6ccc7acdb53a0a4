"""A product with a kernel whose anchored columns get no gradient formed: the `dot_general=` of Linen's and NNX's layers.

A layer's backward pass has two products of equal size, one for its inputs and one for its kernel. Where whole units are anchored
(`masks.neurons`), the second needs the other units' columns only.
"""

import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax.masks import Mask


class DotGeneral(Protocol):
    """What `dot_general=` of a layer takes: called as `jax.lax.dot_general`."""

    def __call__(self, lhs: Any, rhs: Any, dimension_numbers: Any, *args: Any, **options: Any) -> jax.Array: ...


def live_dot_general(mask: Mask) -> DotGeneral:
    """Returns a `dot_general` whose kernel gradient is formed for the columns that train, and is exactly zero in the others.

    Args:
      mask: of the layer's kernel, bool, `True` = trainable, values and not traced ones; a column (an output unit, over all trailing
        axes that are not contracted) trains if any of its entries does. Entries that are anchored one by one keep their gradients,
        so the optimizer still needs `anchored` or `compact`.

    Returns:
      A function like `jax.lax.dot_general` for products of any array with this kernel on the right, without batch axes: Linen's
      `Dense` and `DenseGeneral`, NNX's `Linear` and `LinearGeneral`. Its value and the gradient of the left operand are those of
      `jax.lax.dot_general`; reverse mode only (`jax.grad`, `jax.vjp`). Where every column trains it is `jax.lax.dot_general`.

    Raises:
      TypeError: a traced mask, or one that is not bool.
      ValueError: when called, a kernel of another shape than the mask, or batch axes.

    Example:
      >>> mask = np.arange(6).reshape(1, 6) % 2 == np.zeros((4, 1))
      >>> x, kernel, multiply = jnp.ones((2, 4)), jnp.ones((4, 6)), live_dot_general(mask)
      >>> jax.grad(lambda w: multiply(x, w, (((1,), (0,)), ((), ()))).sum())(kernel)[0].tolist()
      [2.0, 0.0, 2.0, 0.0, 2.0, 0.0]
    """
    if isinstance(mask, jax.core.Tracer):
        raise TypeError(
            "live_dot_general(mask) needs the values of its mask, which is traced here: make it outside jit and vmap"
        )
    trains = np.asarray(mask)
    if trains.dtype != bool:
        raise TypeError(f"live_dot_general(mask) takes a kernel's mask of bools, got {trains.dtype}")
    if trains.all():
        return jax.lax.dot_general

    def dot_general(lhs: Any, rhs: Any, dimension_numbers: Any, *args: Any, **options: Any) -> jax.Array:
        (left, right), batch = dimension_numbers
        if np.shape(rhs) != trains.shape:
            raise ValueError(f"this product was made for a kernel of shape {trains.shape}, got one of {np.shape(rhs)}")
        if any(map(len, batch)):
            raise ValueError(f"live_dot_general is for products without batch axes, got {batch}")
        rows = tuple(axis % trains.ndim for axis in right)
        columns = tuple(axis for axis in range(trains.ndim) if axis not in rows)
        live = np.flatnonzero(trains.any(axis=rows))
        if len(live) == trains.any(axis=rows).size:
            return jax.lax.dot_general(lhs, rhs, dimension_numbers, *args, **options)
        multiply = functools.partial(jax.lax.dot_general, dimension_numbers=dimension_numbers)
        product = _product(
            lambda a, b: multiply(a, b, *args, **options),
            tuple(axis % np.ndim(lhs) for axis in left),
            rows,
            columns,
            live,
        )
        result: jax.Array = product(lhs, rhs)
        return result

    return dot_general


def _product(
    multiply: Any, left: tuple[int, ...], rows: tuple[int, ...], columns: tuple[int, ...], live: np.ndarray
) -> Any:
    """The product of two arrays with its own derivative."""

    @jax.custom_vjp
    def product(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
        result: jax.Array = multiply(lhs, rhs)
        return result

    def forward(lhs: jax.Array, rhs: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        return multiply(lhs, rhs), (lhs, rhs)

    def backward(kept: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
        lhs, rhs = kept
        (of_lhs,) = jax.linear_transpose(lambda a: multiply(a, rhs), lhs)(cotangent)
        shape = [rhs.shape[axis] for axis in columns]
        size = int(np.prod(shape))
        # The kernel as a matrix, its live columns alone: their gradient comes from the cotangent's live columns.
        matrix = jnp.transpose(rhs, (*rows, *columns)).reshape(*(rhs.shape[axis] for axis in rows), size)
        narrow = matrix[..., live]
        contracted = ((left, tuple(range(len(rows)))), ((), ()))
        flat = cotangent.reshape(*cotangent.shape[: cotangent.ndim - len(columns)], size)[..., live]
        product_of = functools.partial(
            jax.lax.dot_general, dimension_numbers=contracted, preferred_element_type=cotangent.dtype
        )
        (of_narrow,) = jax.linear_transpose(lambda b: product_of(lhs, b), narrow)(flat)
        place = np.zeros(size, np.int32)
        place[live] = np.arange(len(live))
        trains = np.isin(np.arange(size), live).reshape((1,) * (matrix.ndim - 1) + (size,))
        spread = jnp.where(trains, of_narrow.astype(rhs.dtype)[..., place], jnp.zeros_like(matrix))
        order = np.argsort((*rows, *columns))
        of_rhs = spread.reshape(*(rhs.shape[axis] for axis in (*rows, *columns))).transpose(tuple(order))
        return of_lhs, of_rhs

    product.defvjp(forward, backward)
    return product
