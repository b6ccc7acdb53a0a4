"""The options of `tna federate`, one dataclass for each question. They import no JAX: what they stand for is built in `setup`."""

import dataclasses
from typing import Annotated, Any, ClassVar

from tna_jax.io.errors import UsageError, collect_errors
from tna_jax.programs.cli import effects, ranges
from tna_jax.programs.cli.arguments import ANCHORS, MACHINE, Known, Only, Section
from tna_jax.programs.cli.choices import (
    DATASETS,
    OPTIMIZERS,
    Algorithm,
    MaskKind,
    MaskSchedule,
    NormStatistics,
    Optimizer,
    Partition,
    Personalization,
    Placement,
    Server,
)
from tna_jax.programs.cli.code_options import AnyModelOptions
from tna_jax.programs.cli.options import AUTO, DATASET, DataOptions
from tna_jax.programs.cli.progress import plural
from tna_jax.programs.cli.ranges import (
    BOUND,
    COUNT,
    DIFFERENT,
    NOT_NEGATIVE,
    PART,
    PATTERN,
    POSITIVE,
    PROBABILITY,
    SEED,
    SHARE,
    Range,
    Rule,
)
from tna_jax.programs.cli.run_options import MachineOptions, RunOptions

FAULTS, PRIVACY = Section("faults"), Section("privacy")
HALF = Range("lie in [0, 0.5)", lambda value: 0 <= value < 0.5, "in [0, 0.5)")
WITH_MASKS = Only("anchors", "pfn", "pnu", "pnu-rounds")
DELTA = Range("lie in (0, 1)", lambda value: 0 < value < 1, "in (0, 1)")


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
    ratio: Annotated[float, SHARE, ANCHORS, WITH_MASKS] = 0.4
    """Mask ratio: share of ANCHORED weights."""
    split: Annotated[float, SHARE, ANCHORS, Only("anchors", "pnu")] = 0.5
    """Share of a client's steps that pnu makes under the mask, the others under its complement."""
    draw: Annotated[MaskKind, ANCHORS, WITH_MASKS] = "bernoulli"
    """How masks are drawn: each weight by itself (bernoulli), an exact number of weights (exact), whole units (neurons), an exact number of every unit's inputs (per-unit)."""
    where: Annotated[str | None, PATTERN, ANCHORS, WITH_MASKS] = None
    """Draw anchors only in parameters whose path matches this regular expression; default: in all."""
    prox_mu: Annotated[float, NOT_NEGATIVE, Only("algorithm", "fedprox")] = 0.01
    """fedprox: weight of the proximal term."""
    dyn_alpha: Annotated[float, POSITIVE, Only("algorithm", "feddyn")] = 0.1
    """feddyn: weight of the dynamic regularizer."""
    moon_mu: Annotated[float, NOT_NEGATIVE, Only("algorithm", "moon")] = 1.0
    """moon: weight of the contrastive term."""
    moon_tau: Annotated[float, POSITIVE, Only("algorithm", "moon")] = 0.5
    """moon: temperature."""
    lc_tau: Annotated[float, NOT_NEGATIVE, Only("algorithm", "fedlc")] = 1.0
    """fedlc: strength of the calibration."""
    sam_rho: Annotated[float, NOT_NEGATIVE, Only("algorithm", "fedsam")] = 0.05
    """fedsam: radius of the sharpness-aware step."""
    norm_bound: Annotated[float, POSITIVE, Only("server", "norm-bound")] = 1.0
    """norm-bound: largest norm of an update in the average."""
    byzantine_share: Annotated[float, HALF, Only("server", "trimmed-mean", "krum")] = 0.2
    """trimmed-mean, krum: share of a round's updates that may be hostile."""
    krum_keep: Annotated[int, COUNT, Only("server", "krum")] = 1
    """krum: updates that are averaged (above 1: Multi-Krum)."""
    dp_clip: Annotated[float | None, POSITIVE, PRIVACY] = None
    """Privacy of clients: the norm to which updates are clipped; with --dp-noise."""
    dp_noise: Annotated[float | None, POSITIVE, PRIVACY] = None
    """Privacy of clients: noise multiplier; the sum of the clipped updates gets Gaussian noise of so many times the clip, on live
    weights alone. Each client then takes part in a round with the chance --participation, by itself."""
    dp_delta: Annotated[float, DELTA, PRIVACY, Only("dp_noise")] = 1e-5
    """Privacy of clients: delta, for which epsilon is computed."""
    proxy_examples: Annotated[int, COUNT, Only("server", "feddf")] = 500
    """feddf: training examples kept from the clients for the server, which uses them without labels."""
    distil_steps: Annotated[int, COUNT, Only("server", "feddf")] = 50
    """feddf: steps of distillation in each round."""

    def check_server(self) -> None:
        """Raises UsageError for a server and a step size that do not go together."""
        if self.server in OPTIMIZERS and self.server_learning_rate is None:
            raise UsageError(f"--server {self.server} needs --server-learning-rate")
        if self.server == "mean" and self.server_learning_rate is not None:
            raise UsageError("--server-learning-rate: the mean has none; name a server that has one, e.g. --server sgd")
        if (self.dp_clip is None) != (self.dp_noise is None):
            raise UsageError("--dp-clip and --dp-noise go together")


