"""Average, task arithmetic, SLERP, the Karcher mean and Model Stock against their formulas, and where those end."""

import numpy as np
import pytest

import tna_jax
from tests.tna_jax.merging.hand_made import merged
from tna_jax.merging import karcher, model_stock, slerp

RNG = np.random.default_rng(0)


def test_the_average_is_weighted_average():
    models = RNG.normal(size=(3, 4, 5)).astype(np.float32)
    expected = tna_jax.weighted_average({"w": models}, [0.2, 0.3, 0.5])["w"]
    np.testing.assert_allclose(merged("average", models, weights=[0.2, 0.3, 0.5]), expected, rtol=1e-6)


@pytest.mark.parametrize("weights", [[0, 7, 0], [0, 1, 0]])
def test_a_single_weight_that_is_not_0_gives_that_model_whatever_the_others_hold(weights):
    models = RNG.normal(size=(3, 5)).astype(np.float32)
    models[0], models[2, 1] = np.nan, np.inf
    np.testing.assert_array_equal(merged("average", models, weights=weights), models[1])


def test_task_arithmetic_adds_negates_and_scales():
    base, a, b = [1, 1, 1], [3, 1, 0], [1, 5, 1]
    np.testing.assert_array_equal(merged("task_arithmetic", [a, b], base, strength=0.5), [2, 3, 0.5])
    np.testing.assert_array_equal(merged("task_arithmetic", [a, b], base, [1, -1], strength=1), [3, -3, 0])
    np.testing.assert_allclose(merged("task_arithmetic", [a, b], base), [1.8, 2.6, 0.6], rtol=1e-6)


def formula(x, y, t):
    angle = np.arccos(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    return (np.sin((1 - t) * angle) * x + np.sin(t * angle) * y) / np.sin(angle)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_slerp_is_shoemakes_formula(t):
    x, y = RNG.normal(size=(2, 20))
    np.testing.assert_allclose(merged("slerp", [x, y], weights=[1 - t, t]), formula(x, y, t), rtol=1e-5)
    np.testing.assert_allclose(merged("slerp", [[2, 0], [0, 1]], weights=[1, 1]), [2**0.5, 0.5**0.5], rtol=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([0, 0], [2, 4], [1, 2]),
        ([0, 0], [0, 0], [0, 0]),
        ([1, 2], [3, 6], [2, 4]),
        ([1, 2], [1, 2], [1, 2]),
        ([1, 2], [-3, -6], [-1, -2]),
        ([1, 1e-8], [1, -1e-8], [1, 0]),
    ],
    ids=["zero", "zeros", "parallel", "equal", "opposite", "nearly-parallel"],
)
def test_where_the_arc_is_not_defined_slerp_takes_the_line(x, y, expected):
    np.testing.assert_allclose(merged("slerp", [x, y]), expected, rtol=1e-6)


def test_the_ends_of_the_arc_are_the_models():
    models = RNG.normal(size=(2, 20)).astype(np.float32)
    for index in (0, 1):
        np.testing.assert_array_equal(merged("slerp", models, weights=np.eye(2)[index]), models[index])


@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.2, 0.8]])
def test_the_karcher_mean_of_two_models_of_one_norm_is_slerp(weights):
    models = RNG.normal(size=(2, 20))
    models /= np.linalg.norm(models, axis=1, keepdims=True)
    np.testing.assert_allclose(
        merged("karcher", models, weights=weights), merged("slerp", models, weights=weights), rtol=1e-4, atol=1e-6
    )


def test_the_karcher_mean_is_where_the_weighted_logarithms_cancel():
    models = RNG.normal(size=(4, 30)) + 0.5
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    mean = merged("karcher", models, weights=weights).astype(np.float64)
    norms = np.linalg.norm(models, axis=1)
    np.testing.assert_allclose(np.linalg.norm(mean), weights @ norms, rtol=1e-5)
    x, directions = mean / np.linalg.norm(mean), models / norms[:, None]
    angles = np.arccos(directions @ x)
    logarithms = (angles / np.sin(angles))[:, None] * (directions - np.cos(angles)[:, None] * x)
    np.testing.assert_allclose(weights @ logarithms, 0, atol=1e-6)
    assert np.linalg.norm(weights @ directions - (weights @ directions @ x) * x) > 1e-3  # it is not the plain mean


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ([[0, 0], [2, 0], [0, 2]], [2**0.5, 2**0.5]),
        ([[0, 0], [0, 0]], [0, 0]),
        ([[0, 0], [3, 4]], [3, 4]),
        ([[1, 0], [-1, 0]], [0, 0]),
        ([[3, 4]], [3, 4]),
    ],
    ids=["a-zero-is-left-out", "zeros", "a-zero-and-a-model", "opposite", "one"],
)
def test_the_karcher_mean_at_its_limits(models, expected):
    np.testing.assert_allclose(merged("karcher", models), expected, atol=1e-6)


def test_karcher_leaves_a_weight_of_0_out():
    models = RNG.normal(size=(3, 10))
    np.testing.assert_allclose(
        merged("karcher", models, weights=[1, 2, 0]), merged("karcher", models[:2], weights=[1, 2]), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("vectors", "ratio"),
    [
        ([[1, 0], [0, 1]], 0),
        ([[1, 2], [2, 4]], 1),
        ([[1, 0], [-1, 0]], 0),
        ([[1, 0], [0, 0]], 0),
        ([[0, 0], [0, 0]], 0),
        ([[1, 0], [1, 3**0.5]], 2 / 3),
        ([[1, 0, 0], [1, 1, 0], [1, 0, 1]], None),
    ],
    ids=["cosine-0", "cosine-1", "opposite", "a-zero", "zeros", "cosine-half", "three"],
)
def test_model_stock_goes_as_far_as_the_cosine_says(vectors, ratio):
    vectors, base = np.asarray(vectors, np.float64), np.full(len(vectors[0]), 5.0)
    if ratio is None:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        c = np.mean([unit[0] @ unit[1], unit[0] @ unit[2], unit[1] @ unit[2]])
        ratio = 3 * c / (1 + 2 * c)
    expected = base + ratio * vectors.mean(0)
    np.testing.assert_allclose(merged("model_stock", base + vectors, base), expected, rtol=1e-6)


def test_angles_of_large_tensors_are_exact():
    """Inner products are summed in float64, over pieces."""
    models = RNG.normal(size=(2, 3 << 16)).astype(np.float32)
    from tna_jax.merging.angles import inner_products

    exact = models.astype(np.float64) @ models.T.astype(np.float64)
    np.testing.assert_allclose(inner_products(models, None, {}), exact, rtol=1e-12, atol=1e-9)
    assert slerp.coefficients(exact, np.array([0.5, 0.5])) == pytest.approx(
        karcher.coefficients(exact, np.array([0.5, 0.5])), rel=1e-2
    )
    assert 0 <= model_stock.interpolation_ratio(exact) < 0.02
