"""What `--freeze` freezes of a checkpoint: refused where that is nothing or all, and told in numbers."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tna_jax import trees
from tna_jax.io.errors import UsageError
from tna_jax.masks import Params
from tna_jax.masks.freezing import is_frozen


def describe(params: Params, freeze: str | None) -> dict[str, Any] | None:
    """Returns the pattern, the number of `leaves` and `parameters` it freezes, and `of` how many parameters; None without a pattern.

    Args:
      params: one model, arrays or shapes.

    Raises:
      UsageError: the pattern selects no leaf (the error lists the paths), or all of them.
    """
    if freeze is None:
        return None
    try:
        frozen = is_frozen(params, freeze)
    except ValueError as error:
        raise UsageError(f"--{error}") from error
    if all(frozen):
        raise UsageError(f"--freeze {freeze!r} selects every leaf: nothing would be trained")
    sizes = [int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params)]
    chosen = [size for size, one in zip(sizes, frozen, strict=True) if one]
    return {"freeze": freeze, "leaves": len(chosen), "parameters": sum(chosen), "of": sum(sizes)}


def require_live(params: Params, freeze: str | None, where: Callable[[str], bool]) -> None:
    """Raises UsageError where a pattern freezes every leaf whose path `where` is true of: a body that is to be fused, say."""
    frozen = [
        trees.name(path)
        for (path, _), one in zip(trees.named_leaves(params), is_frozen(params, freeze), strict=True)
        if one
    ]
    chosen = [trees.name(path) for path, _ in trees.named_leaves(params) if where(trees.name(path))]
    if freeze is not None and set(chosen) <= set(frozen):
        raise UsageError(f"--freeze {freeze!r} selects the whole body: there would be nothing to fuse")
