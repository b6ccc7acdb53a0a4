"""Makes a run folder of exported models."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from tna_jax.io import manifest, safetensors
from tna_jax.io.errors import UsageError, collect_errors
from tna_jax.io.formats import FORMAT, check_format
from tna_jax.io.provenance import provenance
from tna_jax.programs.cli import parsing
from tna_jax.programs.cli.messages import wrote
from tna_jax.programs.cli.options import DataOptions, ModelOptions
from tna_jax.programs.cli.progress import plural
from tna_jax.programs.runs.checkpoints import Checkpoints
from tna_jax.programs.runs.exported import ABOUT
from tna_jax.programs.runs.folder import CONFIG, PROVENANCE, Run


@dataclasses.dataclass(frozen=True)
class _Network(ModelOptions, DataOptions):
    """What of a configuration makes the network and its data."""


def import_files(files: Sequence[str], out: str | None, overwrite: bool) -> Run:
    """Writes the run folder; everything that can be refused is refused before."""
    models_read: list[tuple[str, dict[str, np.ndarray], dict[str, Any]]] = []
    collect_errors(*(lambda file=file: models_read.append((file, *read_exported(file))) for file in files))
    first, first_arrays, about = models_read[0]
    wrong = []
    for file, arrays, other in models_read[1:]:
        problems = manifest.misfits(_forms(arrays), _forms(first_arrays))
        known = [field.name for field in dataclasses.fields(_Network) if field.name in about["config"]]
        differing = [name for name in known if other["config"].get(name) != about["config"][name]]
        problems = problems or ", ".join(f"{name} is {other['config'].get(name)}" for name in differing)
        wrong += [f"{file} is of another network than {first}; {problems}"] if problems else []
    if wrong:
        raise UsageError("; ".join(wrong))
    stacked = {name: np.stack([arrays[name] for _, arrays, _ in models_read]) for name in first_arrays}
    models = [other["model"] for *_, other in models_read]
    with Run.create(out, "import", (), overwrite, False) as folder:
        folder.write(PROVENANCE, {**provenance([]), "imported": [str(file) for file in files]})
        folder.write_plan(models, len(models))
        with Checkpoints(folder.checkpoints, minutes=0) as saved:
            saved.save(1, stacked)
        folder.write(CONFIG, {"format": FORMAT, "program": "import", **about["config"]})
    command = ("tna", "fuse", str(folder.folder)) if len(models) > 1 else ("tna", "runs", str(folder.folder.parent))
    wrote(f"{folder.folder}: {plural(len(models), 'model')}", *command)
    return folder


def read_exported(file: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads the arrays of an exported file and what its metadata says of them.

    Raises:
      UsageError: it is not a sound file of `tna export`, or of a later version.
    """
    arrays, metadata = safetensors.read(file)
    if ABOUT not in metadata:
        merged = (
            ": a merge of models that are not all exports of one network and data" if "tna_merge" in metadata else ""
        )
        raise UsageError(
            f"{file} is not a file of tna export{merged}; tna_jax.io.load reads any safetensors file into a pytree"
        )
    try:
        about = json.loads(metadata[ABOUT])
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file}: its description cannot be read: {error}") from error
    if not isinstance(about, dict) or not all(isinstance(about.get(name), dict) for name in ("config", "model")):
        raise UsageError(f"{file}: its description must hold config and model, an object each")
    check_format(about, file)
    known = {field.name for field in dataclasses.fields(_Network)}
    parsing.from_values(_Network, {k: v for k, v in about["config"].items() if k in known}, f"{file}, config")
    outside = [name for name in arrays if not name.startswith(("params/", "state/"))]
    if outside or not arrays:
        raise UsageError(
            f"{file}: arrays must be under params/ or state/; these are not: {', '.join(outside) or 'none'}"
        )
    return arrays, about


def _forms(arrays: dict[str, np.ndarray]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (array.shape, str(array.dtype)) for name, array in arrays.items()}
