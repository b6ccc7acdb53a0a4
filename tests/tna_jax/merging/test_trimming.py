"""TIES, breadcrumbs and SCE against references written from the papers, which sort; and thresholds of whole models."""

import numpy as np
import pytest

from tests.tna_jax.merging.hand_made import merged
from tna_jax import merging
from tna_jax.merging import magnitudes, signs
from tna_jax.merging.method import Survey
from tna_jax.merging.tensors import gather_facts

RNG = np.random.default_rng(0)


def kept_by_sorting(vector, low, high=None):
    """Entries of ranks low ... high of the magnitudes, the rest 0."""
    stays = np.zeros(vector.size, bool)
    stays[np.argsort(np.abs(vector), axis=None)[low:high]] = True
    return np.where(stays.reshape(vector.shape), vector, 0)


def ties_reference(models, base, density, strength, weights, elect="sum"):
    vectors = [kept_by_sorting(m - base, base.size - int(density * base.size)) for m in models]
    out = np.zeros_like(base)
    for index in np.ndindex(base.shape):
        values = np.array([vector[index] for vector in vectors])
        sign = np.sign(weights @ values if elect == "sum" else np.sign(values).sum())
        agree = (np.sign(values) == sign) & (values != 0)
        out[index] = base[index] + (
            strength * (weights[agree] @ values[agree]) / weights[agree].sum() if agree.any() else 0
        )
    return out


@pytest.mark.parametrize("elect", ["sum", "count"])
@pytest.mark.parametrize("density", [0.1, 0.37, 1])
def test_ties_is_its_algorithm(density, elect):
    base, models = RNG.normal(size=(6, 7)), RNG.normal(size=(4, 6, 7))
    weights = np.array([1, 2, 3, 1.5])
    expected = ties_reference(models, base, density, 0.7, weights, elect)
    result = merged("ties", models, base, weights, density=density, strength=0.7, elect=elect)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "by_sum", "by_count"),
    [
        ([3, -1, -1], 3, -1),
        ([1, 2, -4], -4, 1.5),
        ([2, -2, 0], 0, 0),
        ([2, -1, 0], 2, 0),
        ([0, 0, 0], 0, 0),
        ([-1, -3, 0], -2, -2),
        ([1e-30, -2e-30, 0], -2e-30, 0),
    ],
    ids=["one-large", "two-small", "tie-of-both", "tie-of-counts", "zeros", "agreed", "tiny"],
)
def test_signs_are_elected_and_ties_elect_none(values, by_sum, by_count):
    vectors = np.array(values, np.float32)[:, None]
    weights = np.full(3, 1 / 3, np.float32)
    assert signs.agreeing_mean(vectors, weights, "sum")[0] == pytest.approx(by_sum, rel=1e-6)
    assert signs.agreeing_mean(vectors, weights, "count")[0] == pytest.approx(by_count, rel=1e-6)
    np.testing.assert_allclose(signs.agreeing_mean(-vectors, weights, "sum"), [-by_sum], rtol=1e-6)


def test_a_negative_weight_turns_its_vector_and_a_weight_of_0_neither_votes_nor_divides():
    vectors = np.array([[1.0, -3], [2, 1], [9, 9]], np.float32)
    result = signs.agreeing_mean(vectors, np.array([1, -1, 0], np.float32), "sum")
    np.testing.assert_array_equal(result, [-2, -2])


def test_equal_magnitudes_stay_together():
    base = np.zeros(6)
    np.testing.assert_array_equal(merged("ties", [[1, 1, -1, 5, 0, 0]], base, density=0.5), [1, 1, -1, 5, 0, 0])
    np.testing.assert_array_equal(merged("ties", [[1, 2, -3, 5, 0, 0]], base, density=0.34), [0, 0, -3, 5, 0, 0])


def test_a_small_density_keeps_one_entry():
    np.testing.assert_array_equal(merged("ties", [[1, 2, -3]], np.zeros(3), density=0.01), [0, 0, -3])


