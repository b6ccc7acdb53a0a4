"""From the options to what an ensemble needs: data, network, trainer; all that can be refused is refused here."""

import dataclasses
from typing import Any, NamedTuple, cast

import jax

from tna_jax import augment, network
from tna_jax.ensemble import Trainer
from tna_jax.network import Network
from tna_jax.placement import Placement
from train.config import AnchorOptions, DataOptions, ModelOptions, RunOptions, TrainingOptions
from train.data import Dataset
from train.errors import UsageError
from train.hosts import HostOptions
from train.results import plain, provenance
from train.run import CONFIG, PROVENANCE, Run


@dataclasses.dataclass(frozen=True)
class Settings(RunOptions, HostOptions, TrainingOptions, AnchorOptions, ModelOptions, DataOptions):
    """The options of every program that trains."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any work."""
        TrainingOptions.check(self)
        HostOptions.check(self)
        self.check_anchors()
        if self.resume and (self.overwrite or self.out is None):
            raise UsageError("--resume needs the --out of the run to go on with, and no --overwrite")


class Prepared(NamedTuple):
    """What the options stand for."""

    data: Dataset
    network: Network
    init: Any
    """A key to (params, state)."""
    trainer: Trainer


def prepare(settings: Settings) -> Prepared:
    """The data, the network and the trainer of `settings`; raises UsageError where they do not go together."""
    data, net, init = load(settings)
    examples = len(data.train.labels)
    if settings.batch_size > examples:
        raise UsageError(f"--batch-size {settings.batch_size} is larger than the {examples} training examples")
    try:
        jax.eval_shape(lambda key: settings.draw(key, init(key)[0], 0.0), jax.random.key(0))
    except ValueError as error:
        raise UsageError(f"--where: {error}") from error
    optimizer = settings.build_optimizer(-(-examples // settings.batch_size))
    change = augment.create(cast(augment.Kind, settings.augment))
    trainer = Trainer(net, optimizer, settings.batch_size, cast(Placement, settings.placement), change)
    return Prepared(data, net, init, trainer)


def load(settings: Any) -> tuple[Dataset, Network, Any]:
    """The data, the network and its initialisation, for any options that have those of data, model and hosts."""
    data = settings.load_data()
    module = settings.build_model(data.num_classes, settings.precision)
    try:
        net, init = network.linen(module, data.image_shape, data.preprocess)
    except (ValueError, TypeError) as error:
        raise UsageError(f"--model {settings.model} on images of {data.image_shape}: {error}") from error
    return data, net, init


def record(folder: Run, settings: Settings, seeds: list[int]) -> None:
    """Writes the run's configuration and provenance, or compares the configuration of the run to go on with."""
    if not settings.resume:
        folder.write(CONFIG, lasting(settings))
        folder.write(PROVENANCE, provenance(seeds))
        return
    before, now = folder.read(CONFIG), plain(lasting(settings))
    changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    if changed:
        found = ", ".join(f"{key} was {before.get(key)}, is {now.get(key)}" for key in changed)
        raise UsageError(f"--resume: the options are not those of {folder.folder}: {found}")


PASSING = (
    "out", "overwrite", "resume", "checkpoint_minutes", "cpu_devices", "data_dir", "download", "memory_limit",
    "distributed", "coordinator", "num_processes", "process_id",
)  # fmt: skip
"""Options that do not shape the result."""


def lasting(settings: Any) -> dict[str, Any]:
    """The options that shape the result, as config.json keeps them."""
    return {key: value for key, value in dataclasses.asdict(settings).items() if key not in PASSING}
