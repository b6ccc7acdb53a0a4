"""Writes one of our transformers as a Hugging Face model folder, as `transformers` does: names, config.json, shards."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tna_jax import trees
from tna_jax.hf import config as hf_config
from tna_jax.hf import dinov2_config
from tna_jax.hf import names as hf_names
from tna_jax.hf.config import shapes_of
from tna_jax.hf.model_types import TYPES
from tna_jax.io import safetensors
from tna_jax.io.errors import UsageError, unknown
from tna_jax.io.json_files import write_atomic
from tna_jax.io.tensor_headers import DTYPES, INDEX, SINGLE

KINDS = {"float32": DTYPES["F32"], "float16": DTYPES["F16"], "bfloat16": DTYPES["BF16"]}
"""What parameters may be saved as, by the names of config.json."""
METADATA = {"format": "pt"}
"""Without which transformers refuses a file."""


def save(
    folder: str | Path,
    module: Any,
    params: Any,
    config: dict[str, Any] | None = None,
    *,
    dtype: str = "float32",
    shard_bytes: int | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Writes config.json and model.safetensors, or shards and their index; returns the files. Each is whole or not there.

    Laws: what was loaded comes back bit for bit (with `dtype` that of the files); saving the same again writes the same bytes.

    Args:
      folder: created if it is not there.
      module: a ViT, Dinov2, Bert, GPT2 or Llama of `tna_jax.models`.
      params: its parameters, of one model, any floats.
      config: of the folder that the model came from (`Loaded.config`): what our fields do not say is kept from it.
      dtype: float32, float16 or bfloat16; the last two round.
      shard_bytes: the most that a file may hold (a larger tensor gets its own); None: one file.
      overwrite: replace the model in the folder.

    Raises:
      UsageError: a model is there already, an unknown dtype, a module without Hugging Face form, or parameters that are not
        the module's; all leaves that differ are listed.
    """
    if dtype not in KINDS:
        raise unknown("dtype", dtype, KINDS)
    kind = hf_config.model_type(module, config)
    arrays = {trees.name(path): np.asarray(leaf) for path, leaf in trees.named_leaves(params)}
    channels = arrays["body/patches/kernel"].shape[2] if "body/patches/kernel" in arrays else 3
    shapes = {path: array.shape for path, array in arrays.items()}
    described = hf_config.describe(module, shapes, config, dtype)
    if hf_config.type_of(module) in hf_config.VISION:
        module = module.clone(image_size=described["image_size"])
    _check(shapes, shapes_of(module, channels))
    places = {path: hf_names.place(kind, module.head, path, array.ndim) for path, array in arrays.items()}
    bare = module.head in ("pooled", "none")
    _require_range(arrays, dtype)
    tensors = {
        places[path].name.removeprefix(f"{TYPES[kind].prefix}." if bare else ""): places[path]
        .outward(array)
        .astype(KINDS[dtype])
        for path, array in arrays.items()
    }
    if kind == dinov2_config.REGISTERS:  # transformers has one, whether it is used or not
        mask_token = f"{'' if bare else f'{TYPES[kind].prefix}.'}embeddings.mask_token"
        tensors[mask_token] = np.zeros((1, module.width), KINDS[dtype])
    folder = Path(folder)
    old = [file for file in (folder.iterdir() if folder.is_dir() else ()) if _is_model(file)]
    if old and not overwrite:
        raise UsageError(f"{folder} holds a model already ({', '.join(sorted(file.name for file in old))})")
    folder.mkdir(parents=True, exist_ok=True)
    for file in old:
        file.unlink()
    shards = _shards(dict(sorted(tensors.items())), shard_bytes)
    files = [folder / name for name in shards]
    for file in files:
        safetensors.write(file, shards[file.name], METADATA)
    if len(shards) > 1:
        size = sum(array.nbytes for array in tensors.values())
        where = {name: file for file, held in shards.items() for name in held}
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(where.items()))}
        write_atomic(folder / INDEX, (json.dumps(index, indent=2) + "\n").encode())
        files.append(folder / INDEX)
    write_atomic(folder / hf_config.CONFIG, hf_config.text(described).encode())
    return [*files, folder / hf_config.CONFIG]


def _is_model(file: Path) -> bool:
    return file.name in (INDEX, hf_config.CONFIG) or (file.name.startswith("model") and file.suffix == ".safetensors")


def _require_range(arrays: dict[str, np.ndarray], dtype: str) -> None:
    """Raises UsageError that names every parameter which a narrower dtype cannot hold: it would be saved as infinite."""
    largest = float(ml_dtypes.finfo(KINDS[dtype]).max)
    wrong = []
    for path, array in arrays.items():
        sizes = np.abs(np.asarray(array, np.float64))
        if (most := sizes.max(where=np.isfinite(sizes), initial=0)) > largest:
            wrong.append(f"{path} ({most:.3g})")
    if wrong:
        raise UsageError(
            f"{dtype} holds numbers up to {largest:.3g}, and these parameters are larger: {', '.join(wrong)}; save them in a wider dtype"
        )


def _check(shapes: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]) -> None:
    differing = [
        f"{path} ({list(shapes[path]) if path in shapes else 'missing'} instead of "
        f"{list(expected[path]) if path in expected else 'none'})"
        for path in sorted({*shapes, *expected})
        if shapes.get(path) != expected.get(path)
    ]
    if differing:
        hint = "; one model is saved, not a stack of them" if shapes else ""
        raise UsageError(f"these parameters are not the module's: {', '.join(differing)}{hint}")


def _shards(tensors: dict[str, np.ndarray], most: int | None) -> dict[str, dict[str, np.ndarray]]:
    """Returns the tensors of each file, by its name."""
    parts: list[dict[str, np.ndarray]] = [{}]
    size = 0
    for name, array in tensors.items():
        if most is not None and parts[-1] and size + array.nbytes > most:
            parts.append({})
            size = 0
        parts[-1][name] = array
        size += array.nbytes
    if len(parts) == 1:
        return {SINGLE: parts[0]}
    return {f"model-{i:05d}-of-{len(parts):05d}.safetensors": part for i, part in enumerate(parts, start=1)}
