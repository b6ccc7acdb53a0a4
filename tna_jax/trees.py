"""How the leaves of a parameter tree are named, and how two trees are matched leaf by leaf.

A leaf is known by its key path, a tuple of strings: `("Dense_0", "kernel")`, written `Dense_0/kernel`. The boxes that
frameworks put around arrays (an NNX `Param`, a Linen `Partitioned`) are not part of the path, so one mask fits a
Linen dict, an NNX state (boxed or pure) and an Equinox module, if their names agree.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.core.meta import AxisMetadata

Tree = Any
"""Any pytree."""

Like = TypeVar("Like")
"""The type of a tree, which another of its structure has too."""

Value = TypeVar("Value")
"""What is said of a path."""

KeyPath = tuple[str, ...]
"""A leaf's name, one string per level."""

PathFilter = str | Callable[[str], bool]
"""Which leaves: a regular expression searched in the path, or a predicate of the path (`"Dense_0/kernel"`)."""


def _is_box(node: Any) -> bool:
    # An NNX variable can only exist once flax.nnx was imported; importing it here would slow every start.
    nnx = sys.modules.get("flax.nnx")
    return isinstance(node, AxisMetadata) or (nnx is not None and isinstance(node, nnx.Variable))


def _is_leaf(node: Any) -> bool:
    return _is_box(node) or isinstance(node, optax.MaskedNode)


def _contents(node: Any) -> Any:
    leaves = jax.tree.leaves(node, is_leaf=lambda part: isinstance(part, optax.MaskedNode))
    return leaves[0] if len(leaves) == 1 else node


def name(path: KeyPath) -> str:
    """Writes a path as text: `("Dense_0", "kernel")` -> `"Dense_0/kernel"`."""
    return "/".join(path)


