"""What a federated algorithm is: a handful of pure functions, of which each algorithm replaces those that it changes.

A round, in the words used here (w_g the server's parameters, k a client):
1. the server broadcasts w_g, `message` and the seed of the mask;
2. client k starts at w = w_g and makes K_k steps of SGD on `loss`, whose gradient `gradient` may change; in each step only the
   entries that are live in it move, by `tna_jax.transform.anchored`;
3. it returns `Delta_k = w - w_g` and what `after` makes of it, and keeps its memory for its next round;
4. the server averages `summand` over the clients, `direction` makes a direction of the averages, and a server optimizer takes a
   step along it.

Mask schedules go with all of it by four rules, which are ours, tested for every pair of algorithm and server: **an entry that was
anchored for the whole round is copied, bit for bit**, in the parameters, in the server's optimizer state (momentum neither decays
nor moves), in the algorithm's own variables of server and client (FedDyn's h, SCAFFOLD's c): for this entry the round did not
happen. And wherever a rule divides by a number of local steps K, K counts the steps in which the entry was live.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from tna_jax import metrics
from tna_jax.federated.schedules import by_phase
from tna_jax.federated.servers import in_float32
from tna_jax.masks import Mask, Params
from tna_jax.metrics import AnyMetrics
from tna_jax.networks import State
from tna_jax.objectives import CLASSIFICATION, Objective

Tree = Any
"""A pytree of arrays, `()` for nothing."""


class Broadcast(NamedTuple):
    """What a client works with in a round. The mask is rebuilt from its seed, it need not travel."""

    params: Params
    """w_g."""
    state: State
    """Of a network with BatchNorm, the server's running statistics; else `()`."""
    extra: Tree
    """The algorithm's message (SCAFFOLD: c)."""
    mask: Mask
    """See `schedules.RoundMask`."""
    split: jax.Array
    learning_rate: jax.Array
    """float32 scalar, of this round."""


class ClientState(NamedTuple):
    """What a client keeps from one of its rounds to the next."""

    memory: Tree
    """The algorithm's (SCAFFOLD: c_k; FedDyn: h_k; MOON: its last local model)."""
    state: State
    """Its running statistics, if they stay with the client (policy `local`); else `()`."""


class ClientUpdate(NamedTuple):
    """What a client returns."""

    delta: Params
    """w - w_g, exactly 0 where an entry was live in no step."""
    extra: Tree
    """The algorithm's (SCAFFOLD: c_k+ - c_k), 0 there too."""
    state: State
    """Running statistics, if they are shared (policy `shared`); else `()`."""
    steps: jax.Array
    """(2,) int32: steps made in the first and in the second phase."""
    examples: jax.Array
    """float32 scalar, n_k."""
    metrics: AnyMetrics
    """Summed over the steps, each before its update."""


class Context(NamedTuple):
    """What the functions of an algorithm may look at during a client's round."""

    broadcast: Broadcast
    memory: Tree
    live: Mask
    """The mask of this step."""
    class_counts: jax.Array
    """(C,) float32, n_y of this client; zeros where targets are no class labels."""
    features: Callable[[Params, State, jax.Array], jax.Array] | None
    """(params, state, inputs (B, ...)) -> (B, F)."""
    state: State
    """Running statistics before this step."""


