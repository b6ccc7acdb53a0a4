"""`tna export RUN`: one model of a run as a safetensors file, with all that it takes to use it inside, or as a Hugging Face folder."""

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import jax

from tna_jax import trees
from tna_jax.io import safetensors
from tna_jax.io.errors import UsageError
from tna_jax.io.formats import FORMAT
from tna_jax.io.restore import nested, newest_parts
from tna_jax.io.runs import PARAMS
from tna_jax.programs.cli import parsing
from tna_jax.programs.cli.messages import print_warning, wrote
from tna_jax.programs.cli.options import ModelOptions
from tna_jax.programs.cli.progress import plural
from tna_jax.programs.data import Dataset
from tna_jax.programs.export.options import ExportOptions
from tna_jax.programs.population.description import RunDescription, description, load_data
from tna_jax.programs.runs.exported import ABOUT
from tna_jax.programs.runs.folder import CONFIG, Run
from tna_jax.programs.system import distributed
from tna_jax.programs.training import hugging_face, model_description, setup
from tna_jax.programs.training.builders import build_model

SHOWN = 3
"""Arrays that an error names."""
DESCRIBED = ("train", "lmc", "federate", "import")
"""Programs whose options say what network and data the models are of."""


def run(settings: ExportOptions) -> Path:
    """Writes the file or folder and returns its path."""
    settings.check()
    folder = Run.open(settings.run)
    recorded = folder.read(CONFIG)
    config = {name: value for name, value in recorded.items() if name not in parsing.ABOUT}
    models, _ = folder.plan()
    if settings.model is None and len(models) > 1:
        raise UsageError(f"{folder.folder} has {len(models)} models: choose one with --model, 0 to {len(models) - 1}")
    index = settings.model or 0
    if not 0 <= index < len(models):
        raise UsageError(f"--model must lie in 0 to {len(models) - 1}, got {index}")
    place = Path(settings.out or folder.folder / f"model-{index}{'' if settings.format == 'hf' else '.safetensors'}")
    if place.exists() and not settings.overwrite:
        raise UsageError(f"{place} exists; name another one with -o, or add --overwrite")
    if not place.parent.is_dir():
        raise UsageError(f"-o {place}: there is no folder {place.parent}")
    if place.exists() and place.is_dir() != (settings.format == "hf"):
        raise UsageError(f"-o {place} is a {'folder' if place.is_dir() else 'file'}; name another one")
    _require_writable(place)
    described, data = of_run(settings, recorded)
    module = build_model(described, data.num_classes) if described and data and not described.own_model else None
    if settings.format == "hf":
        if described is None:
            raise UsageError(
                f"--format hf: {settings.run} is a run of tna {recorded.get('program')}; use --format safetensors"
            )
        hugging_face.require(module)
    try:
        step, arrays = stacked(folder)
    finally:  # of a run that is being replaced the checkpoints are damaged or gone
        folder.require_same()
    wrong = [f"{name} {list(array.shape)}" for name, array in arrays.items() if array.shape[:1] != (len(models),)]
    if wrong:
        raise UsageError(
            f"{folder.folder}: plan.json names {len(models)} models, but these arrays differ: {', '.join(wrong)}"
        )
    if described is not None and data is not None and module is not None:
        _require_network(folder, described, data, arrays)
    about = describe(config, models[index], step)
    if data is not None:
        about["network"] = model_description.describe(config, data, module)
    values = {name: array[index] for name, array in arrays.items()}
    if settings.format == "hf":
        assert data is not None
        params = nested({name: array for name, array in values.items() if name.startswith(PARAMS)})["params"]
        words = f"model {index} of {folder.folder.name}, trained on {data.name}"
        hugging_face.write_folder(place, module, params, {"in_words": words, **about}, data, settings.overwrite)
    else:
        safetensors.write(place, values, {ABOUT: json.dumps(about)})
    if distributed.is_main_process():
        command: tuple[str, ...] = ("tna", "import", str(place))
        if settings.format == "hf" and data is not None:
            command = ("tna", "soup", "--checkpoint", str(place), "--dataset", data.name)
        wrote(f"{place}: model {index} of {folder.folder}, {len(arrays)} arrays, checkpoint {step}", *command)
    return place


def _require_writable(place: Path) -> None:
    """Raises UsageError, before any data and model are read, where the file or folder cannot be written; says how to put it elsewhere."""
    try:
        with tempfile.TemporaryFile(dir=place if place.is_dir() else place.parent):
            pass
    except OSError as error:
        kind = "FOLDER" if place.suffix != ".safetensors" else "FILE"
        raise UsageError(
            f"cannot write {place}: {error.strerror or error}; name another place with -o {kind}"
        ) from error


def _require_network(folder: Run, described: RunDescription, data: Dataset, arrays: dict[str, Any]) -> None:
    """Raises UsageError where the options in config.json make a network of other arrays than the checkpoint's (M, ...)."""
    _, init = setup.build_network(described, data)
    made = jax.eval_shape(init, jax.random.key(0))[0]
    wanted = {f"{PARAMS}{trees.name(path)}": leaf.shape for path, leaf in trees.named_leaves(made)}
    held = {name: array.shape[1:] for name, array in arrays.items() if name.startswith(PARAMS)}
    wrong = [
        f"{name} is {list(held[name]) if name in held else 'missing'}, not {list(wanted[name]) if name in wanted else 'there'}"
        for name in dict.fromkeys([*wanted, *held])
        if held.get(name) != wanted.get(name)
    ]
    if wrong:
        names = [field.name for field in dataclasses.fields(ModelOptions)]
        options = ", ".join(f"{name} {value}" for name in names if (value := getattr(described, name)) is not None)
        more = f"; and {plural(len(wrong) - SHOWN, 'more array')}" if len(wrong) > SHOWN else ""
        raise UsageError(
            f"{folder.folder / CONFIG} says {options} for {data.name}, but the checkpoint is of another network: "
            f"{'; '.join(wrong[:SHOWN])}{more}; write there what the run was trained with"
        )


def of_run(settings: ExportOptions, config: dict[str, Any]) -> tuple[RunDescription | None, Dataset | None]:
    """Returns the options of the network and the data, and the data; None, with a warning, for what cannot be known."""
    if config.get("program", "train") not in DESCRIBED:
        return None, None
    described = description(config, settings.run, settings.data_dir, settings.trust_code)
    try:
        return described, load_data(described)
    except UsageError as error:
        if settings.format == "hf":
            raise
        print_warning(
            f"the data cannot be read, so the file does not say how inputs are scaled and what the classes are: {error}"
        )
        return described, None


def describe(config: dict[str, Any], model: dict[str, Any], step: int) -> dict[str, Any]:
    """Returns the metadata of a model: its anchors are drawn again from `mask` alone, see `tna_jax.masks.AnchorRecipe`."""
    mask = {
        "kind": config.get("anchors"),
        "ratio": model.get("ratio"),
        "seed": model.get("seed"),
        "where": config.get("where"),
        "soft": config.get("soft"),
    }
    return {"format": FORMAT, "config": config, "model": model, "mask": mask, "checkpoint": step}


def stacked(folder: Run) -> tuple[int, dict[str, Any]]:
    """Reads the newest undamaged checkpoint: its step, and its parameters and norm state by name, (M, ...).

    Raises:
      UsageError: there is none.
    """
    step, arrays, damaged = newest_parts(folder.checkpoints, "params", "state")
    for bad, reason in damaged.items():
        print_warning(f"checkpoint {bad} is damaged: {reason}; using checkpoint {step}")
    return step, arrays
