"""The options of `tna federate`, one dataclass for each question, and what they build."""

import dataclasses
import functools
from typing import Any, cast, get_args

import jax
import numpy as np
import optax

from tna_jax import federated
from tna_jax.federated import features, partition, schedules
from tna_jax.federated.faults import Faults
from tna_jax.federated.federation import Federation, NormPolicy
from tna_jax.federated.schedules import Schedule
from tna_jax.federated.servers import SERVERS, ServerRule
from tna_jax.io.errors import UsageError, unknown
from tna_jax.networks import Network
from tna_jax.placement import Placement
from tna_jax.programs import data
from tna_jax.programs.cli import ranges
from tna_jax.programs.cli.options import DRAWS, OPTIMIZERS, DataOptions, ModelOptions, RunOptions
from tna_jax.programs.cli.ranges import BOUND, COUNT, NOT_NEGATIVE, PART, POSITIVE, PROBABILITY, SHARE
from tna_jax.programs.system.distributed import HostOptions

ALGORITHM_RANGES = {
    "ratio": SHARE, "split": SHARE, "server_learning_rate": POSITIVE, "dyn_alpha": POSITIVE, "moon_tau": POSITIVE,
    "proxy_examples": COUNT, "distil_steps": COUNT, "prox_mu": NOT_NEGATIVE, "moon_mu": NOT_NEGATIVE, "lc_tau": NOT_NEGATIVE,
    "sam_rho": NOT_NEGATIVE,
}  # fmt: skip
CLIENT_RANGES = {
    "clients": COUNT, "rounds": COUNT, "participation": PART, "alpha": POSITIVE, "shards": COUNT, "least_examples": COUNT,
    "epochs": COUNT, "batch_size": COUNT, "learning_rate": POSITIVE, "learning_rate_decay": POSITIVE, "momentum": SHARE,
    "weight_decay": NOT_NEGATIVE, "drop": PROBABILITY, "stragglers": PROBABILITY, "straggler_share": PART, "memory_limit": BOUND,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class AlgorithmOptions:
    """Which algorithm, which server, which anchors?"""

    algorithm: str = "fedavg"
    """What clients do: fedavg, fedprox, feddyn, scaffold, fednova, moon, fedlc, fedsam (--list says more)."""
    server: str = "mean"
    """What the server does with the average: mean, fedavgm, fedadam, fedyogi, fedadagrad, feddf, or an optax optimizer."""
    server_learning_rate: float | None = None
    """Step size of the server; default: the server's own. Optax optimizers need one."""
    anchors: tuple[str, ...] = ("none", "pfn")
    """Mask schedules to compare, each a run of its own: none, pfn, pnu, pnu-rounds."""
    ratio: float = 0.4
    """Mask ratio, the share of anchored weights."""
    split: float = 0.5
    """Share of a client's steps that pnu makes under the mask, the others under its complement."""
    draw: str = "bernoulli"
    """How masks are drawn: bernoulli (each weight by itself), exact (an exact count), neurons (whole units)."""
    where: str | None = None
    """Draw anchors only in parameters whose path matches this regular expression; default: in all."""
    prox_mu: float = 0.01
    """fedprox: weight of the proximal term."""
    dyn_alpha: float = 0.1
    """feddyn: weight of the dynamic regulariser."""
    moon_mu: float = 1.0
    """moon: weight of the contrastive term."""
    moon_tau: float = 0.5
    """moon: temperature."""
    lc_tau: float = 1.0
    """fedlc: strength of the calibration."""
    sam_rho: float = 0.05
    """fedsam: radius of the sharpness-aware step."""
    proxy_examples: int = 500
    """feddf: training examples kept from the clients for the server, which uses them without labels."""
    distil_steps: int = 50
    """feddf: steps of distillation in each round."""

    def check_algorithm(self) -> None:
        """Raises UsageError for unknown names and what does not go together."""
        if self.algorithm not in federated.ALGORITHMS:
            raise unknown("--algorithm", self.algorithm, federated.ALGORITHMS)
        if self.server not in SERVERS and self.server not in OPTIMIZERS:
            raise unknown("--server", self.server, [*SERVERS, *OPTIMIZERS])
        if self.server in OPTIMIZERS and self.server_learning_rate is None:
            raise UsageError(f"--server {self.server} needs --server-learning-rate")
        if self.server == "mean" and self.server_learning_rate is not None:
            raise UsageError("--server-learning-rate: the mean has none; name a server that has, e.g. --server sgd")
        if not self.anchors or len(set(self.anchors)) < len(self.anchors):
            raise UsageError("--anchors must name one or more schedules, each once")
        for kind in self.anchors:
            if kind not in get_args(schedules.ScheduleKind):
                raise unknown("--anchors", kind, get_args(schedules.ScheduleKind))
        if self.draw not in DRAWS:
            raise unknown("--draw", self.draw, DRAWS)

    def build_algorithm(self) -> federated.Algorithm:
        """The algorithm with its options."""
        made = federated.ALGORITHMS[self.algorithm]
        return made(**{field: getattr(self, option) for field, option in FIELDS.get(self.algorithm, {}).items()})

    def build_server(self) -> ServerRule:
        """The server's rule."""
        return _server(self.server, self.server_learning_rate, self.distil_steps)

    def schedule(self, kind: str) -> Schedule:
        """The mask schedule called `kind`."""
        draw = functools.partial(DRAWS[self.draw], where=self.where)
        return Schedule(cast(schedules.ScheduleKind, kind), self.ratio, self.split, draw)


FIELDS = {
    "fedprox": {"mu": "prox_mu"}, "feddyn": {"alpha": "dyn_alpha"}, "moon": {"mu": "moon_mu", "tau": "moon_tau"},
    "fedlc": {"tau": "lc_tau"}, "fedsam": {"rho": "sam_rho"},
}  # fmt: skip
"""Options by algorithm and field."""


@functools.lru_cache(maxsize=32)
def _server(name: str, rate: float | None, steps: int) -> ServerRule:
    """One rule for equal options, so that its programs are compiled once."""
    if name not in SERVERS:
        return ServerRule(getattr(optax, name)(rate), None, name)
    options: dict[str, Any] = {} if rate is None else {"learning_rate": rate}
    return SERVERS[name](**options, **({"steps": steps} if name == "feddf" else {}))


@dataclasses.dataclass(frozen=True)
class ClientOptions:
    """Which clients, and what do they do?"""

    clients: int = 20
    """Number of clients."""
    rounds: int = 25
    """Number of rounds."""
    participation: float = 1.0
    """Share of the clients that the server asks in each round."""
    partition: str = "dirichlet"
    """How training examples are spread over clients: dirichlet (each class over the clients), shard, iid."""
    alpha: float = 0.5
    """dirichlet: concentration; the smaller, the more clients differ."""
    shards: int = 2
    """shard: pieces of the examples sorted by class that each client gets."""
    least_examples: int = 10
    """Every client gets at least so many examples."""
    epochs: int = 2
    """Passes of a client over its examples in each round."""
    batch_size: int = 64
    """Examples per step of a client."""
    learning_rate: float = 0.05
    """Step size of clients in the first round."""
    learning_rate_decay: float = 0.99
    """Multiplies the step size after each round."""
    momentum: float = 0.9
    """Momentum of clients, which starts anew in each round."""
    weight_decay: float = 5e-4
    """Weight decay of clients, added to the gradient of live weights."""
    norm_statistics: str = "none"
    """Running statistics of BatchNorm: none (there are none), shared (averaged by the server), local (kept by each client)."""
    drop: float = 0.0
    """Probability that a client that was asked does not answer."""
    stragglers: float = 0.0
    """Probability that a client makes only a share of its steps."""
    straggler_share: float = 0.5
    """That share."""
    nan_clients: tuple[int, ...] = ()
    """Clients (numbers from 0) whose reply holds a number that is not finite, to see that the round goes on."""
    wrong_shape_clients: tuple[int, ...] = ()
    """Clients whose reply has an array of a wrong shape, likewise."""
    placement: str = "auto"
    """How the clients share a device: auto, map (one after the other), vmap (in lockstep), loop (plain Python)."""
    memory_limit: float | None = None
    """Memory the clients may take, in GB; default: what is free. What does not fit trains in groups."""

    def check_clients(self) -> None:
        """Raises UsageError for whatever no data set could make right."""
        for name, known in (("partition", get_args(partition.PartitionKind)), ("placement", get_args(Placement)),
                            ("norm_statistics", get_args(NormPolicy))):  # fmt: skip
            if getattr(self, name) not in known:
                raise unknown(f"--{name.replace('_', '-')}", getattr(self, name), known)
        strange = [k for k in (*self.nan_clients, *self.wrong_shape_clients) if not 0 <= k < self.clients]
        if strange:
            raise UsageError(f"there are clients 0 to {self.clients - 1}, but these are named: {strange}")

    def faults(self) -> Faults:
        """What goes wrong."""
        return Faults(self.drop, self.stragglers, self.straggler_share, self.nan_clients, self.wrong_shape_clients)


@dataclasses.dataclass(frozen=True)
class FederateOptions(RunOptions, HostOptions, ClientOptions, AlgorithmOptions, ModelOptions, DataOptions):
    """Options of `tna federate`."""

    list: bool = False
    """List algorithms, servers and mask schedules with their papers, and do nothing else."""
    seeds: int = 1
    """Number of seeds; each has its own initial value, partition, masks and data order."""
    first_seed: int = 0
    """The first of them."""
    dataset: str = "auto"
    """Data set: digits, mnist, fashion_mnist, cifar10, cifar100, tfds:NAME; auto: fashion_mnist where it is found, else digits."""
    train_examples: int | None = None
    """Use this many training examples, chosen once for all seeds; default: all, with --dataset auto 10,000 of fashion_mnist."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any work."""
        HostOptions.check(self)
        ranges.require(self, {**ALGORITHM_RANGES, **CLIENT_RANGES, "seeds": COUNT, "first_seed": NOT_NEGATIVE})
        self.check_algorithm()
        self.check_clients()
        self.check_run()
        if self.distributed or self.coordinator is not None:
            raise UsageError(
                "tna federate runs in one process, on all of its devices; for several machines deploy it on Flower"
            )
        if self.resume and (self.overwrite or self.out is None):
            raise UsageError("--resume needs the --out of the run to go on with, and no --overwrite")

    def resolved(self) -> "FederateOptions":
        """The options with what `auto` and defaults stand for, as config.json keeps them."""
        chosen: dict[str, Any] = {}
        if self.dataset == "auto":
            chosen["dataset"] = "fashion_mnist" if self._has("fashion_mnist") else "digits"
            if chosen["dataset"] == "fashion_mnist" and self.train_examples is None:
                chosen["train_examples"] = 10_000
        if self.model == "mlp":
            chosen |= {"depth": self.depth or 3, "width": self.width or 200}
        return dataclasses.replace(self, **chosen)

    def _has(self, name: str) -> bool:
        try:
            data.load(name, data_dir=self.data_dir)
        except data.DataError:
            return False
        return True

    def build_federation(self, network: Network, module: Any, preprocess: Any, num_classes: int) -> Federation:
        """What all parties agree on; raises UsageError where the options do not go together."""
        algorithm = self.build_algorithm()
        seen = features.penultimate(module, preprocess) if algorithm.needs_features else None
        try:
            return Federation(
                network, self.clients, num_classes, algorithm, self.build_server(), self.epochs, self.batch_size,
                self.momentum, self.weight_decay, cast(NormPolicy, self.norm_statistics), seen, cast(Placement, self.placement),
            )  # fmt: skip
        except ValueError as error:
            raise UsageError(f"--norm-statistics: {error}") from error

    def parts(self, root: jax.Array, labels: np.ndarray) -> partition.Clients:
        """The examples of each client; raises UsageError where there are too few."""
        try:
            made = partition.partition(
                cast(partition.PartitionKind, self.partition), federated.stream(root, federated.PARTITION), labels, self.clients,
                alpha=self.alpha, shards=self.shards, least=self.least_examples,
            )  # fmt: skip
        except ValueError as error:
            raise UsageError(f"--partition {self.partition}: {error}") from error
        return partition.padded(made)
