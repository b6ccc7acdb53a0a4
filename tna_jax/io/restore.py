"""Reads checkpoints: the newest undamaged one, checked against its checksums. Never writes."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tna_jax.io import manifest
from tna_jax.io.errors import UsageError
from tna_jax.io.manifest import UNREADABLE, Damaged, Leaf

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
      UsageError: a later version wrote it, or the system does not let it be read: that is no damage.
    """
    file = folder / str(step) / MANIFEST
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, OSError) and error.errno in UNREADABLE:
            raise UsageError(f"cannot read {file}: {error.strerror}") from error
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

    def read(step: int) -> dict[str, np.ndarray]:
        present = {leaf.name: (leaf.shape, leaf.dtype) for leaf in contents(folder, step)}
        problems = manifest.misfits({n: v for n, v in present.items() if n.split("/")[0] in tree}, expected)
        if problems:
            raise UsageError(f"checkpoint {step} of {folder.parent} does not fit this run; {problems}")
        return arrays(folder, step, set(expected))

    step, saved, damaged = _newest(folder, read, only)
    if saved is None:
        return 0, tree, {}
    structure: Any = jax.tree.structure(tree)
    return step, jax.tree.unflatten(structure, [saved[name] for name in expected]), damaged


def newest_parts(folder: Path, *parts: str) -> tuple[int, dict[str, np.ndarray], dict[int, str]]:
    """Reads the newest undamaged checkpoint whatever its form: the arrays under `parts` (`params`, `state`) by name.

    Returns:
      The step, the arrays (leading axis: the model), and the damaged newer steps with what is wrong with each.

    Raises:
      UsageError: there is no checkpoint, or every one is damaged.
    """

    def read(step: int) -> dict[str, np.ndarray]:
        return arrays(folder, step, {leaf.name for leaf in contents(folder, step) if leaf.name.split("/")[0] in parts})

    step, saved, damaged = _newest(folder, read)
    if saved is None:
        raise UsageError(f"{folder.parent} has no checkpoint: its training has not saved one yet")
    return step, saved, damaged


def _newest(
    folder: Path, read: Callable[[int], dict[str, np.ndarray]], only: int | None = None
) -> tuple[int, dict[str, np.ndarray] | None, dict[int, str]]:
    """Reads the newest checkpoint that is not damaged, None where there is none.

    A run that goes on saves newer ones and removes those that are being read: what is gone was not damaged, and what is there by
    then is read.

    Raises:
      UsageError: every checkpoint is damaged.
    """
    for _ in range(LOOKS):
        damaged: dict[int, str] = {}
        steps = listed(folder) if only is None else [only]
        for step in steps:
            try:
                saved = read(step)
            except Damaged as error:
                damaged[step] = str(error)
                continue
            return step, saved, {bad: reason for bad, reason in damaged.items() if (folder / str(bad)).is_dir()}
        if only is not None or listed(folder) == steps:
            break
    if damaged:
        raise _all_damaged(folder, damaged)
    return 0, None, {}


LOOKS = 20
"""How often the checkpoints of a run that goes on are listed, if each time all are gone before they are read."""


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
