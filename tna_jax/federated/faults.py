"""Who takes part in a round, and what goes wrong in it: drop-outs, stragglers, updates that cannot be used."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from tna_jax.federated.algorithm import ClientUpdate
from tna_jax.federated.prng import FAULTS, SAMPLE, stream
from tna_jax.federated.robust import widened
from tna_jax.prng import same_bits


@dataclasses.dataclass(frozen=True)
class Faults:
    """What goes wrong.

    Attributes:
      drop: probability that a sampled client takes no part in a round, in [0, 1].
      straggle: probability that a client makes only a share of its steps, in [0, 1].
      straggler_share: that share, in (0, 1].
      nan: clients whose update holds a number that is not finite, in every round.
      wrong_shape: clients whose update has an array of another shape, in every round.
      hostile: clients whose update is well-formed and wrong on purpose: -10 times their move, in every round.

    Raises:
      ValueError: a number out of range.
    """

    drop: float = 0.0
    straggle: float = 0.0
    straggler_share: float = 0.5
    nan: tuple[int, ...] = ()
    wrong_shape: tuple[int, ...] = ()
    hostile: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("drop", "straggle"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability and must lie in [0, 1], got {getattr(self, name)}")
        if not 0 < self.straggler_share <= 1:
            raise ValueError(f"the share of a straggler's steps must lie in (0, 1], got {self.straggler_share}")

    def check(self, clients: int) -> None:
        """Raises ValueError for clients that are named here and are not among so many: nothing would go wrong, in silence."""
        named = {
            name: [k for k in getattr(self, name) if not 0 <= k < clients] for name in ("nan", "wrong_shape", "hostile")
        }
        if any(named.values()):
            wrong = "; ".join(f"{name}: {', '.join(map(str, numbers))}" for name, numbers in named.items() if numbers)
            raise ValueError(f"faults name clients that do not exist, of {clients}: {wrong}")


NO_FAULTS = Faults()


class Turnout(NamedTuple):
    """Who takes part."""

    sampled: list[int]
    """The clients that the server asked, sorted."""
    dropped: list[int]
    """Those of them that did not answer."""
    stragglers: list[int]
    """Those that answered after a share of their steps."""
    share: np.ndarray
    """(N,) float32, the share of its steps that each client makes."""


def asked(clients: int, participation: float) -> int:
    """Returns how many of the clients the server asks in a round: the share, rounded, at least one."""
    return max(1, int(participation * clients + 0.5))


@same_bits
def sample_clients(
    root: PRNGKeyArray, number: int, clients: int, participation: float, faults: Faults, poisson: bool = False
) -> Turnout:
    """Draws who takes part in round `number`: a function of the root key and the number alone.

    Args:
      root: the federation's key.
      number: of the round, from 0.
      clients: N.
      participation: share of them that the server asks, in (0, 1]; rounded, at least one.
      poisson: each client is asked with that chance by itself, as accountants of privacy count it; the number of clients varies, and may be 0.

    Raises:
      ValueError: a share out of range.
    """
    if not 0 < participation <= 1:
        raise ValueError(
            f"participation is the share of clients in a round and must lie in (0, 1], got {participation}"
        )
    key = stream(root, SAMPLE, number)
    if poisson:
        drawn = np.flatnonzero(np.asarray(jax.random.uniform(key, (clients,), jnp.float32)) < participation)
    else:
        drawn = np.asarray(jax.random.permutation(key, clients))[: asked(clients, participation)]
    sampled = sorted(int(client) for client in drawn)
    chance = np.asarray(jax.random.uniform(stream(root, FAULTS, number), (2, clients), jnp.float32))
    dropped = [client for client in sampled if chance[0, client] < faults.drop]
    late = [client for client in sampled if chance[1, client] < faults.straggle and client not in dropped]
    share = np.ones(clients, np.float32)
    share[late] = faults.straggler_share
    return Turnout(sampled, dropped, late, share)


def attacked(updates: ClientUpdate, hostile: np.ndarray) -> ClientUpdate:
    """Returns G updates, leaves (G, ...), with -10 times their move where `hostile`, (G,) bool."""
    factor = jnp.asarray(np.where(hostile, np.float32(-10), np.float32(1)))

    def scaled(leaf: jax.Array) -> jax.Array:
        rows = factor.reshape(-1, *(1,) * (leaf.ndim - 1))
        wide = widened(leaf)
        return (wide * rows.astype(wide.dtype)).astype(leaf.dtype)

    return updates._replace(delta=jax.tree.map(scaled, updates.delta))


def corrupted(faults: Faults, client: int, update: ClientUpdate) -> ClientUpdate:
    """Returns the update as it arrives: spoilt, if the client is one of those that `faults` names. NumPy arrays in and out."""
    leaves, structure = jax.tree.flatten(update.delta)
    if client in faults.nan:
        leaves[0] = np.array(leaves[0])
        leaves[0].reshape(-1)[0] = np.nan
    if client in faults.wrong_shape:
        leaves[-1] = np.concatenate([leaves[-1].reshape(-1), np.zeros(1, leaves[-1].dtype)])
    return update._replace(delta=jax.tree.unflatten(structure, leaves))
