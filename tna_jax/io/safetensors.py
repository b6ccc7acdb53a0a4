"""Arrays by name in safetensors files, and pytrees of any framework from and to them. Nothing in a file is ever executed.

    io.save("model.safetensors", {"params": params})
    params = io.load("model.safetensors", like=params, part="params")   # Linen, NNX, Equinox: matched by name

Headers are checked before anything is read, see `tna_jax.io.tensor_headers`.
"""

from pathlib import Path
from typing import Any

import jax
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
    """Writes arrays by name into a safetensors file, whole or not at all.

    Args:
      file: to write; replaced if it is there.
      arrays: by name, of any shape, order and byte order, of the dtypes in `tensor_headers.DTYPES`.
      metadata: texts by name, kept in the file's header.
      mode: who may read the file, as `os.chmod` takes it.

    Raises:
      UsageError: an array has another dtype, or a name that the format keeps for itself or cannot hold, or the file cannot be written.
    """
    keys = [
        name
        for name, array in arrays.items()
        if jnp.issubdtype(getattr(array, "dtype", np.float32), jax.dtypes.prng_key)
    ]
    if keys:
        raise UsageError(
            f"keys cannot be kept in a safetensors file, their words can: jax.random.key_data of {', '.join(keys)}"
        )
    if odd := [
        f"{name} ({type(text).__name__})" for name, text in (metadata or {}).items() if not isinstance(text, str)
    ]:
        raise UsageError(f"metadata of a safetensors file are texts, these are not: {', '.join(odd)}")
    ready = {name: _native(np.asarray(array)) for name, array in arrays.items()}
    odd = [repr(name) for name in ready if name == METADATA or not _is_text(name)]
    if odd:
        raise UsageError(f"no array can be called so in a safetensors file: {', '.join(odd)}; give it another name")
    unknown = [f"{name} ({array.dtype})" for name, array in ready.items() if array.dtype not in DTYPES.values()]
    if unknown:
        raise UsageError(f"cannot be kept in a safetensors file: {', '.join(unknown)}")
    try:
        with atomic_file(Path(file), mode) as unfinished:
            save_file(ready, unfinished, metadata)
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror or error}") from error


METADATA = "__metadata__"
"""The format's own entry."""


def _native(array: np.ndarray) -> np.ndarray:
    """Returns an array in C order and little-endian, as the format has it."""
    return np.array(array, array.dtype.newbyteorder("<"), order="C", copy=None)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def read(file: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Reads the arrays of a safetensors file by name, and its metadata.

    Raises:
      UsageError: it cannot be read or is not a sound safetensors file; the message says what is wrong.
    """
    tensors, metadata = read_header(Path(file))
    return {name: tensor.read() for name, tensor in tensors.items()}, metadata


def save(file: str | Path, tree: trees.Tree, metadata: dict[str, str] | None = None, mode: int = READABLE) -> None:
    """Writes the arrays of a pytree (Linen, NNX or Equinox) under their paths: `params/Dense_0/kernel`.

    Law: `load(file, like=tree)` returns the same bits. Other arguments and errors as in `write`.
    """
    write(file, manifest.named(tree), metadata, mode)


def load(file: str | Path, like: trees.Tree, part: str = "") -> trees.Tree:
    """Reads a file into a pytree of the structure of `like` (a Linen dict, an NNX state, an Equinox module).

    A leaf that is a NumPy array is read as one, in its own dtype; all others become JAX arrays.

    Args:
      like: arrays or shapes; leaves are matched by path, and must have the shape and dtype of their partners.
      part: take only what is under this name, `params` or `state` of an exported model; others in the file are left alone.

    Raises:
      UsageError: the file cannot be read, or does not fit; all leaves that are missing, too many, of another shape or dtype, or of one that
        JAX would read in fewer bits (64, without jax_enable_x64) are listed.
    """
    return fill(like, read(file)[0], part, str(file))


def fill(like: trees.Tree, arrays: dict[str, np.ndarray], part: str = "", where: str = "the file") -> trees.Tree:
    """Returns a pytree of the structure of `like` with arrays by name, matched by path.

    Args:
      like, part: as in `load`.
      arrays: by name, `params/Dense_0/kernel`.
      where: what the arrays are called in the error.

    Raises:
      UsageError: the arrays do not fit; all leaves that are missing, too many or of another shape or dtype are listed; or leaves of
        `like` that are neither arrays nor shapes.
    """
    under = f"{part}/" if part else ""
    present = {name.removeprefix(under): array for name, array in arrays.items() if name.startswith(under)}
    leaves = manifest.named(like)
    odd = [name for name, leaf in leaves.items() if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype"))]
    if odd:
        raise UsageError(
            f"leaves of `like` must be arrays or shapes (jax.ShapeDtypeStruct), whose types are known; these are not: {', '.join(odd)}"
        )
    expected = {name: (tuple(leaf.shape), str(leaf.dtype)) for name, leaf in leaves.items()}
    narrow = [
        f"{name} ({array.dtype})" for name, array in present.items()
        if name in expected and not isinstance(leaves[name], np.ndarray) and jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype
    ]  # fmt: skip
    if narrow:
        raise UsageError(
            f"{where} holds what JAX would read in fewer bits: {', '.join(narrow)}; set jax_enable_x64, or give NumPy arrays as the "
            "leaves of `like`: they are read as they are"
        )
    problems = manifest.misfits({name: (array.shape, str(array.dtype)) for name, array in present.items()}, expected)
    if problems:
        raise UsageError(f"{where} does not fit this tree; {problems}")
    return trees.like(
        like,
        [present[name] if isinstance(leaves[name], np.ndarray) else jnp.asarray(present[name]) for name in expected],
    )
