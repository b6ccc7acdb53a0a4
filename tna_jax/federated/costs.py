"""What a federation cost: bytes up and down and local steps, round by round, and up to a target accuracy.

Counted as the deployed federation sends (docs/flower.md): up, the entries that were live in the round; down, to a client that answered in the
last round the entries that were live in it, to every other one the whole model. Masks travel as seeds. What a protocol adds is not counted.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


class Payload(NamedTuple):
    """Bytes of a whole model on the wire."""

    up: int
    """Of the parameters, and of what the algorithm sends beside them (SCAFFOLD: as much again)."""
    down: int
    """Of the parameters."""
    message: int
    """What the algorithm's message adds to every request (SCAFFOLD: c)."""
    state: int
    """Running statistics that the server averages, in both directions, whatever is anchored."""


class Costs(NamedTuple):
    """(rounds,) each, sums over the clients."""

    up: Float[np.ndarray, " R"]
    """Bytes from clients to the server."""
    down: Float[np.ndarray, " R"]
    """Bytes from the server to clients."""
    steps: Int[np.ndarray, " R"]
    """Local steps."""


def of_rounds(
    payload: Payload,
    live: Float[np.ndarray, " R"],
    asked: Bool[np.ndarray, "R K"],
    answered: Bool[np.ndarray, "R K"],
    steps: Int[np.ndarray, "R K"],
) -> Costs:
    """Counts bytes and steps.

    Args:
      payload: of the model.
      live: share of the entries that were live in a round.
      asked, answered: which clients were asked in a round, and which answered.
      steps: local steps of each client in each round; of those that answered.
    """
    up, down = np.zeros(len(live)), np.zeros(len(live))
    holds = np.zeros(asked.shape[1], bool)  # what a client has is the model of the round before
    for i in range(len(live)):
        before = live[i - 1] if i else 1.0
        sent = payload.state + np.where(holds, before, 1.0) * payload.down + live[i] * payload.message
        down[i] = float(sent[asked[i]].sum())
        up[i] = float(answered[i].sum()) * (live[i] * payload.up + payload.state)
        holds = answered[i] if i + 1 < len(live) else holds
    return Costs(up, down, np.where(answered, steps, 0).sum(1))


def first_round(accuracy: Float[np.ndarray, " R"], target: float) -> int | None:
    """Returns the first round, from 0, after which the accuracy is at least the target; `None` if it never is."""
    reached = np.flatnonzero(np.asarray(accuracy) >= target)
    return int(reached[0]) if len(reached) else None
