"""Dealing on the host: JAX's bits without compiling, the balanced rule of others, owners, held-out examples like those of training."""

import jax
import numpy as np
import pytest

from tests.parameters import slow
from tna_jax import host_bits
from tna_jax.federated import partition
from tna_jax.federated.partition import by_owner, class_counts, dealt_like, padded

KEY = jax.random.key(11)
CLASSES, CLIENTS = 10, 20


@pytest.mark.parametrize("size", [2000, *slow(1, 2, 1625, 70_000)])
def test_bits_are_those_of_jax(size):
    """2,000 and more need two sorts."""
    words = host_bits.words(KEY)
    assert tuple(map(int, words)) == tuple(np.asarray(jax.random.key_data(KEY)).tolist())
    with jax.threefry_partitionable(True):
        assert (host_bits.permutation(words, size) == np.asarray(jax.random.permutation(KEY, size))).all()
        folded = np.asarray(jax.random.key_data(jax.random.fold_in(KEY, 2**32 - 1)))
    assert host_bits.fold_in(words, 2**32 - 1) == tuple(folded)


def plainly_filled(parts, least):
    """The rule read out: the client with most examples gives, the first of several."""
    parts = list(parts)
    for client in range(len(parts)):
        while len(parts[client]) < least:
            richest = max(range(len(parts)), key=lambda i: len(parts[i]))
            moved = min(least - len(parts[client]), len(parts[richest]) - least)
            parts[client] = np.concatenate([parts[client], parts[richest][-moved:]])
            parts[richest] = parts[richest][:-moved]
    return parts


def test_the_least_number_of_examples_is_filled_up_by_the_rule_in_linear_time():
    rng = np.random.default_rng(0)
    for clients, least in ((7, 3), (40, 9), (40, 10)):
        cuts = np.sort(rng.integers(0, 10 * clients, clients - 1))
        parts = np.split(rng.permutation(10 * clients), cuts)
        for a, b in zip(partition._filled(parts, least), plainly_filled(parts, least), strict=True):
            assert a.tolist() == b.tolist()
    many = np.split(np.arange(300_000), np.sort(rng.integers(0, 300_000, 29_999)))
    assert min(map(len, partition._filled(many, 9))) == 9  # a minute by the rule read out


def balanced_in_numpy(labels, clients, alpha, seed):
    """From the description of NIID-Bench's and PFLlib's Dirichlet partition."""
    random, parts = np.random.RandomState(seed), [[] for _ in range(clients)]
    for label in range(CLASSES):
        rows = np.where(labels == label)[0]
        random.shuffle(rows)
        shares = random.dirichlet(np.repeat(alpha, clients))
        shares = np.array(
            [share * (len(part) < len(labels) / clients) for share, part in zip(shares, parts, strict=True)]
        )
        cuts = (np.cumsum(shares / shares.sum()) * len(rows)).astype(int)[:-1]
        parts = [part + piece.tolist() for part, piece in zip(parts, np.split(rows, cuts), strict=True)]
    return parts


def statistics(parts, labels):
    counts = np.array([np.bincount(labels[np.asarray(part, int)], minlength=CLASSES) for part in parts], float)
    sizes = counts.sum(1)
    shares = counts / np.maximum(sizes, 1)[:, None]
    return np.array(
        [sizes.std() / sizes.mean(), sizes.max() / sizes.mean(), shares.max(1).mean(), (counts > 0).sum(1).mean()]
    )


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.5, *slow(0.1, 10.0)])
def test_a_balanced_partition_has_the_statistics_of_the_rule(alpha):
    labels = np.random.default_rng(0).integers(0, CLASSES, 5000)
    deal = [partition.dirichlet(jax.random.key(seed), labels, CLIENTS, alpha, balance=True) for seed in range(25)]
    ours = np.array([statistics(parts, labels) for parts in deal])
    theirs = np.array([statistics(balanced_in_numpy(labels, CLIENTS, alpha, seed), labels) for seed in range(25)])
    error = np.sqrt((ours.var(0) + theirs.var(0)) / 25)
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 3.5 * error).all()
    assert sorted(np.concatenate(deal[0]).tolist()) == list(range(5000))
    plain = np.array(
        [statistics(partition.dirichlet(jax.random.key(seed), labels, CLIENTS, alpha), labels) for seed in range(5)]
    )
    assert plain[:, 0].mean() > 1.2 * ours[:, 0].mean()  # the control: sizes differ more without
    parts = partition.partition("dirichlet", KEY, labels, CLIENTS, alpha=alpha, least=10, balance=True)
    assert min(map(len, parts)) >= 10


def test_owners_and_held_out_examples():
    parts, names = by_owner(np.array(["b", "a", "b", "c", "a", "b"]))
    assert names == ["a", "b", "c"] and [part.tolist() for part in parts] == [[1, 4], [0, 2, 5], [3]]
    labels = np.random.default_rng(1).integers(0, 3, 900)
    clients = padded(partition.partition("dirichlet", KEY, labels, 4, alpha=0.5))
    counts = class_counts(clients, labels, 4)
    assert (
        counts.sum(0).tolist() == np.bincount(labels, minlength=4).tolist()
        and counts.sum(1).tolist() == clients.count.tolist()
    )
    held_out = np.random.default_rng(2).integers(0, 4, 400)
    owners = dealt_like(KEY, counts, held_out)
    assert (owners[held_out == 3] == -1).all() and (owners[held_out < 3] >= 0).all()  # nobody trains on class 3
    for label in range(3):
        dealt = np.bincount(owners[held_out == label], minlength=4)
        np.testing.assert_allclose(dealt / dealt.sum(), counts[:, label] / counts[:, label].sum(), atol=0.02)
    assert (owners == dealt_like(KEY, counts, held_out)).all()


def test_shares_and_owners_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="above 0 and finite, got inf; kind iid"):
        partition.dirichlet(jax.random.key(0), np.arange(4), 2, np.inf)
    with pytest.raises(ValueError, match="2 examples have the owner NaN"):
        partition.by_owner(np.array([1.0, np.nan, np.nan]))
