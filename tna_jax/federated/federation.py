"""What all parties of a federation have in common, the server's state, and what it broadcasts."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from tna_jax import sharding, transform, trees
from tna_jax.federated import servers
from tna_jax.federated.algorithm import Algorithm, Broadcast, ClientState, Tree
from tna_jax.federated.schedules import Schedule, of_round
from tna_jax.federated.servers import MEAN, ServerRule
from tna_jax.masks import Params
from tna_jax.networks import Network, State, Stateful
from tna_jax.objectives import CLASSIFICATION, Objective
from tna_jax.placement import Placement

NormPolicy = Literal["none", "shared", "local"]
"""What becomes of BatchNorm's running statistics: `none`, the network has none; `shared`, the server averages them like
parameters; `local`, they never leave their client (as in FedBN, arXiv 2102.07623, but for the affine parameters, which are
shared), and the server's model is evaluated with each client's."""


FEDAVG = Algorithm()


@dataclasses.dataclass(frozen=True)
class Federation:
    """What server and clients agree on before the first round. Hashable: it selects compiled programs.

    Attributes:
      network: (params, inputs) -> outputs, or a `Stateful` network; it scales its inputs itself.
      clients: N, the number of clients there are.
      num_classes: C; not needed for objectives other than classification.
      algorithm: see `tna_jax.federated.ALGORITHMS`.
      server: see `servers`.
      epochs, batch_size: E passes of a client over its data in a round, in batches of B; the last of a pass may be smaller.
      momentum, weight_decay: of a client's SGD, whose state starts anew in each round.
      optimizer: learning rate (float32 scalar) -> optax transformation, in the place of that SGD: `optax.adam`, or a chain that clips.
        It stands under `anchored`, weight decay before it, and starts anew in each round. SCAFFOLD and FedNova read a mean gradient from a client's move, as
        it is under plain SGD.
      steps: K local steps in each round, in the place of E passes: as many for every client, over its data again and again.
      norm: policy for running statistics; `none` for networks without.
      features: (params, state, inputs (B, ...)) -> (B, F), for MOON; see `features.penultimate`.
      placement: how clients share a device, see `tna_jax.placement`.
      objective: loss and metrics, see `tna_jax.objectives`; FedLC and FedDF are for classification only.

    Raises:
      ValueError: a policy that does not go with the network, MOON without features, numbers out of range; all are listed.
    """

    network: Network
    clients: int
    num_classes: int = 0
    algorithm: Algorithm = FEDAVG
    server: ServerRule = MEAN
    epochs: int = 1
    batch_size: int = 64
    momentum: float = 0.0
    weight_decay: float = 0.0
    norm: NormPolicy = "none"
    features: Callable[[Params, State, jax.Array], jax.Array] | None = None
    placement: Placement = "auto"
    objective: Objective = CLASSIFICATION
    optimizer: Callable[[Any], optax.GradientTransformation] | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        positive = ("clients", *(("num_classes",) if self.objective.classes else ()), "epochs", "batch_size")
        wrong = [
            f"{name} must be at least 1, got {getattr(self, name)}" for name in positive if getattr(self, name) < 1
        ]
        if self.steps is not None and self.steps < 1:
            wrong.append(f"steps must be at least 1, got {self.steps}")
        if self.optimizer is not None and self.momentum:
            wrong.append("momentum is of the SGD that an optimizer of your own replaces: put it into that")
        needing = [rule.title for rule, needs in ((self.algorithm, self.algorithm.needs_classes),
                   (self.server, self.server.distillation is not None)) if needs and not self.objective.classes]  # fmt: skip
        if needing:
            wrong.append(
                f"{' and '.join(needing)} is defined for classification only, the objective is {self.objective.name}"
            )
        if not 0 <= self.momentum < 1:
            wrong.append(f"momentum must lie in [0, 1), got {self.momentum}")
        if not self.weight_decay >= 0:
            wrong.append(f"weight_decay must be at least 0, got {self.weight_decay}")
        if self.norm not in get_args(NormPolicy):
            wrong.append(
                f"unknown policy for norm statistics {self.norm!r}: known are {', '.join(get_args(NormPolicy))}"
            )
        elif isinstance(self.network, Stateful) and self.norm == "none":
            wrong.append("the network has running statistics: say by norm whether they are 'shared' or 'local'")
        elif not isinstance(self.network, Stateful) and self.norm != "none":
            wrong.append(f"norm is {self.norm!r}, but the network has no running statistics: use 'none'")
        if self.algorithm.needs_features and self.features is None:
            wrong.append(f"{self.algorithm.title} needs features, see tna_jax.federated.features")
        if self.server.distillation is not None and self.norm == "local":
            wrong.append(f"{self.server.title} runs the clients' models on the server, which has no running statistics of theirs: "
                         "use norm 'shared'")  # fmt: skip
        if self.server.privacy is not None:
            if (
                type(self.algorithm).summand is not Algorithm.summand
                or type(self.algorithm).direction is not Algorithm.direction
            ):
                wrong.append(f"{self.algorithm.title} averages more than clipped moves, which alone get noise: take fedavg, fedprox, moon, "
                             "fedlc or fedsam")  # fmt: skip
            if self.norm == "shared":
                wrong.append(
                    "running statistics that the server averages get no noise: use norm 'local', or a network without"
                )
        if wrong:
            raise ValueError("; ".join(wrong))

    def of_clients(self) -> "Federation":
        """Returns the same with the plain server: clients' programs do not depend on the server, and are compiled once for all."""
        return dataclasses.replace(self, server=MEAN)

    def of_sums(self) -> "Federation":
        """Returns the same with the parts of the server that say what is summed; the programs that sum are compiled once for all others."""
        rule = dataclasses.replace(MEAN, robust=self.server.robust, privacy=self.server.privacy)
        return self if self.server.distillation is not None else dataclasses.replace(self, server=rule)

    def num_steps(self, examples: Any) -> Any:
        """Returns the local steps of a full round of clients with so many examples each; integers, NumPy or JAX."""
        if self.steps is not None:
            return 0 * examples + self.steps
        return -(-examples // self.batch_size) * self.epochs

    def num_seen(self, examples: int) -> int:
        """Returns how many examples a client of so many sees in a full round, each as often as it is seen."""
        if self.steps is None:
            return examples * self.epochs
        passes, rest = divmod(self.steps, -(-examples // self.batch_size))
        return passes * examples + min(rest * self.batch_size, examples)

    def client_optimizer(self, learning_rate: jax.Array) -> optax.GradientTransformationExtraArgs:
        """Returns SGD, or the optimizer of one's own, under `anchored`, the mask passed at update. The decay stands before it, so that no
        anchored entry gathers it as momentum and is moved by it in a later phase."""
        inner = self.optimizer(learning_rate) if self.optimizer else optax.sgd(learning_rate, self.momentum or None)
        anchored = transform.anchored(inner)
        return optax.chain(optax.add_decayed_weights(self.weight_decay), anchored) if self.weight_decay else anchored


class Server(NamedTuple):
    """The server's state after some rounds."""

    params: Params
    state: State
    """Running statistics under the policy `shared`; under `local` those that clients start from; else `()`."""
    opt_state: Any
    extra: Tree
    """The algorithm's variables."""


@sharding.outside_meshes
def init_server(federation: Federation, params: Params, state: State = ()) -> Server:
    """Returns the server before the first round.

    Raises:
      TypeError: parameters that are not floating-point arrays; all their paths are listed.
    """
    optimizer = federation.server.optimizer
    params, state = jax.tree.map(jnp.asarray, (params, state))
    trees.parameters(params)
    return Server(params, state, optimizer.init(servers.in_float32(params)), federation.algorithm.init_server(params))


@sharding.outside_meshes
def init_client_state(federation: Federation, server: Server) -> ClientState:
    """Returns the state of a client before its first round, from the server's initial one."""
    state = server.state if federation.norm == "local" else ()
    return ClientState(federation.algorithm.init_client(server.params), state)


@sharding.outside_meshes
def broadcast(
    federation: Federation,
    server: Server,
    schedule: Schedule,
    root: PRNGKeyArray,
    number: int,
    learning_rate: float | Float[Array, ""],
) -> Broadcast:
    """Returns what clients work with in round `number` (from 0). On a client's machine: `server` is what it received, with the
    algorithm's message in the place of `extra`; see `Algorithm.message`."""
    mask, split = of_round(schedule, root, server.params, number)
    message = federation.algorithm.message(server.extra)
    state = server.state if federation.norm == "shared" else ()
    return Broadcast(server.params, state, message, mask, split, jnp.float32(learning_rate))
