"""The options of `tna federate`, one dataclass for each question. They import no JAX: what they stand for is built in `setup`."""

import dataclasses
from typing import Annotated, ClassVar

from tna_jax.io.errors import UsageError, collect_errors
from tna_jax.programs.cli import ranges
from tna_jax.programs.cli.arguments import ANCHORS, MACHINE, Known, Section
from tna_jax.programs.cli.choices import (
    DATASETS,
    OPTIMIZERS,
    Algorithm,
    MaskKind,
    MaskSchedule,
    NormStatistics,
    Partition,
    Placement,
    Server,
)
from tna_jax.programs.cli.options import AUTO, DATASET, DataOptions, ModelOptions
from tna_jax.programs.cli.ranges import (
    BOUND,
    COUNT,
    DIFFERENT,
    NOT_NEGATIVE,
    PART,
    PATTERN,
    POSITIVE,
    PROBABILITY,
    SHARE,
    Rule,
)
from tna_jax.programs.cli.run_options import MachineOptions, RunOptions

FAULTS = Section("faults")


@dataclasses.dataclass(frozen=True)
class AlgorithmOptions:
    """Which algorithm, which server, which anchors?"""

    SECTION: ClassVar[str] = "algorithm"

    algorithm: Algorithm = "fedavg"
    """What clients do (--list says more)."""
    server: Server = "mean"
    """What the server does with the average: a rule of its own, or an optax optimizer with --server-learning-rate."""
    server_learning_rate: Annotated[float | None, POSITIVE] = None
    """Step size of the server; default: the server's own. Optax optimizers need one."""
    anchors: Annotated[tuple[MaskSchedule, ...], DIFFERENT, ANCHORS] = ("none", "pfn")
    """Mask schedules to compare, each a run of its own (--list says more)."""
    ratio: Annotated[float, SHARE, ANCHORS] = 0.4
    """Mask ratio: share of ANCHORED weights."""
    split: Annotated[float, SHARE, ANCHORS] = 0.5
    """Share of a client's steps that pnu makes under the mask, the others under its complement."""
    draw: Annotated[MaskKind, ANCHORS] = "bernoulli"
    """How masks are drawn: each weight by itself (bernoulli), an exact number of weights (exact), whole units (neurons)."""
    where: Annotated[str | None, PATTERN, ANCHORS] = None
    """Draw anchors only in parameters whose path matches this regular expression; default: in all."""
    prox_mu: Annotated[float, NOT_NEGATIVE] = 0.01
    """fedprox: weight of the proximal term."""
    dyn_alpha: Annotated[float, POSITIVE] = 0.1
    """feddyn: weight of the dynamic regularizer."""
    moon_mu: Annotated[float, NOT_NEGATIVE] = 1.0
    """moon: weight of the contrastive term."""
    moon_tau: Annotated[float, POSITIVE] = 0.5
    """moon: temperature."""
    lc_tau: Annotated[float, NOT_NEGATIVE] = 1.0
    """fedlc: strength of the calibration."""
    sam_rho: Annotated[float, NOT_NEGATIVE] = 0.05
    """fedsam: radius of the sharpness-aware step."""
    proxy_examples: Annotated[int, COUNT] = 500
    """feddf: training examples kept from the clients for the server, which uses them without labels."""
    distil_steps: Annotated[int, COUNT] = 50
    """feddf: steps of distillation in each round."""

    def check_server(self) -> None:
        """Raises UsageError for a server and a step size that do not go together."""
        if self.server in OPTIMIZERS and self.server_learning_rate is None:
            raise UsageError(f"--server {self.server} needs --server-learning-rate")
        if self.server == "mean" and self.server_learning_rate is not None:
            raise UsageError("--server-learning-rate: the mean has none; name a server that has one, e.g. --server sgd")