@dataclasses.dataclass(frozen=True)
class ClientOptions:
    """Which clients, and what do they do?"""

    SECTION: ClassVar[str] = "clients"

    clients: Annotated[int, COUNT, Only("partition", "dirichlet", "shard", "iid")] = 20
    """Number of clients; of natural ones as many as there are."""
    rounds: Annotated[int, COUNT] = 25
    """Number of rounds."""
    participation: Annotated[float, PART] = 1.0
    """Share of the clients that the server asks in each round."""
    partition: Partition = "dirichlet"
    """How training examples are spread over clients: each class over all clients (dirichlet), pieces of the sorted examples
    (shard), at random (iid), by their owners (natural: see --client-column; a file a client; client_train in a .npz)."""
    alpha: Annotated[float, POSITIVE, Only("partition", "dirichlet")] = 0.5
    """dirichlet: concentration; the smaller, the more the clients differ."""
    balance: Annotated[bool, Only("partition", "dirichlet")] = False
    """dirichlet: a client that has its share of all examples gets none of the next class, as NIID-Bench, PFLlib and Flower deal."""
    client_column: Annotated[str | None, Only("partition", "natural")] = None
    """natural: column of your own table that says whose an example is."""
    held_out: Annotated[float, SHARE] = 0.0
    """Share of its examples that each client keeps from its training, to be scored on; 0: test examples, dealt out to the clients by the classes
    that they have."""
    shards: Annotated[int, COUNT, Only("partition", "shard")] = 2
    """shard: pieces of the examples, sorted by class, that each client gets."""
    least_examples: Annotated[int, COUNT] = 10
    """Every client gets at least so many examples."""
    epochs: Annotated[int, COUNT] = 2
    """Passes of a client over its examples in each round."""
    local_steps: Annotated[int | None, COUNT] = None
    """Steps of every client in each round, in the place of --epochs."""
    batch_size: Annotated[int, COUNT] = 64
    """Examples per step of a client."""
    learning_rate: Annotated[float, POSITIVE] = 0.05
    """Step size of clients in the first round."""
    learning_rate_decay: Annotated[float, POSITIVE] = 0.99
    """Multiplies the step size after each round."""
    momentum: Annotated[float | None, SHARE] = None
    """Momentum of clients, which starts anew in each round; default: 0.9, and 0 for feddyn and scaffold, which are published without, and of optimizers other than sgd."""
    optimizer: Optimizer = "sgd"
    """Optimizer of clients, an optax one."""
    clip_norm: Annotated[float | None, POSITIVE] = None
    """Clip the gradients of clients to this norm."""
    weight_decay: Annotated[float, NOT_NEGATIVE] = 5e-4
    """Weight decay of clients, added to the gradient of live weights."""
    norm_statistics: NormStatistics = "none"
    """Running statistics of BatchNorm: there are none (none), averaged by the server (shared), kept by each client (local)."""
    drop: Annotated[float, PROBABILITY, FAULTS] = 0.0
    """Probability that a client that was asked does not answer."""
    stragglers: Annotated[float, PROBABILITY, FAULTS] = 0.0
    """Probability that a client makes only a share of its steps."""
    straggler_share: Annotated[float, PART, FAULTS, Only("stragglers")] = 0.5
    """That share."""
    nan_clients: Annotated[tuple[int, ...], FAULTS] = ()
    """Clients (numbers from 0) whose reply holds a number that is not finite, to see that the round continues without them."""
    wrong_shape_clients: Annotated[tuple[int, ...], FAULTS] = ()
    """Clients whose reply has an array of a wrong shape, likewise."""
    hostile_clients: Annotated[tuple[int, ...], FAULTS] = ()
    """Clients that send -10 times their update, to see which servers bear that."""
    placement: Annotated[Placement, MACHINE] = "auto"
    """How the clients share a device: one after the other (map), in lockstep (vmap), in a plain Python loop (loop)."""
    memory_limit: Annotated[float | None, BOUND, MACHINE] = None
    """Memory the clients may take, in GB; default: what is free. What does not fit trains in groups."""

    def check_clients(self) -> None:
        """Raises UsageError for clients that are not there."""
        if self.partition != "natural":  # their number is known when the data has been read
            self.check_named()
        if self.optimizer != "sgd" and self.momentum:
            raise UsageError(f"--momentum is of --optimizer sgd, {self.optimizer} has none")

    def check_named(self) -> None:
        """Raises UsageError for faults of clients that there are not."""
        named = (*self.nan_clients, *self.wrong_shape_clients, *self.hostile_clients)
        if strange := sorted({k for k in named if not 0 <= k < self.clients}):
            raise UsageError(
                f"there are clients 0 to {self.clients - 1}, but these are named: {', '.join(map(str, strange))}"
            )


