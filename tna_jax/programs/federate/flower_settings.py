"""The options of `tna federate` as the run configuration of a Flower app: the same names and defaults, the same federation.

`flwr run APP --run-config 'algorithm="scaffold" anchors="pfn" ratio=0.4'` deploys what `tna federate --algorithm scaffold --anchors
pfn --ratio 0.4` simulates. `anchors` is one schedule here; an empty text stands for an option's default.
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from tna_jax.flower.results import SERVER_SETTINGS
from tna_jax.flower.task import Data, Task
from tna_jax.io.errors import UsageError, unknown
from tna_jax.programs.cli.parsing import from_values
from tna_jax.programs.federate.options import FederateOptions
from tna_jax.programs.federate.run import prepare
from tna_jax.programs.federate.setup import client_examples, resolved, schedule

SIMULATED = (
    "drop", "stragglers", "straggler_share", "nan_clients", "wrong_shape_clients", "hostile_clients", "held_out", "personalize",
    "target_accuracy", "patience", "seeds", "objective", "objective_options",
)  # fmt: skip
"""Options of the simulation alone: faults, which a deployment has of its own, scores of clients, several runs."""
OF_THE_COMMAND = (
    "list", "cpu_devices", "memory_limit", "distributed", "coordinator", "num_processes", "process_id", "overwrite",
    "checkpoint_minutes", "checkpoint_every", "checkpoints_kept", "log", "trust_code", "dataset_sha256", "data_fingerprint",
    "target", "image_size", "client_column", "download", "model_options", "model_sha256", "objective_sha256",
)  # fmt: skip
"""Options that say where and how the command runs, or of data that all machines would have to share."""


def names() -> list[str]:
    """Returns the settings that an app may declare: the options of a federation, by the command's names."""
    fields = [field.name for field in dataclasses.fields(FederateOptions)]
    left = {*SIMULATED, *OF_THE_COMMAND, *SERVER_SETTINGS}
    return [name.replace("_", "-") for name in fields if name not in left]


def options(config: dict[str, Any]) -> FederateOptions:
    """Returns the options in a run configuration.

    Raises:
      UsageError: unknown names, wrong types or values, and what only a simulation has.
    """
    fields = {field.name for field in dataclasses.fields(FederateOptions)}
    values: dict[str, Any] = {}
    for name, value in config.items():
        option = {"seed": "first_seed"}.get(name, name.replace("-", "_"))  # of apps from before
        if name in SERVER_SETTINGS or value == "":
            continue
        if option in SIMULATED:
            raise UsageError(f"run configuration: {name}: only a simulation has it, see tna federate")
        if option not in fields or option in OF_THE_COMMAND:
            raise unknown("setting", name, sorted(names()))
        values[option] = [value] if option == "anchors" else value
    values.setdefault("anchors", ["pfn"])
    settings = from_values(FederateOptions, values, "run configuration")
    settings.check()
    if settings.own_model:
        raise UsageError(f"model: {settings.model} is code of your own: put it into the app's task.py (docs/flower.md)")
    if settings.dataset == "auto":
        raise UsageError("dataset: name one, so that all machines use the same")
    return resolved(settings)


def build(config: dict[str, Any]) -> Task:
    """Builds the task of a run configuration. Each client takes its own part of a data set that all have: a trial, no real federation."""
    settings = options(config)
    prepared = _prepared(settings)
    root = jax.random.key(settings.first_seed)

    def examples(client: int) -> Data:
        clients = client_examples(settings, root, prepared.train.labels, prepared.owners)
        rows = clients.indices[client][: clients.count[client]]
        return prepared.train.images[rows], prepared.train.labels[rows]

    return Task(
        prepared.federation, schedule(settings, settings.anchors[0]), settings.first_seed, settings.rounds, prepared.init,
        learning_rate=lambda number: settings.learning_rate * settings.learning_rate_decay**number,
        examples=examples, held_out=lambda: (prepared.data.test.images, prepared.data.test.labels),
        proxy=lambda: np.asarray(prepared.proxy), participation=settings.participation,
        delta=settings.dp_delta,
    )  # fmt: skip


_prepared = functools.lru_cache(maxsize=4)(prepare)
