"""Streams: numbers that are part of the format of runs, and two families that never mix."""

import copy
import doctest
import pickle

import jax
import pytest

from tna_jax import federated, prng
from tna_jax.prng import Stream, stream

NUMBERS = {
    "RUN": ("INIT", "ORDER", "MASK", "ANCHORS", "TEST", "SHIFT", "SCORE", "DATA"),
    "FEDERATED": ("INIT", "MASK", "SAMPLE", "ORDER", "FAULTS", "PARTITION", "PROXY", "DISTIL"),
}


def bits(key):
    return jax.random.key_data(key).tolist()


def test_numbers_are_those_of_the_runs_that_were_written():
    found = {name: member.number for name, member in Stream.__members__.items()}
    assert found == {f"{family}_{name}": i for family, names in NUMBERS.items() for i, name in enumerate(names)}
    assert len(set(Stream)) == len(Stream.__members__) == 16  # no member is another's alias
    assert all(copy.deepcopy(member) is pickle.loads(pickle.dumps(member)) is member for member in Stream)


@pytest.mark.parametrize("name", NUMBERS["FEDERATED"])
def test_the_streams_of_a_federation_are_what_they_were(name):
    root = jax.random.key(5)
    which = getattr(federated, name)
    assert which is Stream[f"FEDERATED_{name}"]
    folded = jax.random.fold_in(root, NUMBERS["FEDERATED"].index(name))
    assert bits(stream(root, which)) == bits(folded) == bits(jax.random.fold_in(root, which))
    assert bits(stream(root, which, 3, 4)) == bits(jax.random.fold_in(jax.random.fold_in(folded, 3), 4))
    assert bits(stream(root, which, 3, 4)) != bits(stream(root, which, 4, 3))


@pytest.mark.parametrize("name", NUMBERS["RUN"])
def test_the_streams_of_a_run_are_what_they_were(name):
    folded = jax.random.fold_in(jax.random.key(5), NUMBERS["RUN"].index(name))
    for index in (0, 7):
        assert bits(stream(5, Stream[f"RUN_{name}"], index)) == bits(jax.random.fold_in(folded, index))
    assert bits(stream(5, Stream[f"RUN_{name}"])) == bits(stream(jax.random.key(5), Stream[f"RUN_{name}"], 0))
    assert bits(stream(5, Stream[f"RUN_{name}"])) != bits(folded)


def test_indices_may_be_traced():
    keys = jax.vmap(lambda i: stream(0, Stream.FEDERATED_ORDER, 2, i))(jax.numpy.arange(3))
    assert [bits(key) for key in keys] == [bits(stream(0, Stream.FEDERATED_ORDER, 2, i)) for i in range(3)]


def test_the_example_runs():
    assert doctest.testmod(prng) == (0, 2)
