"""Iso-C against a decomposition, WUDI against its loss, and which axis is which."""

import numpy as np
import pytest

from tests.tna_jax.merging.hand_made import merged
from tna_jax.merging import wudi
from tna_jax.merging.rows import by_unit, inputs_first

RNG = np.random.default_rng(0)
BASE = RNG.normal(size=(9, 6))
VECTORS = 0.1 * RNG.normal(size=(3, 9, 6))


@pytest.mark.parametrize("turned", [False, True])
def test_iso_c_makes_singular_values_equal(turned):
    base, vectors = (BASE.T, VECTORS.swapaxes(1, 2)) if turned else (BASE, VECTORS)
    u, s, vt = np.linalg.svd(vectors.sum(0), full_matrices=False)
    result = merged("iso_c", base + vectors, base, strength=0.7)
    np.testing.assert_allclose(result, base + 0.7 * s.mean() * u @ vt, atol=1e-5)
    np.testing.assert_allclose(np.linalg.svd(result - base, compute_uv=False), 0.7 * s.mean(), rtol=1e-4)


def test_iso_c_gives_nothing_to_directions_without_change():
    vectors = VECTORS.copy()
    vectors[:, :, 0] = 0
    result = merged("iso_c", BASE + vectors, BASE)
    np.testing.assert_array_equal(result[:, 0], BASE[:, 0].astype(np.float32))
    s = np.linalg.svd(result - BASE, compute_uv=False)
    np.testing.assert_allclose(s[:5], np.linalg.svd(vectors.sum(0), compute_uv=False).mean(), rtol=1e-4)
    np.testing.assert_allclose(s[5], 0, atol=1e-5)
    np.testing.assert_array_equal(merged("iso_c", [BASE, BASE], BASE), BASE.astype(np.float32))


def test_iso_c_of_a_change_of_low_rank_keeps_its_rank():
    """As of adapters: directions whose singular values are rounding errors get nothing."""
    vectors = RNG.normal(size=(3, 9, 2)) @ RNG.normal(size=(2, 6))
    result = merged("iso_c", vectors, np.zeros((9, 6)))
    mean = np.linalg.svd(vectors.sum(0), compute_uv=False).mean()
    np.testing.assert_allclose(np.linalg.svd(result, compute_uv=False), mean * np.array([1, 1, 0, 0, 0, 0]), atol=1e-4)


@pytest.mark.parametrize("name", ["iso_c", "wudi"])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (3, 3, 2, 4)])
def test_what_is_not_a_matrix_gets_the_mean(name, shape):
    base, vectors = RNG.normal(size=shape), RNG.normal(size=(3, *shape))
    np.testing.assert_allclose(
        merged(name, base + vectors, base, strength=0.5), base + 0.5 * vectors.mean(0), rtol=1e-4, atol=1e-5
    )


def loss(tau, vectors):
    return sum(np.square((tau - v) @ v.T).sum() / np.square(v).sum() for v in vectors)


def gradient(tau, vectors):
    return sum(2 * (tau - v) @ v.T @ v / np.square(v).sum() for v in vectors)


def adam_reference(vectors, steps, rate):
    tau, m, v = vectors.sum(0), 0, 0
    for t in range(1, steps + 1):
        g = gradient(tau, vectors)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        tau = tau - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return tau


@pytest.mark.parametrize("tensor", ["layer/weight", "layer/kernel"])
def test_wudi_is_adam_on_its_loss(tensor):
    base, vectors = (BASE.T, VECTORS.swapaxes(1, 2)) if tensor.endswith("kernel") else (BASE, VECTORS)
    result = merged("wudi", base + vectors, base, tensor=tensor, steps=50, learning_rate=1e-3) - base
    result = result.T if tensor.endswith("kernel") else result
    np.testing.assert_allclose(result, adam_reference(VECTORS, 50, 1e-3), atol=2e-5)
    assert loss(result, VECTORS) < 0.9 * loss(VECTORS.sum(0), VECTORS)


def test_wudi_exact_is_the_minimizer_nearest_to_the_sum():
    vectors = VECTORS.copy()
    vectors[:, :, 2] = 0  # inputs that no task has seen: A is singular
    result = (merged("wudi", BASE + vectors, BASE, solver="exact") - BASE).astype(np.float64)
    np.testing.assert_allclose(gradient(result, vectors), 0, atol=1e-5)
    assert np.abs(gradient(vectors.sum(0), vectors)).max() > 1e-2
    np.testing.assert_allclose(result[:, 2], 0, atol=1e-6)
    assert loss(result, vectors) < loss(adam_reference(vectors, 50, 1e-3), vectors)


def test_wudi_of_vectors_that_do_not_disturb_each_other_is_their_sum():
    vectors = np.zeros((2, 4, 6))
    vectors[0, :, :3], vectors[1, :, 3:] = RNG.normal(size=(2, 4, 3))
    for solver in ("adam", "exact"):
        np.testing.assert_allclose(merged("wudi", vectors, np.zeros((4, 6)), solver=solver), vectors.sum(0), atol=3e-3)


def test_a_task_vector_that_is_0_has_no_term():
    vectors = np.concatenate([VECTORS[:2], np.zeros((1, 9, 6))]).astype(np.float32)
    for with_zero, without in zip(
        wudi.normal_equations(vectors, np.ones(3)), wudi.normal_equations(vectors[:2], np.ones(2)), strict=True
    ):
        np.testing.assert_array_equal(with_zero, without)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("a/kernel", True),
        ("kernel", True),
        ("a.kernel", True),
        ("a/weight", False),
        ("kernel/weight", False),
        ("", False),
    ],
)
def test_a_kernel_has_its_inputs_first(name, first):
    assert inputs_first(name) is first


@pytest.mark.parametrize(
    ("name", "shape", "rows"),
    [("weight", (4, 3, 5), (4, 15)), ("kernel", (3, 5, 4), (4, 15)), ("bias", (7,), (1, 7)), ("scale", (), (1, 1))],
)
def test_rows_are_what_enters_a_unit(name, shape, rows):
    tensor = RNG.normal(size=shape)
    seen = []
    result = by_unit(tensor, name, lambda array: (seen.append(array.shape), 2 * array)[1])
    assert seen == [rows]
    np.testing.assert_array_equal(result, 2 * tensor)
