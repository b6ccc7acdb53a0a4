"""Reads checkpoints: the newest undamaged one, checked against its checksums. Never writes."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tna_jax.io import manifest, orbax_store
from tna_jax.io.errors import UsageError
from tna_jax.io.manifest import Damaged, Leaf

STATE = "state"
MANIFEST = "manifest/metadata"


def listed(folder: Path) -> list[int]:
    """The steps of the finished checkpoints in `folder`, newest first."""
    if not folder.is_dir():
        return []
    return sorted(
        (int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()), reverse=True
    )


def contents(folder: Path, step: int) -> list[Leaf]:
    """What the checkpoint of `step` holds; raises Damaged, or UsageError if a later version wrote it."""
    try:
        value = json.loads((folder / str(step) / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged("its list of contents cannot be read") from error
    return manifest.parse(value, str(folder / str(step)))


def arrays(folder: Path, step: int, wanted: set[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint by name (`params/Dense_0/kernel`), those in `wanted` if given, each checked.

    Raises:
      Damaged: they are not what was saved.
      UsageError: a later version wrote the checkpoint.
    """
    leaves = {f"{i:04d}": leaf for i, leaf in enumerate(contents(folder, step))}
    leaves = {key: leaf for key, leaf in leaves.items() if wanted is None or leaf.name in wanted}
    found = orbax_store.read((folder / str(step) / STATE).absolute(), set(leaves))
    bad = [
        leaf.name
        for key, leaf in leaves.items()
        if (np.shape(found[key]), str(found[key].dtype)) != (leaf.shape, leaf.dtype)
        or manifest.digest(found[key]) != leaf.sha256
    ]
    if bad:
        raise Damaged(f"these arrays do not have their checksums: {', '.join(bad)}")
    return {leaf.name: np.array(found[key]) for key, leaf in leaves.items()}


def newest(folder: Path, tree: dict[str, Any]) -> tuple[int, dict[str, Any], dict[int, str]]:
    """The newest undamaged step and its state in the form of `tree`, NumPy; 0 and `tree` if there is no checkpoint.

    Args:
      folder: of checkpoints.
      tree: some of the saved parts by name (`params`, ...); of these names, shapes and types must agree.

    Returns:
      The step, the state, and the damaged newer steps with what is wrong with each.

    Raises:
      UsageError: every checkpoint is damaged, or the newest undamaged one does not fit `tree` (all leaves are listed).
    """
    wanted = {name: (np.shape(leaf), str(leaf.dtype)) for name, leaf in manifest.named(tree).items()}
    damaged: dict[int, str] = {}
    for step in listed(folder):
        try:
            saved = {leaf.name: (leaf.shape, leaf.dtype) for leaf in contents(folder, step)}
            problems = manifest.misfits({n: v for n, v in saved.items() if n.split("/")[0] in tree}, wanted)
            if problems:
                raise UsageError(f"checkpoint {step} of {folder.parent} does not fit this run; {problems}")
            found = arrays(folder, step, set(wanted))
        except Damaged as error:
            damaged[step] = str(error)
            continue
        structure: Any = jax.tree.structure(tree)
        return step, jax.tree.unflatten(structure, [found[name] for name in wanted]), damaged
    if damaged:
        listing = "; ".join(f"checkpoint {step}: {reason}" for step, reason in damaged.items())
        raise UsageError(f"no checkpoint of {folder.parent} is undamaged ({listing}): start again with --overwrite")
    return 0, tree, {}
