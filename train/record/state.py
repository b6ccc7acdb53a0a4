"""What a slice of training leaves behind: parts of at most 15 MiB, small enough to be carried between machines one by one."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import write_json

PART_BYTES = 15 * 2**20
ABOUT = "state.json"


def save(folder: Path, epoch: int, tree: Any) -> None:
    """Writes a pytree of arrays as it is after `epoch` epochs, whole or not at all; the one before is removed afterwards.

    Args:
      folder: of the block; the state stands in `epoch_NNN` there.
      epoch: how many epochs are done.
      tree: arrays; their bytes follow one another in the order of the leaves.
    """
    unfinished, final = folder / f".epoch_{epoch:03}", folder / f"epoch_{epoch:03}"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    data = b"".join(np.ascontiguousarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))
    parts = [data[i : i + PART_BYTES] for i in range(0, len(data), PART_BYTES)]
    for number, part in enumerate(parts):
        (unfinished / f"part_{number:03}.bin").write_bytes(part)
    about = {
        "epoch": epoch,
        "sha256": [hashlib.sha256(part).hexdigest() for part in parts],
        "leaves": [[list(np.shape(leaf)), str(np.asarray(leaf).dtype)] for leaf in jax.tree.leaves(tree)],
    }
    write_json(unfinished / ABOUT, about)
    shutil.rmtree(final, ignore_errors=True)
    unfinished.rename(final)
    for other in folder.glob("epoch_*"):
        if other != final:
            shutil.rmtree(other)


def newest(folder: Path) -> Path | None:
    """Returns the folder of the latest state, None where there is none."""
    written = sorted(folder.glob("epoch_*"))
    return written[-1] if written else None


def read(folder: Path, like: Any) -> tuple[int, Any]:
    """Returns how many epochs a state has behind it, and its arrays in the structure of `like`.

    Raises:
      UsageError: the parts are not those that were written, or belong to other networks.
    """
    about = json.loads((folder / ABOUT).read_text())
    parts = [path.read_bytes() for path in sorted(folder.glob("part_*.bin"))]
    if [hashlib.sha256(part).hexdigest() for part in parts] != about["sha256"]:
        raise UsageError(
            f"{folder}: its parts are not those that were written; remove the folder to train from the start"
        )
    leaves, treedef = jax.tree.flatten(like)
    if about["leaves"] != [[list(np.shape(leaf)), str(np.asarray(leaf).dtype)] for leaf in leaves]:
        raise UsageError(f"{folder} holds other networks than these; remove it to train from the start")
    data, arrays, at = b"".join(parts), [], 0
    for leaf in leaves:
        dtype, size = np.asarray(leaf).dtype, np.asarray(leaf).nbytes
        arrays.append(np.frombuffer(data[at : at + size], dtype).reshape(np.shape(leaf)))
        at += size
    return about["epoch"], jax.tree.unflatten(treedef, arrays)
