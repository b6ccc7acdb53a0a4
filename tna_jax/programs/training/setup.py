"""From the options to what an ensemble needs: data, network, trainer; all that can be refused is refused here."""

import dataclasses
from typing import Any, NamedTuple

import jax

from tna_jax import augment, networks, program_cache
from tna_jax.ensemble import Trainer
from tna_jax.io.errors import UsageError
from tna_jax.io.formats import FORMAT
from tna_jax.io.json_files import to_json
from tna_jax.io.provenance import provenance
from tna_jax.networks import Network
from tna_jax.programs.cli import checkpoint_names, parsing
from tna_jax.programs.cli.messages import print_warning
from tna_jax.programs.cli.options import Settings
from tna_jax.programs.data import Dataset
from tna_jax.programs.runs.folder import CONFIG, PROVENANCE, Run
from tna_jax.programs.system import distributed
from tna_jax.programs.training import anchors, model_files, objective_fit, own_models
from tna_jax.programs.training.builders import build_model, build_optimizer, load_data


class TrainingSetup(NamedTuple):
    """What an ensemble needs for training."""

    data: Dataset
    network: Network
    init: Any
    """A key to (params, state)."""
    trainer: Trainer


def prepare(settings: Settings) -> TrainingSetup:
    """Returns the data, the network and the trainer of `settings`; raises UsageError where they do not go together."""
    data, net, init = load(settings)
    objective_fit.check_fit(settings, data, net, init)
    examples = len(data.train.labels)
    if settings.batch_size > examples:
        raise UsageError(f"--batch-size {settings.batch_size} is larger than the {examples} training examples")
    try:
        jax.eval_shape(anchors.recipe(settings).draw, program_cache.output_shapes(init, jax.random.key(0))[0])
    except ValueError as error:
        raise UsageError(f"--where: {error}") from error
    optimizer = build_optimizer(settings, -(-examples // settings.batch_size))
    change = augment.create(settings.augment)
    objective = objective_fit.objective_of(settings)
    trainer = Trainer(net, optimizer, settings.batch_size, settings.placement, change, objective=objective)
    return TrainingSetup(data, net, init, trainer)


def load(settings: Any) -> tuple[Dataset, Network, Any]:
    """Returns the data, the network and its initialization, for any options that have those of data, network and machine."""
    data = load_data(settings)
    return data, *build_network(settings, data)


def build_network(settings: Any, data: Dataset) -> tuple[Network, Any]:
    """Returns the network for the data and its initialization, a key to (params, state)."""
    if getattr(settings, "own_model", False):
        return own_models.build(settings, data)
    module = build_model(settings, data.num_classes, settings.precision)
    try:
        return networks.linen(module, data.image_shape, data.preprocess)
    except (ValueError, TypeError) as error:
        raise UsageError(f"--model {settings.model} on images of {data.image_shape}: {error}") from error


def record(folder: Run, program: str, settings: Any, seeds: list[int], files: model_files.Hashes | None = None) -> None:
    """Writes the run's configuration and provenance, or compares them with those of the run to resume; opens its trackers.

    Of the options that do not shape the result, config.json keeps those that `tna resume` needs, under `started_with`. It is
    written last: a folder without it holds nothing worth keeping.

    Args:
      folder: of the run.
      program: its name.
      settings: its options, as a run records them.
      seeds: that it uses.
      files: the hashes of the models that it starts from; config.json keeps them under `files`.

    Raises:
      UsageError: the run to resume is of another program, other options, or other files; all of them are named.
    """
    started = distributed.broadcast_text(str(settings.resume and folder.has(CONFIG))) == "True"
    if not started:
        folder.write(PROVENANCE, provenance(seeds))
        kept = [key for key in PASSING_OPTIONS if key not in OF_ONE_START and hasattr(settings, key)]
        with_options = {key: getattr(settings, key) for key in kept}
        about = {"format": FORMAT, "program": program, "started_with": with_options}
        read = {} if files is None else {"files": files}
        folder.write(CONFIG, {**about, **read, **result_options(settings)})
        folder.watch(getattr(settings, "log", None), to_json(result_options(settings)))
        return
    config, now = folder.read(CONFIG), to_json(result_options(settings))
    if distributed.broadcast_text(str(folder.has(PROVENANCE))) != "True":
        print_warning(f"{folder.folder / PROVENANCE} was gone: from now on it says when and where the run was resumed")
        folder.write(PROVENANCE, provenance(seeds))
    if config.get("program", program) != program:
        raise UsageError(f"--resume: {folder.folder} is a run of tna {config['program']}, not of tna {program}")
    before = {key: value for key, value in config.items() if key not in parsing.ABOUT}
    changed = sorted(key for key in {*before, *now} if _value(key, before) != _value(key, now))
    if changed:
        changes = ", ".join(f"{key} was {before.get(key)}, is {now.get(key)}" for key in changed)
        raise UsageError(f"--resume: the options are not those of {folder.folder}: {changes}")
    model_files.require_same(config.get("files"), files or {}, folder.folder)
    folder.watch(getattr(settings, "log", None), now)


PLACES = ("checkpoint", "models")
"""Options that name folders; runs of before hold them as they were given."""


def _value(key: str, config: dict[str, Any]) -> Any:
    """Returns what a configuration says, folders by their absolute paths."""
    value = config.get(key)
    if key not in PLACES or not isinstance(value, str | list):
        return value
    return [checkpoint_names.absolute(str(name)) for name in (value if isinstance(value, list) else [value])]


PASSING_OPTIONS = (
    "out", "overwrite", "resume", "checkpoint_minutes", "checkpoint_every", "checkpoints_kept", "cpu_devices", "data_dir",
    "download", "memory_limit", "log", "trust_code", "distributed", "coordinator", "num_processes", "process_id",
)  # fmt: skip
"""Options that do not shape the result."""
OF_ONE_START = ("out", "overwrite", "resume", "trust_code", "distributed", "coordinator", "num_processes", "process_id")
"""Of these, those that are not kept: they are passed at every start."""


UNSAID = {
    "recipe": None, "model_options": None, "model_sha256": None, "objective": "classification", "objective_options": None,
    "objective_sha256": None, "target": None, "image_size": None,
    "dataset_sha256": None, "data_fingerprint": None, "task_fingerprints": None,
}  # fmt: skip
"""Options that are recorded only where they differ from these: runs from before they were there have none."""


def result_options(settings: Any) -> dict[str, Any]:
    """Returns the options that shape the result, as config.json keeps them."""
    options = dataclasses.asdict(settings)
    unsaid = UNSAID | getattr(settings, "UNSAID", {})
    left_out = {key for key, value in unsaid.items() if options.get(key) == value}
    return {key: value for key, value in options.items() if key not in left_out and key not in PASSING_OPTIONS}


def result_config(config: dict[str, Any]) -> dict[str, Any]:
    """Returns what of a config.json shapes the result, as results repeat it."""
    return {key: value for key, value in config.items() if key not in ("started_with", "files")}
