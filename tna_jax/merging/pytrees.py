"""Merges whole models, pytrees of NumPy or JAX arrays, by any method of `METHODS`."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import trees
from tna_jax.masks.operations import Mask, Params, is_anchored
from tna_jax.merging import tensors
from tna_jax.merging.method import Array, Method, Scope
from tna_jax.merging.methods import METHODS


def merge(
    method: str | Method,
    models: Sequence[Params],
    base: Params | None = None,
    weights: Sequence[float] | Array | None = None,
    *,
    mask: Mask | None = None,
    scope: Scope = "tensor",
    **options: Any,
) -> Params:
    """Returns M models merged by a method: `average`, `task_arithmetic`, `ties`, ...; see `METHODS`.

    Sums run in float32 (float64 leaves in float64) and are cast back. Entries equal in all models and the base are copied, bit for bit, and
    so is what `mask` anchors; the values come from the base, or from the first model where there is none. Leaves that are not floating-point are
    copied likewise. Two calls give the same bytes. Arrays are merged on the host, so this does not work under `jit`.

    Args:
      method: its name, or a `Method` of your own.
      models: M pytrees of the same paths, shapes and dtypes.
      base: the model from which they were fine-tuned; needed where `Method.needs_base`.
      weights: (M,) floats; shares, divided by their sum, where `Method.normalized`, else factors of task vectors. Default: equal, 1 each.
      mask: a mask like the models; entries that it anchors (`False`, or a multiplier below 1) are copied.
      scope: over what thresholds and angles are taken, each tensor by itself or the whole model, for methods that have any.
      options: of the method (`Method.options`).

    Returns:
      A pytree like the first model, JAX arrays where it holds JAX arrays.

    Raises:
      ValueError: what `Method.check` and `Method.shares` refuse, models that do not fit each other, or a value that does not fit its dtype.

    >>> base = {"w": np.array([1.0, 1.0, 1.0], np.float32)}
    >>> a, b = {"w": np.array([2.0, 1.0, 1.0], np.float32)}, {"w": np.array([1.0, 3.0, 1.0], np.float32)}
    >>> merge("task_arithmetic", [a, b], base, strength=0.5)["w"].tolist()
    [1.5, 2.0, 1.0]
    """
    method = _method(method)
    checked = method.check(len(models), base is not None, options)
    shares = method.shares(weights, len(models))
    if scope not in ("tensor", "model"):
        raise ValueError(f"scope must be tensor or model, got {scope!r}")
    columns = _columns(models, base)
    anchored = None if mask is None else [np.asarray(is_anchored(m)) for m in trees.align(mask, models[0])]

    def vectors(column: tuple[list[Array], Array | None]) -> Array:
        return tensors.vectors_of(method, *column)

    facts = None
    if method.surveys and scope == "model":
        facts = tensors.gather_facts(method, lambda: map(vectors, filter(_is_merged, columns)), checked)
    merged: list[Any] = []
    for i, (path, first) in enumerate(trees.named_leaves(models[0])):
        arrays, start = columns[i]
        keep = None if anchored is None else np.broadcast_to(anchored[i], arrays[0].shape)
        leaf = tensors.merge_tensor(
            method, arrays, start, shares, checked, trees.name(path), facts=facts, anchored=keep
        )  # fmt: skip
        merged.append(jnp.asarray(leaf) if isinstance(first, jax.Array) else leaf)
    return trees.like(models[0], merged)


def task_vector(model: Params, base: Params) -> Params:
    """Returns `model - base` in float32 (float64 leaves in float64), NumPy arrays; 0 in leaves that are not floating-point.

    Raises:
      ValueError: the trees do not fit each other; all differing paths are listed.
    """
    method = METHODS["task_arithmetic"]
    leaves = [
        tensors.vectors_of(method, arrays, start)[0]
        if tensors.is_floating(arrays[0].dtype)
        else np.zeros_like(arrays[0])
        for arrays, start in _columns([model], base)
    ]
    return trees.like(model, leaves)


def _method(method: str | Method) -> Method:
    if isinstance(method, Method):
        return method
    if method not in METHODS:
        raise ValueError(f"unknown merging method {method!r}: known are {', '.join(METHODS)}")
    return METHODS[method]


def _is_merged(column: tuple[list[Array], Array | None]) -> bool:
    return tensors.is_floating(column[0][0].dtype) and column[0][0].size > 0


def _columns(models: Sequence[Params], base: Params | None) -> list[tuple[list[Array], Array | None]]:
    """The arrays of all models and of the base, leaf by leaf of the first model; raises ValueError where they do not fit."""
    trees_by_name = {f"model {i}": model for i, model in enumerate(models)} | ({} if base is None else {"base": base})
    aligned = [trees.align(tree, models[0], what="first model", subject=name) for name, tree in trees_by_name.items()]
    paths = [trees.name(path) for path, _ in trees.named_leaves(models[0])]
    columns = [[np.asarray(leaf) for leaf in column] for column in zip(*aligned, strict=True)]
    wrong = [
        f"{path} ({', '.join(f'{name} {a.dtype}{list(a.shape)}' for name, a in zip(trees_by_name, column, strict=True))})"
        for path, column in zip(paths, columns, strict=True)
        if len({(array.dtype, array.shape) for array in column}) > 1 or np.iscomplexobj(column[0])
    ]
    if wrong:
        raise ValueError(f"models are merged in one real dtype and shape; these leaves differ: {'; '.join(wrong)}")
    return [(column, None) if base is None else (column[:-1], column[-1]) for column in columns]
