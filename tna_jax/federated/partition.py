"""Which client has which examples: Dirichlet, shards, or at random. Every example goes to exactly one client."""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, Shaped

from tna_jax import labels as labels_lib
from tna_jax import prng

PartitionKind = Literal["dirichlet", "shard", "iid"]


@prng.same_bits
def partition(
    kind: PartitionKind,
    key: PRNGKeyArray,
    labels: Shaped[np.ndarray | Array, "..."],
    clients: int,
    *,
    alpha: float = 0.5,
    shards: int = 2,
    least: int = 1,
) -> list[Shaped[np.ndarray, " _"]]:
    """Deals the examples out to clients.

    Args:
      kind: `dirichlet`, see `dirichlet`; `shard`, see `shard`; `iid`: equal parts at random.
      key: a PRNG key.
      labels: (N,) integers of any type, or words; of `iid` any targets (N, ...). A number below 0, say of examples without a label, is a class of its own.
      clients: K.
      alpha: of `dirichlet`.
      shards: of `shard`, for each client.
      least: every client gets at least so many examples: one that has fewer takes from the one that has most (ours).

    Returns:
      K arrays of indices into `labels`, int32, sorted; together a permutation of `range(N)`.

    Raises:
      ValueError: labels of another shape or type, an unknown kind, numbers out of range, fewer than `least * clients` examples.
    """
    labels = np.asarray(labels) if kind == "iid" else labels_lib.as_classes(np.asarray(labels))
    key = prng.threefry(key)
    if kind not in get_args(PartitionKind):
        raise ValueError(f"unknown partition {kind!r}: known are {', '.join(get_args(PartitionKind))}")
    if clients < 1 or least < 1:
        raise ValueError(f"clients and their least number of examples must be at least 1, got {clients} and {least}")
    if len(labels) < clients * least:
        raise ValueError(
            f"{clients} clients of at least {least} examples need {clients * least}, there are {len(labels)}"
        )
    if kind == "dirichlet":
        parts = dirichlet(key, labels, clients, alpha)
    elif kind == "shard":
        parts = shard(key, labels, clients, shards)
    else:
        parts = [np.asarray(part) for part in np.array_split(_shuffled(key, len(labels)), clients)]
    return [np.sort(part).astype(np.int32) for part in _filled(parts, least)]


@prng.same_bits
def dirichlet(
    key: PRNGKeyArray, labels: Shaped[np.ndarray, " N"], clients: int, alpha: float
) -> list[Shaped[np.ndarray, " _"]]:
    """The examples of each class are spread over the clients by shares drawn from Dirichlet(alpha), one draw for each class.

    Smaller `alpha`, more heterogeneous clients (Hsu et al. 2019, arXiv 1909.06335, drew classes for each client; drawing
    clients for each class is the form of the first author's code). The numbers of examples differ between clients.
    Raises ValueError unless `alpha` is above 0.
    """
    if not alpha > 0:
        raise ValueError(f"alpha of a Dirichlet partition must be above 0, got {alpha}")
    parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        class_key = jax.random.fold_in(key, int(label) % 2**32)
        rows = np.flatnonzero(labels == label)
        rows = rows[_shuffled(jax.random.fold_in(class_key, 0), len(rows))]
        shares = np.asarray(_dirichlet(jax.random.fold_in(class_key, 1), alpha, clients), np.float64)
        cuts = np.round(np.cumsum(shares)[:-1] * len(rows)).astype(int)
        for client, piece in enumerate(np.split(rows, np.clip(cuts, 0, len(rows)))):
            parts[client].append(piece)
    return [np.concatenate(pieces) for pieces in parts]


def _dirichlet(key: jax.Array, alpha: float, clients: int) -> jax.Array:
    """(K,) shares, drawn by the logarithms of gammas: small `alpha` does not underflow."""
    with jax.enable_x64(False):  # JAX draws gammas in float32 otherwise where 64 bits are switched on
        logs = jax.random.loggamma(key, jnp.full(clients, alpha, jnp.float32))
        return jax.nn.softmax(logs)


@prng.same_bits
def shard(
    key: PRNGKeyArray, labels: Shaped[np.ndarray, " N"], clients: int, shards: int
) -> list[Shaped[np.ndarray, " _"]]:
    """Examples sorted by class are cut into `clients * shards` pieces, of which each client gets `shards` at random.

    The pathological partition of FedAvg's paper (arXiv 1602.05629): most clients see about `shards` classes.
    Raises ValueError for more shards than there are examples to fill them.
    """
    if not 1 <= shards <= len(labels) // clients:
        raise ValueError(f"shards of a client must lie in [1, {len(labels) // clients}], got {shards}")
    mixed = _shuffled(jax.random.fold_in(key, 0), len(labels))
    ordered = mixed[np.argsort(labels[mixed], kind="stable")]
    pieces = np.array_split(ordered, clients * shards)
    dealt = _shuffled(jax.random.fold_in(key, 1), len(pieces)).reshape(clients, shards)
    return [np.concatenate([pieces[i] for i in hand]) for hand in dealt]


def _shuffled(key: jax.Array, size: int) -> np.ndarray:
    return np.asarray(jax.random.permutation(key, size))


def _filled(parts: list[np.ndarray], least: int) -> list[np.ndarray]:
    """Moves examples from the largest client to those with fewer than `least`."""
    parts = list(parts)
    for client in range(len(parts)):
        while len(parts[client]) < least:
            richest = max(range(len(parts)), key=lambda i: len(parts[i]))
            moved = min(least - len(parts[client]), len(parts[richest]) - least)
            parts[client] = np.concatenate([parts[client], parts[richest][-moved:]])
            parts[richest] = parts[richest][:-moved]
    return parts


class Clients(NamedTuple):
    """The partition as one array: rows of data that all share, padded to the largest client."""

    indices: np.ndarray
    """(K, n) int32; the first `count` of a row are the client's, the others repeat its first."""
    count: Any
    """(K,) int32."""


def padded(parts: list[np.ndarray]) -> Clients:
    """Returns K arrays of indices as one, n a power of two, so that partitions of like size share compiled programs.

    Raises:
      ValueError: a client has no examples.
    """
    count = np.array([len(part) for part in parts], np.int32)
    if not (count > 0).all():
        raise ValueError(f"these clients have no examples: {', '.join(map(str, np.flatnonzero(count == 0)))}")
    size = 1 << int(count.max() - 1).bit_length()
    rows = [np.concatenate([part, np.full(size - len(part), part[0])]) for part in parts]
    return Clients(np.stack(rows).astype(np.int32), count)
