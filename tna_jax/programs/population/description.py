"""What of a run's configuration makes its data and network again."""

import dataclasses
from typing import Any

from tna_jax.io.errors import UsageError
from tna_jax.networks import Network
from tna_jax.programs.cli import arguments, catalog, parsing, ranges
from tna_jax.programs.cli.code_options import AnyModelOptions
from tna_jax.programs.cli.options import DataOptions, TrainingOptions
from tna_jax.programs.cli.run_options import MachineOptions
from tna_jax.programs.data import Dataset
from tna_jax.programs.data.search_path import DOWNLOAD
from tna_jax.programs.runs.folder import CONFIG
from tna_jax.programs.training import builders, setup

OF_TRANSFORMERS = ("pretrain", "soup", "cold")
"""Programs whose runs hold transformers, made of a checkpoint: their options make no network."""


@dataclasses.dataclass(frozen=True)
class RunDescription(MachineOptions, AnyModelOptions, DataOptions):
    """The options of a run that make its data and network."""


def description(config: dict[str, Any], run: str, data_dir: str | None, trust_code: bool = False) -> RunDescription:
    """Returns the options that `config` holds, but for the folder of the data.

    Args:
      config: the contents of the run's config.json.
      run: the folder's name, for errors.
      data_dir: where the data sets are, if not where $TNA_DATA_DIR says.
      trust_code: whether code that it names runs unseen (`--trust-code`).

    Raises:
      UsageError: options of a wrong type, or that this version does not know; a run of transformers.
    """
    if config.get("program") in OF_TRANSFORMERS:
        raise UsageError(
            f"{run} is a run of tna {config['program']}: its models are transformers. Give a run of tna train, lmc, federate or import; the "
            "Hugging Face folders in it are averaged by tna soup --models and tna merge"
        )
    known = {field.name for field in dataclasses.fields(RunDescription)}
    of_the_machine = {field.name for field in dataclasses.fields(MachineOptions)} - {"precision"} | {"trust_code"}
    values = {key: value for key, value in config.items() if key in known - of_the_machine}
    _require_sound(config, known | of_the_machine, f"{run}/{CONFIG}")
    described = parsing.from_values(RunDescription, {**values, "data_dir": data_dir}, f"{run}/{CONFIG}")
    try:
        ranges.check(described)
    except UsageError as error:
        raise UsageError(f"{run}/{CONFIG}: {error}") from error
    return dataclasses.replace(described, trust_code=trust_code)


def _require_sound(config: dict[str, Any], apart: set[str], where: str) -> None:
    """Raises UsageError for options of a run's program, but those of `apart`, that its command line would refuse: results speak of them."""
    name = config.get("program", "train")
    cls = catalog.options_of(name) if name in catalog.PROGRAMS and name != "import" else TrainingOptions
    fields = {option.field for option in arguments.options(cls) if not option.metavar} - apart
    values = {key: value for key, value in config.items() if key in fields and value is not None}
    recorded: Any = parsing.from_values(cls, values, where)
    try:
        ranges.check(recorded)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def load_data(described: RunDescription) -> Dataset:
    """Returns the data as in training; advises no download: the programs that call this have no such option."""
    try:
        return builders.load_data(described)
    except UsageError as error:
        raise UsageError(str(error).removesuffix(DOWNLOAD)) from error


def load(described: RunDescription) -> tuple[Dataset, Network, Any]:
    """Returns the data, the network and its initialization."""
    data = load_data(described)
    return data, *setup.build_network(described, data)