def named_leaves(tree: Tree) -> list[tuple[KeyPath, Any]]:
    """Returns the leaves of `tree` with their key paths, in the order of `jax.tree.leaves`; boxes are opened.

    A part that `optax.masked` took out of the tree is listed with its `optax.MaskedNode`, which is not a leaf.
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_leaf)
    return [(tuple(jax.tree_util.keystr((key,), simple=True) for key in path), _contents(leaf)) for path, leaf in flat]


def names_not_finite(tree: Tree) -> list[str]:
    """Returns the paths of the arrays of floats, real or complex, that hold a NaN or an infinite number; traced ones are not looked at."""
    return [
        name(path)
        for path, leaf in named_leaves(tree)
        if not isinstance(leaf, jax.core.Tracer)
        and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
        and not np.isfinite(np.asarray(leaf)).all()
    ]


def like(tree: Like, leaves: list[Any]) -> Like:
    """Builds a tree of the same structure (boxes too) with other leaves, in the order of `jax.tree.leaves(tree)`."""
    built: Like = jax.tree.unflatten(jax.tree.structure(tree), leaves)
    return built


def parameters(tree: Tree, what: str = "params") -> list[tuple[KeyPath, jax.Array]]:
    """Returns `named_leaves` of a tree in which every leaf must be a floating-point array.

    Raises:
      TypeError: a leaf is not a real or complex floating-point array; all such paths are listed.
    """
    leaves = [(path, leaf) for path, leaf in named_leaves(tree) if not isinstance(leaf, optax.MaskedNode)]
    bad = [
        f"{name(path)} ({getattr(leaf, 'dtype', type(leaf).__name__)})"
        for path, leaf in leaves
        if not (hasattr(leaf, "dtype") and jax.numpy.issubdtype(leaf.dtype, jax.numpy.inexact))
    ]
    if bad:
        raise TypeError(
            f"{what} must hold floating-point arrays only, but these are not: {', '.join(bad)}. Pass the trainable "
            "part: variables['params'] in Linen, nnx.state(model, nnx.Param), eqx.filter(model, eqx.is_inexact_array)."
        )
    return leaves


def running_statistics(tree: Tree) -> list[KeyPath]:
    """Returns the paths of the running statistics of norms, as far as a tree tells them from parameters.

    Of Linen: `batch_stats` beside `params`, the collections of all variables. Of NNX: variables of type `BatchStat`.
    """
    nnx = sys.modules.get("flax.nnx")
    flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_leaf)
    boxes = dict(zip((path for path, _ in named_leaves(tree)), (leaf for _, leaf in flat), strict=True))
    of_linen = {"params", "batch_stats"} <= {path[0] for path in boxes if path}
    return [
        path
        for path, leaf in boxes.items()
        if (of_linen and path[0] == "batch_stats") or (nnx is not None and isinstance(leaf, nnx.BatchStat))
    ]


def selector(where: PathFilter | None, paths: list[KeyPath], what: str = "where") -> Callable[[KeyPath], bool]:
    """Returns the filter `where` as a predicate of key paths; `None` selects every leaf.

    Args:
      where: a regular expression searched in the path, or a predicate of it.
      paths: of which it must select at least one, unless there are none.
      what: what the filter is called in the error.

    Raises:
      ValueError: `where` selects none of `paths`, which is nearly always a misspelt pattern, or is not a regular expression.
    """
    if where is None:
        return lambda path: True
    import re

    try:
        chosen = (lambda text, p=re.compile(where): p.search(text) is not None) if isinstance(where, str) else where
    except re.error as error:
        raise ValueError(f"{what}={where!r} is not a regular expression: {error}") from error
    if paths and not any(chosen(name(path)) for path in paths):
        raise ValueError(f"{what}={where!r} selects no leaf; the paths are: {', '.join(map(name, paths))}")
    return lambda path: bool(chosen(name(path)))


def by_path(values: Mapping[str, Value], paths: list[KeyPath], what: str) -> dict[KeyPath, Value]:
    """Returns the value of every path that one of the regular expressions `values` matches.

    Args:
      values: by regular expressions, each searched in the path.
      paths: to look at.
      what: what the values are called in the error.

    Raises:
      ValueError: an expression matches none of the paths, or several match one path; all such paths are listed.
    """
    selected = {pattern: selector(pattern, []) for pattern in values}
    idle = [pattern for pattern, matches in selected.items() if not any(map(matches, paths))]
    if idle:
        raise ValueError(
            f"{what}: {', '.join(map(repr, idle))} selects no leaf; the paths are: {', '.join(map(name, paths))}"
        )
    matches = {path: [pattern for pattern, matches in selected.items() if matches(path)] for path in paths}
    several = [f"{name(path)} ({' and '.join(map(repr, p))})" for path, p in matches.items() if len(p) > 1]
    if several:
        raise ValueError(f"one pattern of {what} may match a leaf, but several match: {', '.join(several)}")
    return {path: values[patterns[0]] for path, patterns in matches.items() if patterns}


def align(
    mask: Tree, tree: Tree, what: str = "params", subject: str = "mask", *, same_dtypes: bool = False
) -> list[Any]:
    """Returns the leaves of `mask` in the leaf order of `tree`, matched by key path.

    Args:
      mask: the tree to reorder; a leaf has the shape of its partner in `tree`. Of a mask (not of another `subject`) a leaf of shape
        `()` may stand for a whole leaf or a whole branch, `{"encoder": False, "head": True}`.
      tree: the tree to follow; parts taken out by `optax.masked` or `optax.multi_transform` need no partner.
      what, subject: what `tree` and `mask` are called in the error.
      same_dtypes: whether a leaf must have its partner's dtype too (as JAX has it: NumPy's float64 is float32, unless 64 bits are switched on).

    Raises:
      ValueError: paths without a partner on either side, or shapes or dtypes that differ; all of them are listed.
    """
    is_mask = subject == "mask"
    if is_mask and not jax.tree.leaves(tree):
        return []
    named = named_leaves(tree)
    parts = dict(named_leaves(mask))
    if is_mask:
        parts = _spread(parts, named)
    aligned: list[Any] = []
    missing, shapes, dtypes = [], [], []
    for path, leaf in named:
        part = parts.pop(path, None)
        if isinstance(leaf, optax.MaskedNode):
            parts = {other: m for other, m in parts.items() if other[: len(path)] != path}
        elif part is None:
            missing.append(name(path))
        elif np.shape(part) != np.shape(leaf) and not (is_mask and np.shape(part) == ()):
            shapes.append(f"{name(path)} ({subject} {np.shape(part)}, {what} {np.shape(leaf)})")
        elif same_dtypes and shape_of(part).dtype != shape_of(leaf).dtype:
            dtypes.append(f"{name(path)} ({subject} {shape_of(part).dtype}, {what} {shape_of(leaf).dtype})")
        else:
            aligned.append(part)
    problems = [
        f"{title}: {', '.join(items)}"
        for title, items in (
            (f"in the {what} but not in the {subject}", missing),
            (f"in the {subject} but not in the {what}", [name(path) for path in parts]),
            ("of another shape", shapes),
            ("of another dtype", dtypes),
        )
        if items
    ]
    if problems:
        advice = f" Make it from these {what}." if is_mask else " Cast it first: x.astype(dtype)." if dtypes else ""
        raise ValueError(f"the {subject} does not fit the {what}; {'; '.join(problems)}.{advice}")
    return aligned


def _spread(parts: dict[KeyPath, Any], named: list[tuple[KeyPath, Any]]) -> dict[KeyPath, Any]:
    """The leaves of a mask, those of shape `()` that stand for a branch of the tree repeated for each leaf in it."""
    branches = {path for path, part in parts.items() if np.shape(part) == ()} - {path for path, _ in named}
    for path, _ in named if branches else ():
        above = next((path[:n] for n in range(len(path) - 1, -1, -1) if path[:n] in branches), None)
        if path not in parts and above is not None:
            parts = parts | {path: parts[above]}
    filled = {path[:n] for path, _ in named for n in range(len(path))} & branches
    return {path: part for path, part in parts.items() if path not in filled}


def is_array(leaf: Any) -> bool:
    """Returns whether a leaf is an array, or a number that JAX takes for one."""
    return isinstance(leaf, (bool, int, float, complex)) or (hasattr(leaf, "shape") and hasattr(leaf, "dtype"))


def require_arrays(tree: Tree, why: str) -> None:
    """Raises TypeError for leaves that are no arrays, as the functions in an Equinox module; all their paths are listed, `why` in front."""
    leaves = [(path, leaf) for path, leaf in named_leaves(tree) if not isinstance(leaf, optax.MaskedNode)]
    odd = [name(path) for path, leaf in leaves if not is_array(leaf)]
    if odd:
        raise TypeError(
            f"{why}, but these leaves are not arrays: {', '.join(odd)}. Give the trainable part: eqx.filter(model, "
            "eqx.is_inexact_array), nnx.state(model, nnx.Param), variables['params']"
        )


def require_exact(*trees: Tree) -> None:
    """Raises ValueError for NumPy integers of 64 bits that JAX would cut to 32 (without jax_enable_x64); all their paths are listed.

    Integers that fit into 32 bits keep their values and pass; so do floats, which are rounded.
    """
    wrong = [
        f"{name(path)} ({leaf.dtype}, up to {np.abs(leaf).max()})" for tree in trees for path, leaf in named_leaves(tree)
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "iu" and leaf.size and _is_cut(leaf)
    ]  # fmt: skip
    if wrong:
        raise ValueError(
            f"JAX would cut these integers to 32 bits: {', '.join(dict.fromkeys(wrong))}; set jax_enable_x64 for them"
        )


def _is_cut(array: np.ndarray) -> bool:
    narrow = jax.dtypes.canonicalize_dtype(array.dtype)
    if narrow.itemsize >= array.dtype.itemsize:
        return False
    limits = np.iinfo(narrow)
    return bool(array.max() > limits.max or array.min() < limits.min)


def shape_of(array: Any, shape: Sequence[int] | None = None) -> jax.ShapeDtypeStruct:
    """Returns the shape and dtype that an array has in JAX: NumPy's 64 bits are 32 there, unless 64 are switched on; keys keep theirs.

    Args:
      array: of JAX or NumPy, a shape and dtype, or a number.
      shape: another shape.

    >>> shape_of(np.zeros(3, np.int64), (2,))
    ShapeDtypeStruct(shape=(2,), dtype=int32)
    """
    dtype = array.dtype if hasattr(array, "dtype") else jax.dtypes.result_type(array)
    if not jnp.issubdtype(dtype, jax.dtypes.extended):
        dtype = jax.dtypes.canonicalize_dtype(dtype)
    return jax.ShapeDtypeStruct(np.shape(array) if shape is None else tuple(shape), dtype)
