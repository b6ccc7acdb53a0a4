"""DARE and DELLA: what is dropped, what is drawn, and that a rerun in another process gives the same bytes."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from tests.tna_jax.merging.hand_made import merged
from tna_jax.merging import Context
from tna_jax.merging.dare import drop
from tna_jax.merging.della import keep_probability, mag_prune
from tna_jax.merging.draws import uniform

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(3, 50, 40)).astype(np.float32)


def test_dare_keeps_a_share_and_rescales_it():
    dropped = drop(VECTORS, 0.25, 0, Context("w"))
    stays = dropped != 0
    np.testing.assert_array_equal(dropped[stays], VECTORS[stays] / np.float32(0.25))
    assert abs(stays.mean() - 0.25) < 0.02
    assert 0.02 < (stays[0] & stays[1]).mean() < 0.1  # models drop independently: 1/16


def test_dare_linear_and_dare_ties_on_what_is_left():
    base = RNG.normal(size=(50, 40)).astype(np.float32)
    left = drop((base + VECTORS) - base, 0.5, 3, Context("layer/weight"))
    np.testing.assert_allclose(
        merged("dare_linear", base + VECTORS, base, [1, 2, 3], density=0.5, strength=0.1, seed=3),
        base + 0.1 * (left[0] + 2 * left[1] + 3 * left[2]), rtol=1e-5, atol=1e-5,
    )  # fmt: skip
    sign = np.sign(left.sum(0))
    agree = (np.sign(left) == sign) & (left != 0)
    mean = (left * agree).sum(0) / np.maximum(agree.sum(0), 1)
    np.testing.assert_allclose(merged("dare_ties", base + VECTORS, base, seed=3), base + mean, rtol=1e-5, atol=1e-5)


def test_dare_twice_with_one_seed_drops_the_same_and_divides_again():
    once = drop(VECTORS, 0.5, 0, Context("w"))
    np.testing.assert_array_equal(drop(once, 0.5, 0, Context("w")), once * 2)
    assert not np.array_equal(drop(once, 0.5, 1, Context("w")), once * 2)


def test_dare_at_density_1_is_the_identity():
    np.testing.assert_array_equal(drop(VECTORS, 1, 0, Context("w")), VECTORS)


@pytest.mark.parametrize("other", [(1, "w", 0), (0, "v", 0), (0, "w", 1)], ids=["seed", "name", "model"])
def test_a_draw_depends_on_seed_name_and_model(other):
    seed, name, model = other
    assert not np.array_equal(uniform(0, Context("w"), 0, 64), uniform(seed, Context(name), model, 64))


@pytest.mark.parametrize("start", [0, 1, 7, 8, 9, 100, 511])
def test_a_piece_of_a_draw_is_that_of_the_whole(start):
    whole = uniform(5, Context("w"), 2, 600)
    np.testing.assert_array_equal(uniform(5, Context("w", start=start), 2, 80), whole[start : start + 80])


def test_draws_are_uniform():
    drawn = uniform(0, Context("w"), 0, 100_000)
    assert drawn.dtype == np.float32 and drawn.min() >= 0 and drawn.max() < 1
    np.testing.assert_allclose(np.histogram(drawn, 10, (0, 1))[0] / 1e4, 1, atol=0.05)


def test_another_process_draws_the_same_bytes():
    program = (
        "import hashlib; from tna_jax.merging.draws import uniform; from tna_jax.merging import Context;"
        "print(hashlib.sha256(uniform(7, Context('a/b'), 1, 999).tobytes()).hexdigest())"
    )
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == hashlib.sha256(uniform(7, Context("a/b"), 1, 999).tobytes()).hexdigest()


def test_della_keeps_large_changes_more_often():
    rows = np.array([[3, -1, 2, 0.5], [1, 1, 1, 1]])
    expected = [[0.6, 0.4 + 0.2 / 3, 0.6 - 0.2 / 3, 0.4], [0.4, 0.4 + 0.2 / 3, 0.6 - 0.2 / 3, 0.6]]
    np.testing.assert_allclose(keep_probability(rows, 0.5, 0.2), expected, rtol=1e-6)
    np.testing.assert_allclose(keep_probability(rows[:, :1], 0.5, 0.2), 0.5)


@pytest.mark.parametrize(("name", "axis"), [("layer/weight", 1), ("layer.weight", 1), ("layer/kernel", 0)])
def test_della_ranks_what_enters_one_unit_and_rescales_by_its_probability(name, axis):
    pruned = mag_prune(VECTORS, 0.5, 0.4, 0, Context(name))
    ranks = np.argsort(np.argsort(np.abs(VECTORS), axis=axis + 1, kind="stable"), axis=axis + 1, kind="stable")
    count = VECTORS.shape[axis + 1]
    probability = 0.3 + 0.4 * ranks / (count - 1)
    stays = pruned != 0
    np.testing.assert_allclose(pruned[stays], (VECTORS / probability)[stays], rtol=1e-4)
    large = ranks >= count // 2
    assert stays[large].mean() > 0.55 > 0.45 > stays[~large].mean()
    np.testing.assert_allclose(pruned.mean(), VECTORS.mean(), atol=0.05)


def test_della_elects_and_della_linear_adds():
    base = np.zeros((50, 40), np.float32)
    left = mag_prune(VECTORS, 0.5, 0.2, 0, Context("layer/weight"))
    np.testing.assert_allclose(
        merged("della_linear", VECTORS, base, strength=0.5), 0.5 * left.sum(0), rtol=1e-4, atol=1e-5
    )
    agree = (np.sign(left) == np.sign(left.sum(0))) & (left != 0)
    expected = (left * agree).sum(0) / np.maximum(agree.sum(0), 1)
    np.testing.assert_allclose(merged("della", VECTORS, base), expected, rtol=1e-4, atol=1e-5)
