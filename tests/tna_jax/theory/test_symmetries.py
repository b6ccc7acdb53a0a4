"""Counted symmetries keep every anchor and the function; others move an anchor; the mean count is the formula's."""

import itertools
import math

import numpy as np
import pytest

from tna_jax import masks
from tna_jax.theory import symmetries

H, D, C = 4, 2, 1
K = D + 1 + C
FREE, TIED = [True] * 3, [False, True, True]
CASES = {  # mask (h, k), anchors (h, k), count by hand
    "nothing anchored": ([FREE] * 4, np.zeros((4, 3)), 24),
    "all anchored, different values": ([[False] * 3] * 4, np.arange(12).reshape(4, 3), 1),
    "all anchored, one value": ([[False] * 3] * 4, np.zeros((4, 3)), 24),
    "one anchor on one unit": ([TIED, FREE, FREE, FREE], np.ones((4, 3)), 6),
    "two units with the same anchor": ([TIED, TIED, FREE, FREE], np.ones((4, 3)), 4),
    "two units with one anchor each, values differ": ([TIED, TIED, FREE, FREE], np.eye(4, 3), 2),
    "same value, other places": ([TIED, TIED[::-1], FREE, FREE], np.ones((4, 3)), 2),
    "values differ where nothing is anchored": ([FREE] * 4, np.arange(12).reshape(4, 3), 24),
    "minus zero is zero": ([TIED, TIED, TIED], [[0.0] * 3, [-0.0] * 3, [0.0] * 3], 6),
}


@pytest.mark.parametrize(("mask", "anchors", "expected"), CASES.values(), ids=CASES)
def test_counts_by_hand(mask, anchors, expected):
    assert symmetries.num_symmetries(np.array(mask), anchors) == expected
    assert len(symmetries.enumerate_symmetries(np.array(mask), anchors)) == expected


def layer(seed: int, ratio: float, constant: bool, h: int = H):
    generator = np.random.default_rng(seed)
    mask = {
        "U": generator.random((D, h)) >= ratio,
        "b": generator.random(h) >= ratio,
        "V": generator.random((h, C)) >= ratio,
    }
    anchors = {name: np.full(m.shape, 0.5) if constant else generator.normal(size=m.shape) for name, m in mask.items()}
    return mask, anchors, generator


def table(tree) -> np.ndarray:
    return symmetries.unit_entries(tree["U"], tree["b"], tree["V"])


def permuted(tree, p):
    return {"U": tree["U"][:, p], "b": tree["b"][p], "V": tree["V"][p]}


def output(params, x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, x @ params["U"] + params["b"]) @ params["V"]  # softplus: no unit is dead on all inputs


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.3, 0.5, 0.9, 1.0])
def test_brute_force_equals_the_product_over_classes(ratio, constant):
    for seed in range(20):
        mask, anchors, _ = layer(seed, ratio, constant)
        assert symmetries.num_symmetries(table(mask), table(anchors)) == len(
            symmetries.enumerate_symmetries(table(mask), table(anchors))
        )


@pytest.mark.parametrize("constant", [False, True])
def test_a_counted_permutation_keeps_anchors_and_function_and_no_other_does(constant):
    """Inside the family: permute, then put the anchors back. The function stays for counted permutations, and only for them."""
    everything = {tuple(p) for p in symmetries.enumerate_symmetries(np.ones((H, K), bool), np.zeros((H, K)))}
    counted, others = 0, 0
    for seed in range(8):
        mask, anchors, generator = layer(seed, 0.15, constant)
        params = {name: np.where(m, generator.normal(size=m.shape), anchors[name]) for name, m in mask.items()}
        x = generator.normal(size=(20, D))
        found = {tuple(p) for p in symmetries.enumerate_symmetries(table(mask), table(anchors)).tolist()}
        for p in everything:
            moved = permuted(params, list(p))
            np.testing.assert_allclose(output(moved, x), output(params, x))  # any permutation, of all weights
            back = {name: np.where(m, moved[name], anchors[name]) for name, m in mask.items()}
            assert all((back[name] == moved[name]).all() for name in mask) == (p in found)
            assert np.allclose(output(back, x), output(params, x)) == (p in found)
        counted, others = counted + len(found) - 1, others + len(everything) - len(found)
    assert counted > 0 and others > 0  # both sides were seen


