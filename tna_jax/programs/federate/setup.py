"""What the options of `tna federate` stand for: the algorithm, the server, mask schedules, clients and their faults."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import optax

from tna_jax import federated
from tna_jax.federated import features, partition
from tna_jax.federated.faults import Faults
from tna_jax.federated.federation import Federation
from tna_jax.federated.schedules import Schedule
from tna_jax.federated.servers import SERVERS, ServerRule
from tna_jax.io.errors import UsageError
from tna_jax.masks import DRAWS
from tna_jax.networks import Network
from tna_jax.programs import data
from tna_jax.programs.cli.choices import MaskSchedule
from tna_jax.programs.cli.options import AUTO
from tna_jax.programs.federate.options import FederateOptions

FIELDS = {
    "fedprox": {"mu": "prox_mu"}, "feddyn": {"alpha": "dyn_alpha"}, "moon": {"mu": "moon_mu", "tau": "moon_tau"},
    "fedlc": {"tau": "lc_tau"}, "fedsam": {"rho": "sam_rho"},
}  # fmt: skip
"""Options by algorithm and field."""
MOMENTUM = 0.9
"""Of clients, in the settings that the paper's first author uses in public."""
WITHOUT_MOMENTUM = ("feddyn", "scaffold")
"""Algorithms that are published without it: their variates sum plain gradients, and with it both may diverge."""


def resolved(settings: FederateOptions) -> FederateOptions:
    """Returns the options with what `auto` and defaults stand for, as config.json keeps them."""
    chosen: dict[str, Any] = {}
    if settings.dataset == AUTO:
        chosen["dataset"] = "fashion_mnist" if _is_there("fashion_mnist", settings.data_dir) else "digits"
        if chosen["dataset"] == "fashion_mnist" and settings.train_examples is None:
            chosen["train_examples"] = 10_000
    if settings.momentum is None:
        chosen["momentum"] = 0.0 if settings.algorithm in WITHOUT_MOMENTUM else MOMENTUM
    if settings.model == "mlp":
        chosen |= {"depth": settings.depth or 3, "width": settings.width or 200}
    return dataclasses.replace(settings, **chosen)


def _is_there(name: str, data_dir: str | None) -> bool:
    try:
        data.load(name, data_dir=data_dir)
    except data.DataError:
        return False
    return True


def build_algorithm(settings: FederateOptions) -> federated.Algorithm:
    """Returns the algorithm with its options."""
    make = federated.ALGORITHMS[settings.algorithm]
    return make(**{field: getattr(settings, option) for field, option in FIELDS.get(settings.algorithm, {}).items()})


def build_server(settings: FederateOptions) -> ServerRule:
    """Returns the server's rule."""
    return _server(settings.server, settings.server_learning_rate, settings.distil_steps)


@functools.lru_cache(maxsize=32)
def _server(name: str, rate: float | None, steps: int) -> ServerRule:
    """One rule for equal options, so that its programs are compiled once."""
    if name not in SERVERS:
        return ServerRule(getattr(optax, name)(rate), None, name)
    options: dict[str, Any] = {} if rate is None else {"learning_rate": rate}
    return SERVERS[name](**options, **({"steps": steps} if name == "feddf" else {}))


def schedule(settings: FederateOptions, kind: MaskSchedule) -> Schedule:
    """Returns the mask schedule called `kind`."""
    return Schedule(kind, settings.ratio, settings.split, functools.partial(DRAWS[settings.draw], where=settings.where))


def build_federation(
    settings: FederateOptions, network: Network, module: Any, preprocess: Any, num_classes: int
) -> Federation:
    """Returns what all parties agree on; raises UsageError where the options do not go together."""
    algorithm = build_algorithm(settings)
    seen = features.penultimate(module, preprocess) if algorithm.needs_features else None
    try:
        return Federation(
            network, settings.clients, num_classes, algorithm, build_server(settings), settings.epochs, settings.batch_size,
            MOMENTUM if settings.momentum is None else settings.momentum, settings.weight_decay, settings.norm_statistics, seen, settings.placement,
        )  # fmt: skip
    except ValueError as error:
        raise UsageError(f"--norm-statistics: {error}") from error


def build_faults(settings: FederateOptions) -> Faults:
    """Returns what goes wrong."""
    return Faults(
        settings.drop, settings.stragglers, settings.straggler_share, settings.nan_clients, settings.wrong_shape_clients
    )


def client_examples(settings: FederateOptions, root: jax.Array, labels: np.ndarray) -> partition.Clients:
    """Returns the examples of each client; raises UsageError where there are too few.

    Args:
      root: key of a run.
      labels: (N,) of the training examples.
    """
    key = federated.stream(root, federated.PARTITION)
    try:
        parts = partition.partition(
            settings.partition, key, labels, settings.clients,
            alpha=settings.alpha, shards=settings.shards, least=settings.least_examples,
        )  # fmt: skip
    except ValueError as error:
        raise UsageError(f"--partition {settings.partition}: {error}") from error
    return partition.padded(parts)
