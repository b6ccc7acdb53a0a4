"""Which client has which examples: Dirichlet, shards, at random, or by their owners. Every example goes to exactly one client."""

import heapq
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, Shaped

from tna_jax import host_bits, prng
from tna_jax import labels as labels_lib

PartitionKind = Literal["dirichlet", "shard", "iid"]
ATTEMPTS = 20
"""Draws of a balanced partition, the first that gives every client enough is taken."""


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
    balance: bool = False,
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
      balance: of `dirichlet`, as NIID-Bench, PFLlib and Flower deal: a client that has its N / K examples gets none of the next
        class, and a partition in which a client has fewer than `least` is drawn again, `ATTEMPTS` times at most.

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
        parts = _drawn(key, labels, clients, alpha, least) if balance else dirichlet(key, labels, clients, alpha)
    elif kind == "shard":
        parts = shard(key, labels, clients, shards)
    else:
        parts = [np.asarray(part) for part in np.array_split(_shuffled(key, len(labels)), clients)]
    return [np.sort(part).astype(np.int32) for part in _filled(parts, least)]


def _drawn(key: jax.Array, labels: np.ndarray, clients: int, alpha: float, least: int) -> list[np.ndarray]:
    """Draws balanced partitions until one gives every client enough; the last one if none does."""
    parts = dirichlet(key, labels, clients, alpha, balance=True)
    for attempt in range(1, ATTEMPTS):
        if min(map(len, parts)) >= least:
            break
        again = jax.random.fold_in(jax.random.fold_in(key, 2**31), attempt)
        parts = dirichlet(again, labels, clients, alpha, balance=True)
    return parts


def by_owner(owners: Shaped[np.ndarray, " N"]) -> tuple[list[Shaped[np.ndarray, " _"]], list[str]]:
    """Returns the examples of each owner, int32 indices sorted, and the owners' names, in their order.

    Args:
      owners: (N,) numbers or words: whose an example is.

    Raises:
      ValueError: owners that are NaN.
    """
    owners = np.asarray(owners)
    if owners.dtype.kind == "f" and np.isnan(owners).any():
        raise ValueError(
            f"{int(np.isnan(owners).sum())} examples have the owner NaN: leave them out, or give them an owner"
        )
    names, numbers = np.unique(owners, return_inverse=True)
    order = np.argsort(numbers, kind="stable")
    parts = np.split(order.astype(np.int32), np.cumsum(np.bincount(numbers, minlength=len(names)))[:-1])
    return [np.sort(part) for part in parts], list(map(str, names))


def dealt_like(
    key: PRNGKeyArray, counts: Shaped[np.ndarray, "K C"], labels: Shaped[np.ndarray, " N"]
) -> Shaped[np.ndarray, " N"]:
    """Deals held-out examples out to clients so that each has its own mixture of classes: (N,) int32, whose an example is.

    The examples of a class go to the clients in the proportions in which these have it in training; each to one client, at random.
    Examples of a class that no client has go to nobody, -1.

    Args:
      key: a PRNG key.
      counts: training examples of each client and class.
      labels: integers in [0, C).

    Raises:
      ValueError: labels that are none.
    """
    counts, labels = np.asarray(counts, np.float64), np.asarray(labels)
    labels_lib.check_labels(labels, len(labels), "held-out examples: ", counts.shape[1])
    owners = np.full(len(labels), -1, np.int32)
    for label in np.unique(labels):
        rows, total = np.flatnonzero(labels == label), counts[:, label].sum()
        if not total:
            continue
        rows = rows[host_bits.permutation(host_bits.fold_in(host_bits.words(key), int(label)), len(rows))]
        cuts = np.round(np.cumsum(counts[:, label] / total)[:-1] * len(rows)).astype(int)
        for client, piece in enumerate(np.split(rows, np.clip(cuts, 0, len(rows)))):
            owners[piece] = client
    return owners


def class_counts(clients: "Clients", labels: Shaped[np.ndarray, " N"], classes: int) -> Shaped[np.ndarray, "K C"]:
    """Counts the examples of each client and class: (K, C) int64."""
    labels = np.asarray(labels)
    labels_lib.check_labels(labels, len(labels), classes=classes)
    real = zip(clients.indices, np.asarray(clients.count), strict=True)
    return np.stack([np.bincount(labels[rows[:count]], minlength=classes) for rows, count in real])


@prng.same_bits
def dirichlet(
    key: PRNGKeyArray, labels: Shaped[np.ndarray, " N"], clients: int, alpha: float, balance: bool = False
) -> list[Shaped[np.ndarray, " _"]]:
    """The examples of each class are spread over the clients by shares drawn from Dirichlet(alpha), one draw for each class.

    Smaller `alpha`, more heterogeneous clients (Hsu et al. 2019, arXiv 1909.06335, drew classes for each client; drawing
    clients for each class is the form of the first author's code). The numbers of examples differ between clients; with
    `balance` a client that has its N / K examples has no share of the next class.
    Raises ValueError unless `alpha` is above 0 and finite.
    """
    if not 0 < alpha < np.inf:
        raise ValueError(
            f"alpha of a Dirichlet partition must be above 0 and finite, got {alpha}; kind iid deals equal parts"
        )
    parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
    sizes, words = np.zeros(clients, int), host_bits.words(prng.threefry(key))
    for label in np.unique(labels):
        class_key = host_bits.fold_in(words, int(label) % 2**32)
        rows = np.flatnonzero(labels == label)
        rows = rows[host_bits.permutation(host_bits.fold_in(class_key, 0), len(rows))]
        full = sizes >= len(labels) / clients if balance else np.zeros(clients, bool)
        shares = _dirichlet(host_bits.fold_in(class_key, 1), alpha, full)
        cuts = np.cumsum(shares)[:-1] * len(rows)
        cuts = (cuts if balance else np.round(cuts)).astype(int)
        for client, piece in enumerate(np.split(rows, np.clip(cuts, 0, len(rows)))):
            parts[client].append(piece)
            sizes[client] += len(piece)
    return [np.concatenate(pieces) for pieces in parts]


def _dirichlet(key: host_bits.Words, alpha: float, full: np.ndarray) -> np.ndarray:
    """(K,) shares, 0 of those that are full, drawn by the logarithms of gammas: small `alpha` does not underflow."""
    typed = jax.random.wrap_key_data(jnp.array(key, jnp.uint32), impl=prng.THREEFRY)
    with jax.enable_x64(False):  # JAX draws gammas in float32 otherwise where 64 bits are switched on
        logs = jax.random.loggamma(typed, jnp.full(full.shape, alpha, jnp.float32))
        return np.asarray(jax.nn.softmax(jnp.where(full, -jnp.inf, logs)), np.float64)


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
    return host_bits.permutation(host_bits.words(key), size)


def _filled(parts: list[np.ndarray], least: int) -> list[np.ndarray]:
    """Moves examples from the largest client, the first of several, to those with fewer than `least`."""
    parts = list(parts)
    largest = [(-len(part), client) for client, part in enumerate(parts)]
    heapq.heapify(largest)
    for client, part in enumerate(parts):
        pieces, missing = [part], least - len(part)
        while missing > 0:
            richest = largest[0][1]
            moved = min(missing, len(parts[richest]) - least)
            pieces.append(parts[richest][-moved:])
            parts[richest] = parts[richest][:-moved]
            heapq.heapreplace(largest, (-len(parts[richest]), richest))
            missing -= moved
        parts[client] = np.concatenate(pieces)
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
