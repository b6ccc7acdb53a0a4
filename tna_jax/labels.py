"""Class labels: integers from 0 on, one for each example, of any integer type.

What they are often kept as instead is refused by name, with what to do: a column (N, 1), one-hot rows (N, C), words, fractions, a
number that stands for "unlabeled".
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, Integer


def class_numbers(labels: Integer[Any, "*S"] | Bool[Any, "*S"]) -> Int32[Array, "*S"]:
    """Returns labels of any integer type as int32, in which they can be compared with any number of classes; may be traced.

    Raises:
      ValueError: labels that are not integers.
    """
    _check_type(labels, "")
    return jnp.asarray(labels).astype(jnp.int32)


def check_labels(labels: Any, examples: int, what: str = "", classes: int | None = None) -> None:
    """Raises ValueError unless labels are integers (N,) from 0 on, one for each example.

    Args:
      labels: arrays or shapes; values are looked at where they are at hand (not of traced arrays, shapes, or other processes).
      examples: N.
      what: in front of the message: `split 'test' has `.
      classes: C, if it is known: labels must lie below it.
    """
    leaves = jax.tree.leaves(labels)
    shapes = [np.shape(leaf) for leaf in leaves]
    if shapes != [(examples,)]:
        said = f"{what}{examples} inputs but labels of shape {', '.join(map(str, shapes))}"
        raise ValueError(said + shape_hint(shapes[0] if len(shapes) == 1 else (), (examples,)))
    _check_type(leaves[0], what)
    values = on_host(leaves[0])
    if values is None or not values.size:
        return
    least, largest = int(values.min()), int(values.max())
    if least < 0:
        raise ValueError(
            f"{what}{np.count_nonzero(values < 0)} labels below 0 (the least is {least}): classes are numbered from 0; leave "
            "examples without a label out: inputs[labels >= 0], labels[labels >= 0]"
        )
    if classes is not None and largest >= classes:
        binary = (
            "; for one logit of yes or no objective=objectives.multi_label(), targets (N, 1)" if classes == 1 else ""
        )
        raise ValueError(
            f"{what}labels up to {largest}, but there are {classes} classes: their numbers go from 0 to {classes - 1}{binary}"
        )


def as_classes(labels: np.ndarray) -> np.ndarray:
    """Returns labels (N,) whose classes are told apart by number: integers as they are, words by their place in the alphabet.

    Raises:
      ValueError: labels of another shape, or neither integers nor words.
    """
    if labels.ndim != 1:
        raise ValueError(
            f"labels must be (N,), got the shape {labels.shape}{shape_hint(labels.shape, labels.shape[:1])}"
        )
    if labels.dtype.kind in ("U", "S"):
        return np.unique(labels, return_inverse=True)[1]
    _check_type(labels, "")
    return labels


def shape_hint(shape: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """Returns what to do about labels of `shape` where `expected` is needed, `""` where nothing is known of them."""
    if shape == (*expected, 1):
        return "; of a column take labels[..., 0]"
    if shape[:-1] == expected and len(shape) > 1:
        return "; of one-hot rows take labels.argmax(-1), for a label a token objective=objectives.next_token()"
    return ""


def check_numeric(targets: Any, what: str = "") -> None:
    """Raises ValueError where an array of targets holds words or other objects; its values must be numbers."""
    for leaf in jax.tree.leaves(targets):
        if getattr(getattr(leaf, "dtype", None), "kind", "") in ("U", "S", "O"):
            _refuse(leaf, what, "targets are numbers")


def _check_type(labels: Any, what: str) -> None:
    dtype: Any = labels.dtype if hasattr(labels, "dtype") else np.asarray(labels).dtype
    if dtype == bool or jnp.issubdtype(dtype, jnp.integer):
        return
    _refuse(labels, what, "classes are integers from 0 on")


def _refuse(labels: Any, what: str, needed: str) -> None:
    dtype = np.asarray(labels).dtype if not hasattr(labels, "dtype") else labels.dtype
    words = getattr(dtype, "kind", "") in ("U", "S", "O")
    todo = (
        "np.unique(labels, return_inverse=True)[1] numbers them"
        if words
        else "labels.astype(int), if they are class numbers; for numbers to predict objective=objectives.regression()"
    )
    raise ValueError(f"{what}labels of type {'str' if words else dtype}: {needed}; {todo}")


def on_host(labels: Any) -> np.ndarray | None:
    """Returns the values of an array, `None` where this process cannot see them: traced, a shape, spread over other processes."""
    if isinstance(labels, np.ndarray):
        return labels
    if not isinstance(labels, jax.Array) or isinstance(labels, jax.core.Tracer):
        return None
    if labels.is_fully_addressable:
        return np.asarray(labels)
    return np.asarray(labels.addressable_data(0)) if labels.is_fully_replicated else None
