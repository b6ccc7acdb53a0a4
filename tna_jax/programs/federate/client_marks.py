"""What befell each client in a round, in bits, as federate.json's history holds it."""

import numpy as np

from tna_jax.federated.simulation import Round

ASKED, DROPPED, LATE, REFUSED, NOBODY = 1, 2, 4, 8, 16
"""Bits of what befell a client in a round. `NOBODY`, of all clients: none was drawn, as may be with privacy; without any bit there was no round."""


def marks(outcome: Round, clients: int) -> np.ndarray:
    """Returns what befell each client, (N,) uint8."""
    bits = np.zeros(clients, np.uint8)
    bits[outcome.turnout.sampled] |= ASKED
    bits[outcome.turnout.dropped] |= DROPPED
    bits[outcome.turnout.stragglers] |= LATE
    bits[list(outcome.refused)] |= REFUSED
    return bits if outcome.turnout.sampled else bits | np.uint8(NOBODY)