@dataclasses.dataclass(frozen=True)
class ClientOptions:
    """Which clients, and what do they do?"""

    SECTION: ClassVar[str] = "clients"

    clients: Annotated[int, COUNT] = 20
    """Number of clients."""
    rounds: Annotated[int, COUNT] = 25
    """Number of rounds."""
    participation: Annotated[float, PART] = 1.0
    """Share of the clients that the server asks in each round."""
    partition: Partition = "dirichlet"
    """How training examples are spread over clients: each class over all clients (dirichlet), pieces of the sorted examples
    (shard), at random (iid)."""
    alpha: Annotated[float, POSITIVE] = 0.5
    """dirichlet: concentration; the smaller, the more the clients differ."""
    shards: Annotated[int, COUNT] = 2
    """shard: pieces of the examples, sorted by class, that each client gets."""
    least_examples: Annotated[int, COUNT] = 10
    """Every client gets at least so many examples."""
    epochs: Annotated[int, COUNT] = 2
    """Passes of a client over its examples in each round."""
    batch_size: Annotated[int, COUNT] = 64
    """Examples per step of a client."""
    learning_rate: Annotated[float, POSITIVE] = 0.05
    """Step size of clients in the first round."""
    learning_rate_decay: Annotated[float, POSITIVE] = 0.99
    """Multiplies the step size after each round."""
    momentum: Annotated[float | None, SHARE] = None
    """Momentum of clients, which starts anew in each round; default: 0.9, and 0 for feddyn and scaffold, which are published without."""
    weight_decay: Annotated[float, NOT_NEGATIVE] = 5e-4
    """Weight decay of clients, added to the gradient of live weights."""
    norm_statistics: NormStatistics = "none"
    """Running statistics of BatchNorm: there are none (none), averaged by the server (shared), kept by each client (local)."""
    drop: Annotated[float, PROBABILITY, FAULTS] = 0.0
    """Probability that a client that was asked does not answer."""
    stragglers: Annotated[float, PROBABILITY, FAULTS] = 0.0
    """Probability that a client makes only a share of its steps."""
    straggler_share: Annotated[float, PART, FAULTS] = 0.5
    """That share."""
    nan_clients: Annotated[tuple[int, ...], FAULTS] = ()
    """Clients (numbers from 0) whose reply holds a number that is not finite, to see that the round continues without them."""
    wrong_shape_clients: Annotated[tuple[int, ...], FAULTS] = ()
    """Clients whose reply has an array of a wrong shape, likewise."""
    placement: Annotated[Placement, MACHINE] = "auto"
    """How the clients share a device: one after the other (map), in lockstep (vmap), in a plain Python loop (loop)."""
    memory_limit: Annotated[float | None, BOUND, MACHINE] = None
    """Memory the clients may take, in GB; default: what is free. What does not fit trains in groups."""

    def check_clients(self) -> None:
        """Raises UsageError for clients that are not there."""
        strange = [k for k in (*self.nan_clients, *self.wrong_shape_clients) if not 0 <= k < self.clients]
        if strange:
            raise UsageError(f"there are clients 0 to {self.clients - 1}, but these are named: {strange}")


@dataclasses.dataclass(frozen=True)
class FederateOptions(
    RunOptions,
    MachineOptions,
    ClientOptions,
    AlgorithmOptions,
    ModelOptions,
    DataOptions,
):
    """Simulate federated learning with and without anchors: accuracy of the server's model after each round."""

    COMMON: ClassVar[tuple[str, ...]] = (
        "algorithm", "anchors", "ratio", "clients", "rounds", "participation", "alpha", "dataset", "model", "seeds", "list",
        "out",
    )  # fmt: skip

    list: bool = False
    """List algorithms, servers and mask schedules with their papers, and do nothing else."""
    seeds: Annotated[int, COUNT] = 1
    """Number of seeds; each has its own initial value, partition, masks and data order."""
    first_seed: Annotated[int, NOT_NEGATIVE] = 0
    """The first of them."""
    dataset: Annotated[
        str, Rule(lambda flag, name: "" if name == AUTO else DATASET.problem(flag, name)), Known((AUTO, *DATASETS))
    ] = AUTO
    """Data set, as in tna train; auto: fashion_mnist where it is found, else digits."""
    train_examples: Annotated[int | None, COUNT] = None
    """Use this many training examples, chosen once for all seeds; default: all, with --dataset auto 10,000 of fashion_mnist."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any work."""
        collect_errors(
            lambda: ranges.check(self),
            self.check_machine,
            self.check_model,
            self.check_server,
            self.check_clients,
            self.check_run,
            self.check_alone,
        )

    def check_alone(self) -> None:
        """Raises UsageError for several processes."""
        if self.distributed or self.coordinator is not None:
            raise UsageError(
                "tna federate runs in one process, on all of its devices; for several machines deploy it on Flower"
            )
