"""Corruptions: their laws, and values worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tna_jax import corruptions
from tna_jax.corruptions import BLUR, CONTRAST, KINDS, NOISE, corrupt

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def images():
    return jax.random.randint(jax.random.key(1), (6, 16, 16, 3), 0, 256).astype(jnp.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_severity_0_is_the_identity_and_each_further_one_moves_the_images_more(images, kind):
    assert np.array_equal(corrupt(KEY, images, kind, 0), images)
    far = [np.abs(np.float32(corrupt(KEY, images, kind, s)) - np.float32(images)).mean() for s in range(6)]
    assert far == sorted(far)
    assert far[1] > 0.5
    for severity in (1, 5):
        made = corrupt(KEY, images, kind, severity)
        assert (made.shape, made.dtype) == (images.shape, images.dtype)


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_noise_has_the_standard_deviation_of_the_table_and_no_mean(severity):
    grey = jnp.full((8, 32, 32, 3), 128, jnp.uint8)
    off = np.float64(corrupt(KEY, grey, "noise", severity)) - 128
    assert off.std() == pytest.approx(255 * NOISE[severity], rel=0.03)
    assert abs(off.mean()) < 0.5
    other = np.float64(corrupt(jax.random.key(5), grey, "noise", severity)) - 128
    assert abs(np.corrcoef(off.ravel(), other.ravel())[0, 1]) < 0.03


@pytest.mark.parametrize("severity", [1, 5])
def test_contrast_shrinks_distances_from_the_mean_and_keeps_the_mean(severity):
    images = jnp.asarray(np.tile(np.array([100.0, 140.0], np.float32), 32).reshape(1, 8, 8, 1))
    made = np.asarray(corrupt(KEY, images, "contrast", severity))
    assert made.mean() == pytest.approx(120)
    assert sorted(set(made.round(3).ravel())) == pytest.approx(
        [120 - 20 * CONTRAST[severity], 120 + 20 * CONTRAST[severity]]
    )


def test_blur_spreads_a_point_as_the_gaussian_does():
    point = jnp.zeros((1, 21, 21, 1)).at[0, 10, 10, 0].set(200.0)
    made = np.asarray(corrupt(KEY, point, "blur", 5))[0, :, :, 0]
    assert made.sum() == pytest.approx(200, rel=1e-5)
    weights = np.exp(-(np.arange(-4, 5) ** 2) / (2 * BLUR[5] ** 2))
    weights /= weights.sum()
    assert made[6:15, 6:15] == pytest.approx(200 * np.outer(weights, weights), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", ["blur", "contrast"])
def test_a_constant_image_is_a_fixed_point_and_the_key_does_not_matter(images, kind):
    flat = jnp.full((2, 9, 9, 3), 77, jnp.uint8)
    assert np.array_equal(corrupt(KEY, flat, kind, 4), flat)
    assert np.array_equal(corrupt(KEY, images, kind, 4), corrupt(jax.random.key(9), images, kind, 4))
    assert not np.array_equal(corrupt(KEY, images, "noise", 4), corrupt(jax.random.key(9), images, "noise", 4))


def test_a_traced_severity_gives_the_same(images):
    found = jax.vmap(lambda s: corruptions.FUNCTIONS["contrast"](KEY, images, s))(jnp.arange(6))
    assert np.array_equal(found[3], corrupt(KEY, images, "contrast", 3))


def test_what_cannot_be_is_refused(images):
    with pytest.raises(ValueError, match="unknown corruption 'fog': known are noise, blur, contrast"):
        corrupt(KEY, images, "fog", 1)
    with pytest.raises(ValueError, match="0 to 5, got 6"):
        corrupt(KEY, images, "noise", 6)


@pytest.mark.parametrize("severity", [-1, 6, 2.5])
def test_a_severity_that_there_is_not_is_refused(images, severity):
    with pytest.raises(ValueError, match=f"a whole number in 0 to 5, got {severity}"):
        corrupt(KEY, images, "contrast", severity)


@pytest.mark.parametrize(
    ("images", "max_value", "said"),
    [
        (np.linspace(0, 1, 12, dtype=np.float32), 255, "float32 and go up to 1, max_value is 255: give max_value=1"),
        (
            np.linspace(-2, 2, 12, dtype=np.float32),
            1,
            "from 0 to max_value 1, and these go from -2 to 2: corrupt them before",
        ),
        (np.array([0, np.nan, 1], np.float32), 1, "these go from nan to nan"),
        (np.arange(12, dtype=np.uint8), 10, "from 0 to max_value 10, and these go from 0 to 11"),
    ],
)
def test_images_that_are_not_of_the_range_of_pixels_are_refused(images, max_value, said):
    """Under a max_value of 255 images up to 1 would become noise, and scaled ones would lose all below 0."""
    with pytest.raises(ValueError, match=said):
        corrupt(KEY, jnp.asarray(images.reshape(1, -1, 1, 1)), "contrast", 3, max_value)


def test_floats_up_to_1_are_corrupted_as_integers_are(images):
    for kind in KINDS:
        scaled = corrupt(KEY, images.astype(jnp.float32) / np.float32(255), kind, 3, max_value=1)
        assert np.abs(np.asarray(scaled) * 255 - np.asarray(corrupt(KEY, images, kind, 3))).max() < 0.51
    black = jnp.zeros((1, 2, 2, 1), jnp.float32)
    assert np.array_equal(corrupt(KEY, black, "blur", 3), black)


def test_images_may_be_constants_of_a_traced_program(images):
    traced = jax.jit(lambda key: corrupt(key, images, "contrast", 2))(jax.random.key(0))
    assert jnp.array_equal(traced, corrupt(jax.random.key(0), images, "contrast", 2))
