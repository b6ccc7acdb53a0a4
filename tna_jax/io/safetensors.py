"""Arrays by name in safetensors files, and pytrees of any framework from and to them. Nothing in a file is ever executed.

    tensors.save("model.safetensors", {"params": params})
    params = tensors.load("model.safetensors", like=params, part="params")   # Linen, NNX, Equinox: matched by name

Headers are checked before anything is read, see `tna_jax.io.tensor_headers`.
"""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from tna_jax import trees
from tna_jax.io import manifest
from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import READABLE, atomic_file
from tna_jax.io.tensor_headers import DTYPES, read_header


def write(
    file: str | Path, arrays: dict[str, Any], metadata: dict[str, str] | None = None, mode: int = READABLE
) -> None:
    """Writes arrays by name, whole or not at all; dtypes as in `DTYPES`. Raises UsageError where it cannot be written."""
    ready = {name: np.array(array, order="C", copy=None) for name, array in arrays.items()}
    strange = [f"{name} ({array.dtype})" for name, array in ready.items() if array.dtype not in DTYPES.values()]
    if strange:
        raise UsageError(f"cannot be kept in a safetensors file: {', '.join(strange)}")
    try:
        with atomic_file(Path(file), mode) as unfinished:
            save_file(ready, unfinished, metadata)
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror or error}") from error


def read(file: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a file by name, and its metadata.

    Raises:
      UsageError: it cannot be read or is no sound safetensors file; the message says what is wrong.
    """
    tensors, metadata = read_header(Path(file))
    return {name: tensor.read() for name, tensor in tensors.items()}, metadata


def save(file: str | Path, tree: trees.Tree, metadata: dict[str, str] | None = None, mode: int = READABLE) -> None:
    """Writes the arrays of a pytree under their paths: `params/Dense_0/kernel`. Raises as `write`."""
    write(file, manifest.named(tree), metadata, mode)


def load(file: str | Path, like: trees.Tree, part: str = "") -> trees.Tree:
    """A pytree of the structure of `like` (a Linen dict, an NNX state, an Equinox module) with the arrays of a file.

    Args:
      like: arrays or shapes; leaves are matched by path, and must have the shape and dtype of their partners.
      part: take only what is under this name, `params` or `state` of an exported model; others in the file are left alone.

    Raises:
      UsageError: the file cannot be read, or does not fit; all leaves that are missing, too many or of another shape or dtype
        are listed.
    """
    return fill(like, read(file)[0], part, str(file))


def fill(like: trees.Tree, arrays: dict[str, np.ndarray], part: str = "", where: str = "the file") -> trees.Tree:
    """As `load`, from arrays by name."""
    under = f"{part}/" if part else ""
    found = {name.removeprefix(under): array for name, array in arrays.items() if name.startswith(under)}
    wanted = {name: (tuple(leaf.shape), str(leaf.dtype)) for name, leaf in manifest.named(like).items()}
    problems = manifest.misfits({name: (array.shape, str(array.dtype)) for name, array in found.items()}, wanted)
    if problems:
        raise UsageError(f"{where} does not fit this tree; {problems}")
    return trees.like(like, [jnp.asarray(found[name]) for name in wanted])
