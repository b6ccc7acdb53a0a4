"""Writes models made of a population's: a run folder with them as its models, or a safetensors file or Hugging Face folder of each."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from tna_jax.io import manifest, safetensors
from tna_jax.io.errors import UsageError
from tna_jax.io.formats import FORMAT
from tna_jax.io.orbax_store import require_plain
from tna_jax.io.provenance import provenance
from tna_jax.masks import Params
from tna_jax.networks import State
from tna_jax.programs.cli import parsing
from tna_jax.programs.population import staging
from tna_jax.programs.population.load import Population
from tna_jax.programs.runs.checkpoints import Checkpoints
from tna_jax.programs.runs.exported import ABOUT
from tna_jax.programs.runs.folder import CONFIG, PROVENANCE, Run
from tna_jax.programs.system import distributed
from tna_jax.programs.training import hugging_face, model_description

Format = Literal["run", "safetensors", "hf"]


def check(out: str, chosen: Format, overwrite: bool, population: Population, runs: tuple[str, ...]) -> None:
    """Raises UsageError for models that cannot be written in the chosen form, or over something, before any work."""
    folder = Path(out)
    if any(folder.resolve() == Path(run).resolve() for run in runs):
        raise UsageError(f"--out {out} is a run that is read; name another folder")
    staging.check(folder, overwrite)
    if chosen == "run":
        require_plain(folder, "--out ")
    if chosen == "hf":
        hugging_face.require(population.module)


def write(
    out: str, chosen: Format, population: Population, models: Mapping[str, tuple[Params, State]],
    described: Mapping[str, dict[str, Any]], seed: int, origin: dict[str, Any], beside: Callable[[Path], None] | None = None,
) -> Path:  # fmt: skip
    """Writes models by name, all or none; returns the folder.

    Args:
      out: the folder; models that lie there are replaced.
      chosen: how they are written.
      population: of whose models they were made.
      models: (params, state) by name.
      described: what plan.json says of each.
      seed: of the program.
      origin: what provenance.json says of the runs.
      beside: writes what else belongs into the folder; only the first of several processes calls it.

    Raises:
      UsageError: the folder cannot be written.
    """
    folder = Path(out)
    try:
        with staging.whole_folder(folder) as staged:
            if chosen == "run":
                _write_run(staged, population, models, described, seed, origin)
            elif distributed.is_main_process():
                _write_files(staged, chosen, population, models, described)
            if beside is not None and distributed.is_main_process():
                beside(staged)
    except OSError as error:
        raise UsageError(f"cannot write --out {out}: {error.strerror or error}") from error
    return folder


def _write_run(
    folder: Path, population: Population, models: Mapping[str, tuple[Params, State]], described: Mapping[str, dict[str, Any]],
    seed: int, origin: dict[str, Any],
) -> None:  # fmt: skip
    stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *models.values())
    arrays = manifest.named({"params": stacked[0], **({"state": stacked[1]} if jax.tree.leaves(stacked[1]) else {})})
    with Run.create(str(folder), "models", (), False, False) as run:
        run.write(PROVENANCE, {**provenance([seed]), **origin})
        run.write_plan([described[name] for name in models], len(models))
        with Checkpoints(run.checkpoints, minutes=0) as saved:
            saved.save(1, arrays)
        run.write(CONFIG, {"format": FORMAT, "program": "import", **_config(population)})


def _write_files(
    folder: Path, chosen: Format, population: Population, models: Mapping[str, tuple[Params, State]],
    described: Mapping[str, dict[str, Any]],
) -> None:  # fmt: skip
    config = _config(population)
    for name, (params, statistics) in models.items():
        about = {"format": FORMAT, "config": config, "model": described[name], "mask": _mask(config, described[name]),
                 "network": model_description.describe(config, population.data, population.module)}  # fmt: skip
        if chosen == "hf":
            runs = dict.fromkeys(model["run"] for model in population.models)
            about = {"in_words": f"{name} of {', '.join(runs)}, trained on {population.data.name}", **about}
            hugging_face.write_folder(folder / name, population.module, params, about, population.data, False)
            continue
        tree = {"params": params, **({"state": statistics} if jax.tree.leaves(statistics) else {})}
        safetensors.save(folder / f"{name}.safetensors", tree, {ABOUT: json.dumps(about)})


def _config(population: Population) -> dict[str, Any]:
    return {name: value for name, value in population.config.items() if name not in parsing.ABOUT}


def _mask(config: dict[str, Any], model: dict[str, Any]) -> dict[str, Any] | None:
    if "seed" not in model:
        return None
    return {"kind": config.get("anchors"), "ratio": model["ratio"], "seed": model["seed"], "where": config.get("where"),
            "soft": config.get("soft")}  # fmt: skip
