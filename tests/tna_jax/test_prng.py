"""Streams: numbers that are part of the format of runs, and two families that never mix."""

import copy
import doctest
import pickle

import jax
import numpy as np
import pytest

from tests.parameters import slow
from tna_jax import augment, federated, host_bits, masks, prng
from tna_jax.ensemble import batch_indices
from tna_jax.federated import partition
from tna_jax.federated.faults import Faults, sample_clients
from tna_jax.prng import Stream, stream

NUMBERS = {
    "RUN": ("INIT", "ORDER", "MASK", "ANCHORS", "TEST", "SHIFT", "SCORE", "DATA", "CURVE"),
    "FEDERATED": ("INIT", "MASK", "SAMPLE", "ORDER", "FAULTS", "PARTITION", "PROXY", "DISTIL"),
}


def bits(key):
    return jax.random.key_data(key).tolist()


def test_numbers_are_those_of_the_runs_that_were_written():
    found = {name: member.number for name, member in Stream.__members__.items()}
    assert found == {f"{family}_{name}": i for family, names in NUMBERS.items() for i, name in enumerate(names)}
    assert len(set(Stream)) == len(Stream.__members__) == 17  # no member is another's alias
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


def drawn(seed):
    """What the library promises the bits of."""
    root, params = jax.random.key(seed), {"w": jax.ShapeDtypeStruct((4, 5), np.float32)}
    recipe = masks.AnchorRecipe(seed=seed, ratio=0.5)
    labels = np.arange(12) % 3
    image = np.arange(2 * 9 * 9, dtype=np.uint8).reshape(2, 9, 9, 1)
    values = {
        "mask": masks.bernoulli(root, params, 0.5), "exact": masks.exact(root, params, 0.5), "recipe": recipe.draw(params),
        "stream": jax.random.key_data(stream(seed, Stream.RUN_ORDER, 3)), "order": batch_indices(root, 1, 13, 4),
        "dirichlet": partition.partition("dirichlet", root, labels, 3), "shard": partition.partition("shard", root, labels, 3),
        "turnout": sample_clients(root, 1, 9, 0.5, Faults(drop=0.3)),
        "crop": augment.crop_flip(stream(seed, Stream.RUN_ORDER), image),
    }  # fmt: skip
    return jax.tree.map(lambda x: np.asarray(x).tolist(), values)


@pytest.mark.parametrize(
    "switch",
    [
        ("jax_default_prng_impl", "rbg"),
        *slow(
            (("jax_threefry_partitionable", False),), (("jax_enable_x64", True),)
        ),  # masks stand both, in their own tests
    ],
)
def test_no_switch_of_the_process_changes_a_bit(switch):
    expected, before = drawn(7), getattr(jax.config, switch[0])
    jax.config.update(*switch)
    try:
        assert drawn(7) == expected
    finally:
        jax.config.update(switch[0], before)


def test_a_key_of_rbg_is_that_of_threefry():
    rbg, ours = jax.random.key(5, impl="rbg"), prng.root_key(5)
    assert bits(prng.threefry(rbg)) == bits(ours)
    assert bits(prng.threefry(jax.random.fold_in(rbg, 3))) == bits(jax.random.fold_in(ours, 3))
    assert bits(prng.threefry(jax.random.PRNGKey(5))) == bits(ours)
    assert prng.threefry(ours) is ours


@pytest.mark.parametrize("which", [Stream.RUN_ORDER, *slow(Stream.FEDERATED_ORDER)])
def test_streams_on_the_host_are_those_of_jax(which):
    seeds, indices = [0, 5, 2**31, 5], [3, 0, 2**32 - 1, 7]
    keys = host_bits.keys(host_bits.streams(seeds, which, indices))
    for i, (seed, index) in enumerate(zip(seeds, indices, strict=True)):
        assert bits(keys[i]) == bits(stream(seed, which, index))


def test_uniform_numbers_on_the_host_are_those_of_jax():
    key, size = jax.random.key(9), host_bits.BLOCK + 100
    with jax.threefry_partitionable(True):
        drawn = np.asarray(jax.random.uniform(key, (size,)))
    assert host_bits.uniform(host_bits.words(key), size).tobytes() == drawn.tobytes()


def test_what_is_no_key_or_several_is_refused_with_what_is_needed():
    with pytest.raises(TypeError, match=r"a key is needed, jax.random.key\(seed\), got 3"):
        prng.threefry(3)
    for words in (np.zeros(3, np.uint32), np.zeros(2, np.int32), np.uint32(1), np.zeros(2, np.float32)):
        with pytest.raises(TypeError, match="a key is needed, jax.random.key"):
            prng.threefry(words)
    assert bool(prng.threefry(np.array([0, 3], np.uint32)) == jax.random.key(3))
    with pytest.raises(TypeError, match=r"one key is needed, got keys of the shape \(2,\)"):
        prng.words(jax.random.wrap_key_data(np.zeros((2, 2), np.uint32)))


def test_every_seed_has_a_key_of_its_own_and_no_other_number_has_one():
    assert bits(prng.root_key(prng.LAST_SEED)) == bits(jax.random.key(2**32 - 1))
    for seed in (-1, 2**32, 2**70):
        with pytest.raises(ValueError, match=f"a seed lies in 0 to 4294967295, got {seed}"):
            stream(seed, Stream.RUN_MASK)
