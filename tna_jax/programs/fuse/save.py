"""Writes the fused models of `tna fuse --out`: a run folder with them as its models, or a safetensors file or Hugging Face folder of each."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import repair
from tna_jax.averaging import average_stacked
from tna_jax.ensemble import member
from tna_jax.io import manifest, safetensors
from tna_jax.io.errors import UsageError
from tna_jax.io.formats import FORMAT
from tna_jax.io.provenance import provenance
from tna_jax.masks import Params
from tna_jax.networks import State, Stateful
from tna_jax.programs.cli import parsing
from tna_jax.programs.fuse import anchors
from tna_jax.programs.fuse.merges import Merge
from tna_jax.programs.fuse.options import FuseOptions
from tna_jax.programs.fuse.scoring import Finished, written
from tna_jax.programs.population.fusion_methods import Fusions
from tna_jax.programs.population.load import Population
from tna_jax.programs.population.repairs import Repairable
from tna_jax.programs.runs.checkpoints import Checkpoints
from tna_jax.programs.runs.exported import ABOUT
from tna_jax.programs.runs.folder import CONFIG, PROVENANCE, Run
from tna_jax.programs.training import hugging_face, model_description

ANCHOR_FACTS = ("seed", "ratio", "method")
"""What plan.json says of a model's anchors: a fused model has them where all of its models say the same."""


def check(settings: FuseOptions, population: Population, repairable: Repairable | None) -> None:
    """Raises UsageError for models that cannot be written in the chosen form, or over something, before any work."""
    if settings.out is None:
        return
    out = Path(settings.out)
    if out.exists() and not settings.overwrite:
        raise UsageError(f"--out {out} exists; name another folder, or add --overwrite")
    if settings.format == "hf":
        hugging_face.require(population.module)
    if out.exists() and settings.overwrite and not out.is_dir():
        raise UsageError(f"--out {out} is a file; a folder is written")


def write(
    settings: FuseOptions, population: Population, members: Params, state: State, found: Fusions, calibration: Any,
    repairable: Repairable | None, merged: list[Merge],
) -> Path:  # fmt: skip
    """Writes the best single model, the uniform and the greedy soup, and the merges; returns the folder.

    Running statistics of soups are estimated again, and soups are repaired, as where they were evaluated.

    Raises:
      UsageError: a repaired network has layers without a bias, whose shifts its parameters cannot hold.
    """
    assert settings.out is not None
    count = len(population.models)
    weights = {
        "best": np.eye(count, dtype=np.float32)[found.best],
        "uniform": np.full(count, 1 / count, np.float32),
        "greedy": (found.recipe.weights / found.recipe.weights.sum()).astype(np.float32),
    }
    models = {
        name: _fused(population, members, state, shares, calibration, repairable) for name, shares in weights.items()
    }
    if repairable is None:  # REPAIR rescales units, anchors among them
        ends = [jax.tree.map(np.asarray, member(members, i)) for i in range(count)]
        kept = anchors.shared(ends)
        for name, (params, _) in models.items():
            anchors.verify(name, params, ends[0], kept)
    described = {name: _described(population, name, shares) for name, shares in weights.items()}
    for merge in merged:
        if merge.method != "average":  # which is the uniform soup
            models[merge.method] = written(merge.method, merge.model)
            uniform = {key: value for key, value in described["uniform"].items() if key != "weights"}
            described[merge.method] = {**uniform, "fusion": merge.method, "options": merge.options}
    out = Path(settings.out)
    if settings.format == "run":
        _write_run(settings, population, models, described)
        return out
    out.mkdir(parents=True, exist_ok=True)
    config = {name: value for name, value in population.config.items() if name not in parsing.ABOUT}
    for name, (params, statistics) in models.items():
        about = {"format": FORMAT, "config": config, "model": described[name], "mask": _mask(config, described[name]),
                 "network": model_description.describe(config, population.data, population.module)}  # fmt: skip
        if settings.format == "hf":
            words = f"{name} of {', '.join(Path(run).name for run in settings.runs)}, trained on {population.data.name}"
            about = {"in_words": words, **about}
            hugging_face.write_folder(out / name, population.module, params, about, population.data, settings.overwrite)
            continue
        tree = {"params": params, **({"state": statistics} if jax.tree.leaves(statistics) else {})}
        safetensors.save(out / f"{name}.safetensors", tree, {ABOUT: json.dumps(about)})
    return out


def _fused(
    population: Population,
    members: Params,
    state: State,
    shares: np.ndarray,
    calibration: Any,
    repairable: Repairable | None,
) -> tuple[Params, State]:
    used = np.flatnonzero(shares)
    if len(used) == 1:
        return member(members, int(used[0])), member(state, int(used[0]))
    average = average_stacked(members, shares)
    if repairable is not None:
        module, preprocess = repairable
        ends = [member(members, int(i)) for i in used]
        repaired = repair.repair(module, average, ends, shares[used], jnp.asarray(calibration), preprocess=preprocess)
        return written("a soup", Finished(repaired.params, (), repaired.shift))
    network = population.network
    if not isinstance(network, Stateful):
        return average, ()
    return average, repair.reset_batch_stats(network, average, member(state, int(used[0])), jnp.asarray(calibration))


def _described(population: Population, name: str, shares: np.ndarray) -> dict[str, Any]:
    """Returns what plan.json says of a fused model: of what it was made, and its anchors where all its models share them."""
    used = [population.models[i] for i in np.flatnonzero(shares)]
    alike = {key: used[0].get(key) for key in ANCHOR_FACTS if all(model.get(key) == used[0].get(key) for model in used)}
    shared = alike if len(alike) == len(ANCHOR_FACTS) else {}
    parts = [{"run": model["run"], "number": model["number"]} for model in used]
    return {**shared, "fusion": name, "merged": parts, "weights": shares[np.flatnonzero(shares)].tolist()}


def _mask(config: dict[str, Any], model: dict[str, Any]) -> dict[str, Any] | None:
    if "seed" not in model:
        return None
    return {"kind": config.get("anchors"), "ratio": model["ratio"], "seed": model["seed"], "where": config.get("where"),
            "soft": config.get("soft")}  # fmt: skip


def _write_run(
    settings: FuseOptions, population: Population, models: dict[str, tuple[Params, State]], described: dict[str, Any]
) -> None:
    stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *models.values())
    arrays = manifest.named({"params": stacked[0], **({"state": stacked[1]} if jax.tree.leaves(stacked[1]) else {})})
    config = {name: value for name, value in population.config.items() if name not in parsing.ABOUT}
    with Run.create(settings.out, "fused", (), settings.overwrite, False) as folder:
        folder.write(PROVENANCE, {**provenance([settings.seed]), "fused": list(settings.runs)})
        folder.write_plan(list(described.values()), len(described))
        with Checkpoints(folder.checkpoints, minutes=0) as saved:
            saved.save(1, arrays)
        folder.write(CONFIG, {"format": FORMAT, "program": "import", **config})