@pytest.mark.parametrize("scope", ["tensor", "model"])
def test_the_threshold_is_a_tensors_or_the_models(scope):
    base = {"a": np.zeros(4, np.float32), "b": np.zeros(4, np.float32)}
    model = {"a": np.array([1, 2, 3, 4], np.float32), "b": np.array([5, 6, -7, 8], np.float32)}
    result = merging.merge("ties", [model], base, density=0.5, scope=scope)
    expected = {"tensor": ([0, 0, 3, 4], [0, 0, -7, 8]), "model": ([0, 0, 0, 0], [5, 6, -7, 8])}[scope]
    np.testing.assert_array_equal(result["a"], expected[0])
    np.testing.assert_array_equal(result["b"], expected[1])


@pytest.mark.parametrize("scale", [1e-40, 1e-6, 1, 1e30])
def test_thresholds_are_exact_order_statistics(scale):
    """Also of denormal numbers, of many equal ones, and over pieces."""
    values = (scale * RNG.normal(size=(2, 5000))).astype(np.float32)
    values[:, :1500] = values[:, :1]
    wanted = [0, 1, 2499, 4998, 4999]
    facts: np.ndarray = values[:, :0]
    for survey in magnitudes.surveys(lambda size, options: wanted):
        assert isinstance(survey, Survey)
        total = sum(survey.measure(piece, facts, {}) for piece in (values[:, :1234], values[:, 1234:]))
        facts = survey.conclude(total, facts, {})
    np.testing.assert_array_equal(facts, np.sort(np.abs(values), axis=1)[:, wanted])


@pytest.mark.parametrize(
    ("density", "gamma", "low", "high"),
    [(0.5, 0.25, 2, 6), (0.5, 0.1, 4, 8), (0.75, 0.25, 0, 6), (1, 0, 0, 8), (0.125, 0, 7, 8)],
    ids=["both", "empty-top", "empty-bottom", "all", "one"],
)
def test_breadcrumbs_drop_the_largest_and_the_smallest(density, gamma, low, high):
    base = np.ones(8)
    vectors = np.array([[1, -8, 3, 4, -2, 6, 7, 5], [8, 7, 6, 5, -4, -3, -2, -1.0]])
    expected = base + 0.3 * sum(kept_by_sorting(v, low, high) for v in vectors)
    result = merged("breadcrumbs", base + vectors, base, density=density, gamma=gamma, strength=0.3)
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_breadcrumbs_of_equal_magnitudes_are_not_all_outliers():
    np.testing.assert_array_equal(
        merged("breadcrumbs", [[1, 1, 1, -1]], np.zeros(4), density=0.5, gamma=0.25, strength=1), [1, 1, 1, -1]
    )


def sce_reference(models, base, density):
    vectors = models - base
    variance = vectors.var(0)
    stays = variance >= np.sort(variance.ravel())[base.size - int(density * base.size)]
    vectors = vectors * stays
    coefficients = np.square(vectors).sum(axis=tuple(range(1, vectors.ndim)))
    coefficients = coefficients / coefficients.sum()
    sign = np.sign(vectors.sum(0))
    used = (np.sign(vectors) == sign) & (vectors != 0)
    c = coefficients.reshape(-1, *(1,) * base.ndim) * used
    return base + (c * vectors).sum(0) / np.where(c.sum(0) > 0, c.sum(0), 1)


@pytest.mark.parametrize("density", [0.1, 0.5, 1])
def test_sce_is_its_three_steps(density):
    base, models = RNG.normal(size=(6, 5)), RNG.normal(size=(3, 6, 5)) * np.array([1, 2, 0.5])[:, None, None]
    np.testing.assert_allclose(
        merged("sce", models, base, density=density), sce_reference(models, base, density), rtol=1e-4, atol=1e-6
    )


def test_sce_of_equal_models_and_of_no_change():
    np.testing.assert_array_equal(merged("sce", [[1, 2], [1, 2]], [0, 0]), [1, 2])
    np.testing.assert_array_equal(merged("sce", [[1, 2], [1, 2]], [1, 2]), [1, 2])


def test_facts_of_no_tensor_are_none():
    assert gather_facts(merging.METHODS["ties"], list, {"density": 0.5}) is None
