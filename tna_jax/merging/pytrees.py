"""Merges whole models, pytrees of NumPy or JAX arrays, by any method of `METHODS`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tna_jax import sharding, trees
from tna_jax.masks.operations import Mask, Params
from tna_jax.merging import tensors
from tna_jax.merging.columns import columns_of, like
from tna_jax.merging.method import Array, Method, Scope
from tna_jax.merging.methods import METHODS


@sharding.outside_meshes
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

    Sums run in float32 (float64 leaves in float64) and are cast back. Entries equal in all models and the base are copied,
    bit for bit, and so is what `mask` anchors; the values come from the base, or from the first model where there is none.
    Leaves that are not floating-point are copied likewise. Two calls give the same bytes. Arrays are merged on the host, so
    this does not work under `jit`.

    Args:
      method: its name, or a `Method` of your own.
      models: M pytrees of the same paths, shapes and dtypes.
      base: the model from which they were fine-tuned; needed where `Method.needs_base`.
      weights: (M,) floats; shares, divided by their sum, where `Method.normalized`, else factors of task vectors. Default:
        equal, 1 each.
      mask: a mask like the models; entries that it anchors (`False`, or a multiplier below 1) are copied.
      scope: over what thresholds and angles are taken, each tensor by itself or the whole model, for methods that have any.
      options: of the method (`Method.options`).

    Returns:
      A pytree like the first model, JAX arrays where it holds JAX arrays.

    Raises:
      ValueError: what `Method.check` and `Method.shares` refuse, models that do not fit each other, or a value that does not
        fit its dtype.

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
    columns = columns_of(models, base, mask)
    facts = None
    if method.surveys and scope == "model":
        used = [column for column in columns if column.is_merged]
        facts = tensors.gather_facts(
            method, lambda: (tensors.vectors_of(method, column.models, column.base) for column in used), checked
        )
    leaves = [
        tensors.merge_tensor(
            method, column.models, column.base, shares, checked, column.name, facts=facts, anchored=column.anchored
        )
        for column in columns
    ]
    return like(models[0], leaves)


def task_vector(model: Params, base: Params) -> Params:
    """Returns `model - base` in float32 (float64 leaves in float64), NumPy arrays; 0 in leaves that are not floating-point.

    Raises:
      ValueError: the trees do not fit each other; all differing paths are listed.
    """
    method = METHODS["task_arithmetic"]
    leaves = [
        tensors.vectors_of(method, column.models, column.base)[0]
        if tensors.is_floating(column.models[0].dtype)
        else np.zeros_like(column.models[0])
        for column in columns_of([model], base)
    ]
    return trees.like(model, leaves)


def _method(method: str | Method) -> Method:
    if isinstance(method, Method):
        return method
    if method not in METHODS:
        raise ValueError(f"unknown merging method {method!r}: known are {', '.join(METHODS)}")
    return METHODS[method]