Evaluate = Callable[[Params], tuple[Params, Any]]
"""Parameters to the gradient of the local loss on the batch, and what goes with it."""


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """FedAvg's choices, from which the algorithms differ. Instances are hashable: they select compiled programs."""

    title: ClassVar[str] = "FedAvg"
    paper: ClassVar[str] = "1602.05629"
    """arXiv number."""
    weighting: ClassVar[Literal["examples", "clients"]] = "examples"
    """What a client counts in averages: its number of examples, or one."""
    needs_features: ClassVar[bool] = False
    needs_classes: ClassVar[bool] = False
    """Whether it is defined for classification only."""
    positive: ClassVar[tuple[str, ...]] = ()
    """Fields that must lie above 0; every other number must be at least 0."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, above = getattr(self, field.name), field.name in self.positive
            if not (value > 0 if above else value >= 0):
                raise ValueError(
                    f"{field.name} of {self.title} must be {'above' if above else 'at least'} 0, got {value}"
                )

    def init_server(self, params: Params) -> Tree:
        """The algorithm's variables on the server before the first round."""
        return ()

    def init_client(self, params: Params) -> Tree:
        """A client's memory before its first round; `params` are the server's initial ones."""
        return ()

    def message(self, extra: Tree) -> Tree:
        """What the server sends beside its parameters."""
        return ()

    def logits(self, logits: jax.Array, context: Context) -> jax.Array:
        """(B, C) logits, or other outputs, of the training loss."""
        return logits

    def penalty(self, params: Params, inputs: jax.Array, weight: jax.Array, context: Context) -> jax.Array | None:
        """A scalar to add to the loss of a batch, `None` for none."""
        return None

    def descend(self, evaluate: Evaluate, params: Params, context: Context) -> tuple[Params, Any]:
        """The gradient that a step follows, and what goes with it."""
        return evaluate(params)

    def gradient(self, gradient: Params, params: Params, context: Context) -> Params:
        """That gradient with the algorithm's own terms."""
        return gradient

    def after(self, delta: Params, context: Context, weight: jax.Array) -> tuple[Tree, Tree]:
        """A client's new memory, and the `extra` of its update.

        Args:
          delta: w - w_g.
          weight: (2,) float32, K of each phase (see `gradient_weight`).
        """
        return context.memory, ()

    def summand(self, update: ClientUpdate, mask: Mask, weight: jax.Array) -> dict[str, Tree]:
        """What is averaged over clients; at least `delta`. `weight` as in `after`."""
        return {"delta": update.delta}

    def direction(self, average: dict[str, Tree], extra: Tree, live: Mask, share: jax.Array) -> tuple[Params, Tree]:
        """The direction of the server's step, and the algorithm's new variables on the server.

        Args:
          average: of `summand`, over the clients whose updates were accepted.
          extra: the variables so far.
          live: entries that were live in any step of any client.
          share: |S| / N, updates accepted over all clients there are.
        """
        return average["delta"], extra


def gradient_weight(steps: jax.Array, momentum: float) -> jax.Array:
    """K, the number of steps that a client's move amounts to: (2,) int32 to (2,) float32.

    Without momentum the number of steps. With momentum m, K is the sum of the weights with which the gradients entered
    `(w_g - w) / lr`: `sum_i (1 - m^(K-i)) / (1 - m)` (FedNova, arXiv 2007.07481, section 3; we use it for SCAFFOLD too, whose
    paper has no momentum). An entry gathers momentum while it is live only, so each phase counts for itself.
    """
    count = steps.astype(jnp.float32)
    if not momentum:
        return count
    rest = 1 - momentum
    return (count - momentum * (1 - momentum**count) / rest) / rest


def where_live(live: Mask, new: Tree, old: Tree) -> Tree:
    """Entry by entry: `new` where live, `old`, copied, where anchored; trees like the parameters."""
    return jax.tree.map(lambda m, a, b: jnp.where(m, a, b), live, new, old)


def zeros_like(params: Params) -> Params:
    """Zeros of the same shapes, for variates: sums over rounds, at least float32."""
    return in_float32(jax.tree.map(jnp.zeros_like, params))


def per_step(delta: Params, mask: Mask, weight: jax.Array) -> Params:
    """Each entry over its own K, 0 where that is 0; at least float32."""
    spread = by_phase(mask, weight)
    return jax.tree.map(
        lambda d, k: jnp.where(k > 0, d / jnp.maximum(k, jnp.float32(1)), jnp.zeros_like(d)), in_float32(delta), spread
    )


def mean_loss(outputs: Any, targets: Any, weight: jax.Array, objective: Objective = CLASSIFICATION) -> jax.Array:
    """Mean loss, of classification cross-entropy, of the real examples of a batch."""
    sums = objective.sums(outputs, targets, weight)
    return metrics.mean(sums.loss_sum, sums.count)
