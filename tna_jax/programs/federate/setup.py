"""What the options of `tna federate` stand for: the algorithm, the server, mask schedules, clients and their faults."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from tna_jax import federated, host_bits
from tna_jax.federated import features, partition
from tna_jax.federated.faults import Faults
from tna_jax.federated.federation import Federation
from tna_jax.federated.privacy import Privacy
from tna_jax.federated.schedules import Schedule
from tna_jax.federated.servers import SERVERS, ServerRule
from tna_jax.io.errors import UsageError
from tna_jax.masks import DRAWS
from tna_jax.networks import Network
from tna_jax.programs import data as data_lib
from tna_jax.programs.cli.choices import MaskSchedule
from tna_jax.programs.cli.options import AUTO
from tna_jax.programs.data import Dataset
from tna_jax.programs.federate.options import FederateOptions
from tna_jax.programs.training.objective_fit import objective_of

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
        without = settings.algorithm in WITHOUT_MOMENTUM or settings.optimizer != "sgd"
        chosen["momentum"] = 0.0 if without else MOMENTUM
    if settings.model == "mlp":
        chosen |= {"depth": settings.depth or 3, "width": settings.width or 200}
    return dataclasses.replace(settings, **chosen)


def _is_there(name: str, data_dir: str | None) -> bool:
    try:
        data_lib.load(name, data_dir=data_dir)
    except data_lib.DataError:
        return False
    return True


def build_algorithm(settings: FederateOptions) -> federated.Algorithm:
    """Returns the algorithm with its options."""
    make = federated.ALGORITHMS[settings.algorithm]
    return make(**{field: getattr(settings, option) for field, option in FIELDS.get(settings.algorithm, {}).items()})


def build_server(settings: FederateOptions) -> ServerRule:
    """Returns the server's rule."""
    fields = {field: getattr(settings, option) for field, option in SERVER_FIELDS.get(settings.server, {}).items()}
    rule = _server(settings.server, settings.server_learning_rate, tuple(fields.items()))
    if settings.dp_clip is None or settings.dp_noise is None:
        return rule
    try:
        expected = settings.participation * settings.clients
        return dataclasses.replace(rule, privacy=Privacy(settings.dp_clip, settings.dp_noise, expected))
    except ValueError as error:
        raise UsageError(f"--server {settings.server} and --dp-noise: {error}") from error


SERVER_FIELDS = {
    "feddf": {"steps": "distil_steps"}, "norm-bound": {"bound_at": "norm_bound"}, "trimmed-mean": {"share": "byzantine_share"},
    "krum": {"share": "byzantine_share", "keep": "krum_keep"},
}  # fmt: skip
"""Options by server and argument."""


@functools.lru_cache(maxsize=32)
def _server(name: str, rate: float | None, fields: tuple[tuple[str, Any], ...]) -> ServerRule:
    """One rule for equal options, so that its programs are compiled once."""
    if name not in SERVERS:
        return ServerRule(getattr(optax, name)(rate), None, name)
    options: dict[str, Any] = {} if rate is None else {"learning_rate": rate}
    return SERVERS[name](**options, **dict(fields))


@functools.lru_cache(maxsize=32)
def client_optimizer(name: str, clip: float | None, momentum: float) -> Any:
    """Returns what `Federation.optimizer` takes; `None` for plain SGD, which needs none."""
    if name == "sgd" and clip is None:
        return None
    make = functools.partial(getattr(optax, name), **({"momentum": momentum or None} if name == "sgd" else {}))
    if clip is None:
        return make
    return lambda rate: optax.chain(optax.clip_by_global_norm(clip), make(rate))


def schedule(settings: FederateOptions, kind: MaskSchedule) -> Schedule:
    """Returns the mask schedule called `kind`."""
    return Schedule(kind, settings.ratio, settings.split, functools.partial(DRAWS[settings.draw], where=settings.where))


def build_federation(settings: FederateOptions, network: Network, module: Any, data: Dataset, init: Any) -> Federation:
    """Returns what all parties agree on; raises UsageError where the options do not go together.

    Args:
      settings: the options.
      network, init: of the model.
      module: its Linen module; None for a network of the user's own.
      data: what it trains on.
    """
    algorithm = build_algorithm(settings)
    seen = _features(settings, network, module, data, init) if algorithm.needs_features else None
    momentum = MOMENTUM if settings.momentum is None else settings.momentum
    optimizer = client_optimizer(settings.optimizer, settings.clip_norm, momentum)
    try:
        return Federation(
            network, settings.clients, data.num_classes, algorithm, build_server(settings), settings.epochs, settings.batch_size,
            0.0 if optimizer is not None else momentum, settings.weight_decay, settings.norm_statistics, seen, settings.placement,
            optimizer=optimizer, steps=settings.local_steps, objective=objective_of(settings),
        )  # fmt: skip
    except ValueError as error:
        option = "--dp-noise" if settings.dp_noise is not None else "--norm-statistics"
        option = f"--objective {settings.objective}" if settings.objective != "classification" else option
        raise UsageError(f"{option}: {error}") from error


