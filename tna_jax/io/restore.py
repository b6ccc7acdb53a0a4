"""Reads checkpoints: the newest undamaged one, checked against its checksums. Never writes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tna_jax.io import manifest
from tna_jax.io.errors import UsageError
from tna_jax.io.manifest import Damaged, Leaf

STATE = "state"
MANIFEST = "manifest/metadata"


def listed(folder: Path) -> list[int]:
    """Returns the steps of the finished checkpoints in `folder`, newest first."""
    if not folder.is_dir():
        return []
    return sorted(
        (int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()), reverse=True
    )


def contents(folder: Path, step: int) -> list[Leaf]:
    """Returns what the checkpoint of `step` holds, leaf by leaf.

    Raises:
      Damaged: its list of contents cannot be read.
      UsageError: a later version wrote it.
    """
    try:
        value = json.loads((folder / str(step) / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged("its list of contents cannot be read") from error
    return manifest.parse(value, str(folder / str(step)))


def arrays(folder: Path, step: int, wanted: set[str] | None = None) -> dict[str, np.ndarray]:
    """Reads the arrays of a checkpoint by name (`params/Dense_0/kernel`), those in `wanted` if given, each checked.

    Raises:
      Damaged: they are not what was saved.
      UsageError: a later version wrote the checkpoint.
    """
    from tna_jax.io import orbax_store

    leaves = {f"{i:04d}": leaf for i, leaf in enumerate(contents(folder, step))}
    leaves = {key: leaf for key, leaf in leaves.items() if wanted is None or leaf.name in wanted}
    stored = {key for key, leaf in leaves.items() if 0 not in leaf.shape}
    saved = orbax_store.read((folder / str(step) / STATE).absolute(), stored) if stored else {}
    saved |= {key: _without_entries(leaf) for key, leaf in leaves.items() if key not in stored}
    bad = [
        leaf.name
        for key, leaf in leaves.items()
        if (np.shape(saved[key]), str(saved[key].dtype)) != (leaf.shape, leaf.dtype)
        or manifest.digest(saved[key]) != leaf.sha256
    ]
    if bad:
        raise Damaged(f"these arrays do not have their checksums: {', '.join(bad)}")
    return {leaf.name: np.array(saved[key]) for key, leaf in leaves.items()}


def _without_entries(leaf: Leaf) -> np.ndarray:
    """The array (0, ...) of a manifest's entry: its shape and dtype are all there is of it, and orbax saves none."""
    import jax.numpy as jnp

    try:
        return np.zeros(leaf.shape, jnp.dtype(leaf.dtype))
    except TypeError as error:
        raise Damaged(f"{leaf.name} has the unknown type {leaf.dtype}") from error


def newest(folder: Path, tree: dict[str, Any], only: int | None = None) -> tuple[int, dict[str, Any], dict[int, str]]:
    """Reads the newest undamaged checkpoint in the form of `tree`.

    Args:
      folder: of checkpoints.
      tree: some of the saved parts by name (`params`, ...), arrays or shapes; of these, names, shapes and dtypes must agree.
      only: this step instead of the newest one.

    Returns:
      The step, the state (NumPy), and the damaged newer steps with what is wrong with each; 0 and `tree` if there is no
      checkpoint.

    Raises:
      UsageError: every checkpoint is damaged, or the newest undamaged one does not fit `tree` (all leaves are listed).
    """
    import jax

    expected = {name: (np.shape(leaf), str(leaf.dtype)) for name, leaf in manifest.named(tree).items()}
    damaged: dict[int, str] = {}
    for step in listed(folder) if only is None else [only]:
        try:
            present = {leaf.name: (leaf.shape, leaf.dtype) for leaf in contents(folder, step)}
            problems = manifest.misfits({n: v for n, v in present.items() if n.split("/")[0] in tree}, expected)
            if problems:
                raise UsageError(f"checkpoint {step} of {folder.parent} does not fit this run; {problems}")
            saved = arrays(folder, step, set(expected))
        except Damaged as error:
            damaged[step] = str(error)
            continue
        structure: Any = jax.tree.structure(tree)
        return step, jax.tree.unflatten(structure, [saved[name] for name in expected]), damaged
    if damaged:
        raise _all_damaged(folder, damaged)
    return 0, tree, {}


def newest_parts(folder: Path, *parts: str) -> tuple[int, dict[str, np.ndarray], dict[int, str]]:
    """Reads the newest undamaged checkpoint whatever its form: the arrays under `parts` (`params`, `state`) by name.

    Returns:
      The step, the arrays (leading axis: the model), and the damaged newer steps with what is wrong with each.

    Raises:
      UsageError: there is no checkpoint, or every one is damaged.
    """
    damaged: dict[int, str] = {}
    for step in listed(folder):
        try:
            names = {leaf.name for leaf in contents(folder, step) if leaf.name.split("/")[0] in parts}
            return step, arrays(folder, step, names), damaged
        except Damaged as error:
            damaged[step] = str(error)
    if damaged:
        raise _all_damaged(folder, damaged)
    raise UsageError(f"{folder.parent} has no checkpoint: its training has not saved one yet")


def _all_damaged(folder: Path, damaged: dict[int, str]) -> UsageError:
    listing = "; ".join(f"checkpoint {step}: {reason}" for step, reason in damaged.items())
    return UsageError(f"no checkpoint of {folder.parent} is undamaged ({listing}): start again with --overwrite")


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a nested dict of leaves by name, the form of a Linen tree: `a/b` becomes `{"a": {"b": ...}}`."""
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *parents, last = name.split("/")
        branch = tree
        for key in parents:
            branch = branch.setdefault(key, {})
        branch[last] = leaf
    return tree
