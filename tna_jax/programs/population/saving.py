"""Writes models made of a population's: a run folder with them as its models, or a safetensors file or Hugging Face folder of each."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from tna_jax.io import manifest, safetensors
from tna_jax.io.errors import UsageError
from tna_jax.io.formats import FORMAT
from tna_jax.io.provenance import provenance
from tna_jax.masks import Params
from tna_jax.networks import State
from tna_jax.programs.cli import parsing
from tna_jax.programs.population.load import Population
from tna_jax.programs.runs.checkpoints import Checkpoints
from tna_jax.programs.runs.exported import ABOUT
from tna_jax.programs.runs.folder import CONFIG, PROVENANCE, Run
from tna_jax.programs.training import hugging_face, model_description

ANCHOR_FACTS = ("seed", "ratio", "method")
"""What plan.json says of a model's anchors: they stay with what is written where they hold for it."""
Format = Literal["run", "safetensors", "hf"]


def check(out: str, chosen: Format, overwrite: bool, population: Population, runs: tuple[str, ...]) -> None:
    """Raises UsageError for models that cannot be written in the chosen form, or over something, before any work."""
    folder = Path(out)
    if any(folder.resolve() == Path(run).resolve() for run in runs):
        raise UsageError(f"--out {out} is a run that is read; name another folder")
    if folder.exists() and not overwrite:
        raise UsageError(f"--out {out} exists; name another folder, or add --overwrite")
    if chosen == "hf":
        hugging_face.require(population.module)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {out} is a file; a folder is written")


def write(
    out: str, chosen: Format, overwrite: bool, population: Population, models: Mapping[str, tuple[Params, State]],
    described: Mapping[str, dict[str, Any]], seed: int, origin: dict[str, Any], program: str,
) -> Path:  # fmt: skip
    """Writes models by name; returns the folder.

    Args:
      out: the folder.
      chosen, overwrite: how, and whether over something.
      population: of whose models they were made.
      models: (params, state) by name.
      described: what plan.json says of each.
      seed: of the program.
      origin: what provenance.json says of the runs.
      program: what made them, for the name of a run without one.
    """
    folder = Path(out)
    config = {name: value for name, value in population.config.items() if name not in parsing.ABOUT}
    if chosen == "run":
        stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *models.values())
        arrays = manifest.named(
            {"params": stacked[0], **({"state": stacked[1]} if jax.tree.leaves(stacked[1]) else {})}
        )
        with Run.create(out, program, (), overwrite, False) as run:
            run.write(PROVENANCE, {**provenance([seed]), **origin})
            run.write_plan([described[name] for name in models], len(models))
            with Checkpoints(run.checkpoints, minutes=0) as saved:
                saved.save(1, arrays)
            run.write(CONFIG, {"format": FORMAT, "program": "import", **config})
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, (params, statistics) in models.items():
        about = {"format": FORMAT, "config": config, "model": described[name], "mask": _mask(config, described[name]),
                 "network": model_description.describe(config, population.data, population.module)}  # fmt: skip
        if chosen == "hf":
            runs = dict.fromkeys(model["run"] for model in population.models)
            about = {"in_words": f"{name} of {', '.join(runs)}, trained on {population.data.name}", **about}
            hugging_face.write_folder(folder / name, population.module, params, about, population.data, overwrite)
            continue
        tree = {"params": params, **({"state": statistics} if jax.tree.leaves(statistics) else {})}
        safetensors.save(folder / f"{name}.safetensors", tree, {ABOUT: json.dumps(about)})
    return folder


def _mask(config: dict[str, Any], model: dict[str, Any]) -> dict[str, Any] | None:
    if "seed" not in model:
        return None
    return {"kind": config.get("anchors"), "ratio": model["ratio"], "seed": model["seed"], "where": config.get("where"),
            "soft": config.get("soft")}  # fmt: skip