def _features(settings: FederateOptions, network: Network, module: Any, data: Dataset, init: Any) -> Any:
    """What the last dense layer reads; raises UsageError for a network of the user's own that has none."""
    if module is not None:
        return features.penultimate(module, data.preprocess)
    seen = features.penultimate(network)
    try:
        jax.eval_shape(seen, *jax.eval_shape(init, jax.random.key(0)), data.train.images[:1])
    except ValueError as error:
        raise UsageError(
            f"--algorithm {settings.algorithm} compares what the last nn.Dense (Linen) of a network reads; {settings.model} has none"
        ) from error
    return seen


def build_faults(settings: FederateOptions) -> Faults:
    """Returns what goes wrong."""
    return Faults(
        settings.drop, settings.stragglers, settings.straggler_share, settings.nan_clients, settings.wrong_shape_clients,
        settings.hostile_clients,
    )  # fmt: skip


class Dealt(NamedTuple):
    """Who has which examples."""

    clients: partition.Clients
    """For training."""
    held: np.ndarray
    """Rows of the training examples that clients keep from their training; empty where they are scored on test examples."""
    owners: np.ndarray
    """(N,) whose each held-out example is, of the training or else of the test examples; -1: nobody's."""


def deal(settings: FederateOptions, root: jax.Array, train: np.ndarray, test: np.ndarray, owners: Any = None) -> Dealt:
    """Deals out training and held-out examples; raises UsageError where there are too few.

    Args:
      root: key of a run.
      train, test: (N,) labels.
      owners: (N,) whose each training example is, of the partition `natural`.
    """
    key = federated.stream(root, federated.PARTITION)
    try:
        if settings.partition == "natural":
            parts, _ = partition.by_owner(owners)
        else:
            parts = partition.partition(
                settings.partition, key, train, settings.clients,
                alpha=settings.alpha, shards=settings.shards, least=settings.least_examples, balance=settings.balance,
            )  # fmt: skip
    except ValueError as error:
        other = "; iid and natural take any targets" if settings.objective != "classification" else ""
        raise UsageError(f"--partition {settings.partition}: {error}{other}") from error
    words = host_bits.fold_in(host_bits.words(key), HELD_OUT)
    if settings.held_out:
        return _held_out(settings, words, parts)
    clients = partition.padded(parts)
    if not len(test) or train.ndim != 1 or not np.issubdtype(train.dtype, np.integer):
        return Dealt(clients, np.zeros(0, int), np.full(len(test), -1, np.int32))
    counts = partition.class_counts(clients, train, int(max(train.max(), test.max())) + 1)
    return Dealt(clients, np.zeros(0, int), partition.dealt_like(jax.random.fold_in(key, HELD_OUT), counts, test))


HELD_OUT = 2**31 + 1
"""Folded into the partition's key."""


def _held_out(settings: FederateOptions, words: host_bits.Words, parts: list[np.ndarray]) -> Dealt:
    """Each client keeps a share of its own examples, drawn at random; at least one stays for training. UsageError where none is kept."""
    train, held = [], []
    for client, part in enumerate(parts):
        order = host_bits.permutation(host_bits.fold_in(words, client), len(part))
        kept = min(round(settings.held_out * len(part)), len(part) - 1)
        held.append(np.sort(part[order[:kept]]))
        train.append(np.sort(part[order[kept:]]))
    if not sum(map(len, held)):
        most = max(map(len, parts))
        raise UsageError(
            f"--held-out {settings.held_out:g} of {most} examples, the most that a client has, is none: take a larger share"
        )
    owners = np.repeat(np.arange(len(parts), dtype=np.int32), [len(rows) for rows in held])
    return Dealt(partition.padded(train), np.concatenate(held), owners)


def client_examples(
    settings: FederateOptions, root: jax.Array, labels: np.ndarray, owners: Any = None
) -> partition.Clients:
    """Returns the training examples of each client, see `deal`."""
    return deal(settings, root, labels, labels[:0], owners).clients