@pytest.mark.parametrize(("different", "equal"), [(3, 0), (0, 3), (2, 1)])
def test_the_formula_is_the_mean_of_brute_force_over_all_masks(different, equal):
    h, k = 3, different + equal
    anchors = np.concatenate([np.arange(h * different).reshape(h, different), np.zeros((h, equal))], axis=1)
    everything = np.array(list(itertools.product([False, True], repeat=h * k))).reshape(-1, h, k)
    found = np.array([len(symmetries.enumerate_symmetries(mask, anchors)) for mask in everything])
    trainable = everything.sum(axis=(1, 2))
    for ratio in (0.0, 0.1, 0.4, 0.8, 1.0):
        weights = (1 - ratio) ** trainable * ratio ** (h * k - trainable)
        assert weights.sum() == pytest.approx(1)
        mean = symmetries.expected_count(h, ratio, different, equal)
        assert mean == pytest.approx(weights @ found, rel=1e-12)
        control = symmetries.expected_count(h, ratio, different + 1, equal)  # one entry more
        assert (control == pytest.approx(mean, rel=1e-12)) == (ratio == 0 or (ratio == 1 and different > 0))


def test_the_formula_for_different_values_is_the_mean_of_a_factorial():
    for h in (1, 2, 5, 30):
        for ratio in (0.0, 0.02, 0.3, 1.0):
            q = (1 - ratio) ** K
            terms = [math.comb(h, f) * q**f * (1 - q) ** (h - f) * math.factorial(f) for f in range(h + 1)]
            assert symmetries.expected_count(h, ratio, K) == pytest.approx(sum(terms), rel=1e-9)
    assert symmetries.expected_count(6, 0.0, K) == 720
    assert symmetries.expected_count(6, 1.0, 0, K) == 720
    assert symmetries.expected_count(6, 0.2, 0, 3) == pytest.approx(symmetries.expected_count(6, 0.8, 0, 3))


def test_free_units_and_the_chance_of_a_swap_equal_counting_in_masks_of_the_library():
    import jax

    shapes = {"U": jax.ShapeDtypeStruct((H, K), np.float32)}
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = np.asarray(jax.vmap(lambda key: masks.bernoulli(key, shapes, 0.1)["U"])(keys))
    free = drawn.all(axis=2).sum(axis=1)
    assert np.mean(free) == pytest.approx(float(symmetries.expected_free_units(H, 0.1, K)), abs=0.06)
    assert np.mean(free >= 2) == pytest.approx(float(symmetries.chance_of_a_swap(H, 0.1, K)), abs=0.03)
    assert symmetries.chance_of_a_swap(H, [0.0, 1.0], K).tolist() == [1.0, 0.0]
    assert symmetries.chance_of_a_swap(512, 0.4, 1000) == pytest.approx(0, abs=1e-12)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"incoming \(2, 3\), bias \(4,\), outgoing \(4, 1\)"):
        symmetries.unit_entries(np.zeros((2, 3)), np.zeros(4), np.zeros((4, 1)))
    with pytest.raises(ValueError, match=r"bool mask \(h, k\).*float64 \(2, 2\) and \(2, 2\)"):
        symmetries.num_symmetries(np.ones((2, 2)), np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"and \(3, 2\)"):
        symmetries.num_symmetries(np.ones((2, 2), bool), np.ones((3, 2)))
    for ratio, h in ((1.1, 3), (0.4, 171), (0.4, 0)):
        with pytest.raises(ValueError, match="ratio must lie in"):
            symmetries.expected_count(h, ratio, K)