@dataclasses.dataclass(frozen=True)
class ScoreOptions:
    """What is scored?"""

    SECTION: ClassVar[str] = "scores"

    personalize: Personalization = "none"
    """At the end also score the model that each client makes of the server's by one epoch on its examples: of the last layer (head), or of
    all of it (model)."""
    target_accuracy: Annotated[float | None, PART] = None
    """Accuracy up to which bytes and steps are counted; default: what all schedules reach."""
    patience: Annotated[int | None, COUNT] = None
    """Stop a run whose accuracy has not been better than its best for so many rounds."""


@dataclasses.dataclass(frozen=True)
class FederateOptions(
    RunOptions,
    MachineOptions,
    ScoreOptions,
    ClientOptions,
    AlgorithmOptions,
    AnyModelOptions,
    DataOptions,
):
    """Simulate federated learning with and without anchors: accuracy of the server's model after each round."""

    COMMON: ClassVar[tuple[str, ...]] = (
        "algorithm", "anchors", "ratio", "clients", "rounds", "participation", "alpha", "dataset", "model", "seeds", "list",
        "out",
    )  # fmt: skip

    UNSAID: ClassVar[dict[str, Any]] = {
        "norm_bound": 1.0, "byzantine_share": 0.2, "krum_keep": 1, "dp_clip": None, "dp_noise": None, "dp_delta": 1e-5,
        "balance": False, "client_column": None, "held_out": 0.0, "local_steps": None, "optimizer": "sgd", "clip_norm": None,
        "hostile_clients": (), "personalize": "none", "target_accuracy": None, "patience": None,
    }  # fmt: skip
    """Options that are recorded only where they differ from these: runs from before they were there have none."""

    list: bool = False
    """List algorithms, servers and mask schedules with their papers, and do nothing else."""
    seeds: Annotated[int, COUNT] = 1
    """Number of seeds; each has its own initial value, partition, masks and data order."""
    first_seed: Annotated[int, SEED] = 0
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
            self.check_variates,
            self.check_run,
            self.check_alone,
            lambda: effects.check(self),
            self.check_epochs,
        )

    def check_epochs(self) -> None:
        """Raises UsageError for a number of epochs in whose place there are steps; a run from before that was refused is resumed."""
        if self.local_steps is not None and self.epochs != type(self).epochs and not self.resume:
            raise UsageError(
                f"--epochs {self.epochs} does nothing beside --local-steps, which stands in its place; leave out one of them"
            )

    def check_named(self) -> None:
        """Raises UsageError for faults of clients that there are not, and for a Krum that leaves no update out."""
        super().check_named()
        asked = max(1, int(self.participation * self.clients + 0.5))  # as `tna_jax.federated.faults.asked`
        if self.server == "krum" and self.krum_keep > asked and not self.resume:
            raise UsageError(
                f"--krum-keep {self.krum_keep}: a round has {asked} of the {plural(self.clients, 'client')} at most, so that krum would leave none out"
            )

    def check_variates(self) -> None:
        """Raises UsageError for optimizers from whose moves an algorithm cannot read a mean gradient."""
        momentum = self.algorithm == "fednova" if self.momentum is None else self.momentum > 0
        other = self.optimizer != "sgd" or (self.clip_norm is not None and momentum)
        if self.algorithm in ("scaffold", "fednova") and other:
            how = f"--optimizer {self.optimizer}" if self.optimizer != "sgd" else "--clip-norm without --momentum 0"
            raise UsageError(
                f"--algorithm {self.algorithm} reads a mean gradient from a client's move, which {how} does not make"
            )

    def check_alone(self) -> None:
        """Raises UsageError for several processes."""
        if self.distributed or self.coordinator is not None:
            raise UsageError(
                "tna federate runs in one process, on all of its devices; for several machines deploy it on Flower"
            )
