"""Merges one tensor by any method: sums in float32, casts back, copies what must stay. Needs NumPy only.

What holds for every method:
- an entry that is equal in all models and the base, bit for bit, is copied, bit for bit: anchors stay anchors;
- an entry that a mask anchors is copied from the base (without one, from the first model);
- a tensor that is not floating-point is copied likewise;
- a value that does not fit the dtype, though all that entered were finite, is an error.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tna_jax.merging.method import Array, Context, Method, Options

PIECE = 1 << 16
"""Entries that are merged at a time where a method allows it: what several models' take stays in a core's cache."""


def is_floating(dtype: Any) -> bool:
    """Returns whether entries of the dtype are real numbers: NumPy's floats, and bfloat16 and 8-bit floats of ml_dtypes."""
    return np.issubdtype(dtype, np.floating) or np.dtype(dtype).name.startswith(("bfloat", "float"))


def vectors_of(method: Method, models: Sequence[Array], base: Array | None) -> Array:
    """Returns (M, ...) float32 (float64 where the models are) of what a core takes: task vectors, or models."""
    wide = _wide(models[0].dtype)
    stacked = np.empty((len(models), *models[0].shape), wide)
    for row, model in zip(stacked, models, strict=True):
        row[...] = model
        if method.needs_base:
            assert base is not None
            with np.errstate(invalid="ignore"):
                row -= base.astype(wide)
            if not np.isfinite(row).all():  # infinite or NaN in both, bit for bit: no change
                row[equal_in_all([model, base])] = 0
    return stacked


def _wide(dtype: Any) -> np.dtype[Any]:
    """The dtype of sums."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def gather_facts(method: Method, pieces: Callable[[], Iterable[Array]], options: Options) -> Any:
    """Returns what a method must know of a tensor or of whole models before it merges; `None` where it needs nothing.

    Args:
      method: any.
      pieces: called once for each survey; the vectors (M, ...) of all pieces of the tensor, or of all tensors of the models.
      options: of the method, checked.
    """
    facts: Any = None
    for survey in method.surveys:
        total: Array | None = None
        for vectors in pieces():
            part = survey.measure(vectors, facts, options)
            total = part if total is None else total + part
        facts = survey.conclude(total, facts, options) if total is not None else None
    return facts


def merge_tensor(
    method: Method,
    models: Sequence[Array],
    base: Array | None,
    weights: Array,
    options: Options,
    name: str = "",
    *,
    facts: Any = None,
    start: int = 0,
    anchored: Array | None = None,
    refuse_overflow: bool = True,
) -> Array:
    """Merges one tensor of M models, or a piece of one.

    Args:
      method: any of `METHODS`.
      models: M arrays (...) of one dtype.
      base: (...) of that dtype; only methods that need it use it, others copy from it.
      weights: (M,), from `method.shares`.
      options: from `method.check`.
      name: of the tensor; see `Context`.
      facts: what `gather_facts` returned; by default they are gathered over these arrays.
      start: of the piece in the flattened tensor.
      anchored: (...) bool, entries to copy.
      refuse_overflow: whether values that do not fit are an error; else they are infinite.

    Returns:
      (...) of the models' dtype; a new array.

    Raises:
      ValueError: a merged value does not fit the dtype although all that entered are finite.
    """
    source = models[0] if base is None else base
    if not is_floating(source.dtype) or not source.size:
        return source.copy()
    if method.in_pieces or not source.ndim:
        shape, arrays = source.shape, [np.ascontiguousarray(array).reshape(-1) for array in (source, *models)]
        cuts: list[Any] = [slice(first, first + PIECE) for first in range(0, source.size, PIECE)]
    else:
        shape, arrays, cuts = source.shape, [source, *models], [...]
    if facts is None and method.surveys:
        pieces = [([model[cut] for model in arrays[1:]], arrays[0][cut]) for cut in cuts]
        facts = gather_facts(method, lambda: (vectors_of(method, *piece) for piece in pieces), options)
    weights = weights.astype(_wide(source.dtype))
    merged = np.empty(arrays[0].shape, source.dtype)
    for cut in cuts:
        first_entry = 0 if cut is ... else cut.start
        first, parts = arrays[0][cut], [model[cut] for model in arrays[1:]]
        vectors = vectors_of(method, parts, first)
        wide_base = None if base is None else first.astype(vectors.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            merged[cut] = method.core(wide_base, vectors, weights, Context(name, facts, start + first_entry), **options)
        bits = np.dtype(f"u{source.dtype.itemsize}")
        np.copyto(merged[cut].view(bits), first.view(bits), where=equal_in_all([first, *parts]))
    merged = merged.reshape(shape)
    if anchored is not None:
        np.copyto(merged.view(bits), np.ascontiguousarray(source).view(bits), where=anchored)
    if refuse_overflow:
        _require_finite(merged, [source, *models], method.name, name)
    return merged


def equal_in_all(arrays: Sequence[Array]) -> Array:
    """Returns which entries (...) are equal in all arrays, bit for bit; bool."""
    bits = [np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").reshape(array.shape) for array in arrays]
    equal = np.ones(arrays[0].shape, bool)
    for other in bits[1:]:
        equal &= bits[0] == other
    return equal


def settle(
    values: Array, models: Sequence[Array], base: Array | None, anchored: Array | None, method: str, name: str
) -> Array:
    """Returns a merged tensor, computed elsewhere, in the models' dtype, with what is equal in all or anchored copied; see `merge_tensor`.

    Raises:
      ValueError: a value does not fit the dtype although all that entered are finite.
    """
    source = models[0] if base is None else base
    with np.errstate(over="ignore", invalid="ignore"):
        merged = np.ascontiguousarray(values.astype(source.dtype)).reshape(source.shape)
    copied = equal_in_all([source, *models])
    bits = np.dtype(f"u{source.dtype.itemsize}")
    np.copyto(
        merged.view(bits),
        np.ascontiguousarray(source).reshape(source.shape).view(bits),
        where=copied if anchored is None else copied | anchored,
    )
    _require_finite(merged, [source, *models], method, name)
    return merged


def _require_finite(merged: Array, inputs: Sequence[Array], method: str, name: str) -> None:
    if np.isfinite(merged).all() or not all(np.isfinite(array).all() for array in inputs):
        return
    largest = max(float(np.abs(array).max()) for array in inputs)
    raise ValueError(
        f"{method} gives values in {name or 'a tensor'} that {merged.dtype} cannot hold ({largest:.3g} is the largest that entered): "
        "use a smaller strength, smaller weights, or a wider dtype"
    )
