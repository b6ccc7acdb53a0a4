"""What server and clients of a deployed federation have in common, each building it for itself from the run's settings."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tna_jax.federated import INIT, Federation, Schedule, Server, init_server, stream
from tna_jax.masks import Params
from tna_jax.networks import State

Data = tuple[np.ndarray, np.ndarray]
"""Inputs (n, ...) as the network takes them, labels (n,) integers."""


@dataclasses.dataclass(frozen=True)
class Task:
    """A federated task. Server and clients make it by the same function from the same settings; data is read when asked for.

    Attributes:
      federation: network, algorithm, local training; see `tna_jax.federated.Federation`.
      schedule: which weights are anchored in which round.
      seed: of everything that is drawn: initial parameters, masks, participants, data orders.
      rounds: how many.
      init: a key to the initial parameters and running statistics (`()` if there are none).
      learning_rate: of the clients, by the number of the round.
      examples: client k, from 0, to its training data. Called on the client's machine only.
      held_out: the server's test data, `None` if it has none.
      proxy: the server's unlabeled inputs for FedDF, `None` for servers that do not distil.
      participation: the share of clients in a round.
      delta: of a server with privacy, for which epsilon is said.
    """

    federation: Federation
    schedule: Schedule
    seed: int
    rounds: int
    init: Callable[[jax.Array], tuple[Params, State]]
    learning_rate: Callable[[int], float]
    examples: Callable[[int], Data]
    held_out: Callable[[], Data] | None = None
    proxy: Callable[[], np.ndarray] | None = None
    participation: float = 1.0
    delta: float = 1e-5

    def __post_init__(self) -> None:
        if not self.federation.objective.classes:
            raise ValueError(
                f"on Flower a federation is one of classification, the objective is {self.federation.objective.name}: "
                "its metrics travel by name (see tna_jax.flower.validate)"
            )

    @property
    def root(self) -> jax.Array:
        """The federation's key."""
        return jax.random.key(self.seed)

    def init_server(self) -> Server:
        """Returns the server before the first round."""
        return init_server(self.federation, *jax.jit(self.init)(stream(self.root, INIT)))

    def model_shapes(self) -> Any:
        """Returns the shapes of the model that travels: `{"params", "state"}`."""
        params, state = jax.eval_shape(self.init, jax.random.key(0))
        return {"params": params, "state": state}
