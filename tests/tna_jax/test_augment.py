"""A crop is a window of the padded image, a flip the image or its mirror; both are functions of the key."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import slow_but
from tna_jax import augment

KEY = jax.random.key(0)


def images(count, height=3, width=4, channels=2, dtype=np.uint8):
    """Every pixel of an image is another number, none is 0."""
    one = np.arange(1, height * width * channels + 1).reshape(height, width, channels)
    return np.broadcast_to(one, (count, *one.shape)).astype(dtype)


def offsets(found, original, padding):
    """Where each image lies in the original within `padding` zeros: exactly one (row, column) each."""
    height, width, _ = original.shape
    padded = np.pad(original, ((padding, padding), (padding, padding), (0, 0)))
    places = [(i, j) for i in range(2 * padding + 1) for j in range(2 * padding + 1)]
    result = []
    for image in np.asarray(found):
        fits = [(i, j) for i, j in places if np.array_equal(image, padded[i : i + height, j : j + width])]
        assert len(fits) == 1, fits
        result.append(fits[0])
    return result


@pytest.mark.parametrize("padding", [1, 2])
def test_crops_are_windows_of_the_padded_image_at_every_offset(padding):
    batch = images(600)
    found = offsets(augment.crop(KEY, jnp.asarray(batch), padding), batch[0], padding)
    places = (2 * padding + 1) ** 2
    counts = np.array([found.count(place) for place in sorted(set(found))])
    assert len(counts) == places
    expected = 600 / places
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)  # binomial deviation


def test_the_search_for_windows_finds_what_is_no_window():
    batch = images(1)
    broken = batch.copy()
    broken[0, 1, 1, 0] += 1
    with pytest.raises(AssertionError):
        offsets(broken, batch[0], 2)
    assert offsets(batch, batch[0], 2) == [(2, 2)]


def test_each_image_is_cut_from_itself():
    batch = images(40) + np.arange(40, dtype=np.uint8).reshape(-1, 1, 1, 1) * 5
    found = augment.crop(KEY, jnp.asarray(batch), 1)
    for image, original in zip(found, batch, strict=True):
        offsets(image[None], original, 1)


def test_flips_are_the_image_or_its_mirror_left_to_right():
    batch = images(1000)
    found = np.asarray(augment.flip(KEY, jnp.asarray(batch)))
    kept = (found == batch).all((1, 2, 3))
    mirrored = (found == batch[:, :, ::-1]).all((1, 2, 3))
    assert (kept ^ mirrored).all()
    assert 420 < kept.sum() < 580  # five deviations
    np.testing.assert_array_equal(augment.flip(KEY, jnp.asarray([[[[1], [2], [3]]]] * 20, np.uint8))[:, 0, 1, 0], 2)


def test_crop_flip_is_a_flip_of_a_crop_and_draws_both_independently():
    batch = images(600)
    found = np.asarray(augment.crop_flip(KEY, jnp.asarray(batch), 1))
    seen = set()
    for image in found:
        for mirrored in (False, True):
            try:
                seen.add((mirrored, *offsets((image[:, ::-1] if mirrored else image)[None], batch[0], 1)))
            except AssertionError:
                continue
            break
        else:
            pytest.fail("neither a crop nor a mirrored crop")
    assert len(seen) == 2 * 9


KINDS = {"crop": augment.crop, "flip": augment.flip, "crop-flip": augment.crop_flip}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, jnp.bfloat16])
def test_shape_and_dtype_are_kept_and_keys_decide(kind, dtype):
    batch = jnp.asarray(images(32, dtype=dtype))
    change = augment.create(kind, 2)
    first = change(KEY, batch)
    assert first.shape == batch.shape and first.dtype == dtype
    np.testing.assert_array_equal(first, change(jax.random.key(0), batch))
    np.testing.assert_array_equal(first, change(KEY, batch[:32]))
    assert not np.array_equal(first, change(jax.random.key(1), batch))
    assert not np.array_equal(first, batch)


@pytest.mark.slow
@pytest.mark.parametrize("kind", slow_but(["flip"], KINDS))
def test_jit_and_vmap_over_keys(kind):
    batch = jnp.asarray(images(16))
    change = augment.create(kind, 2)
    keys = jax.random.split(KEY, 3)
    expected = np.stack([change(key, batch) for key in keys])
    assert not np.array_equal(expected[0], expected[1])
    np.testing.assert_array_equal(jax.jit(change)(keys[0], batch), expected[0])
    np.testing.assert_array_equal(jax.vmap(change, (0, None))(keys, batch), expected)
    batches = jnp.stack([batch] * 3)
    np.testing.assert_array_equal(jax.jit(jax.vmap(change))(keys, batches), expected)


def test_create_passes_the_padding_on():
    batch = jnp.asarray(images(16, 9, 9, 1))
    for kind, whole in (("crop", augment.crop), ("crop-flip", augment.crop_flip)):
        for padding in (1, 4):
            np.testing.assert_array_equal(augment.create(kind, padding)(KEY, batch), whole(KEY, batch, padding))
        assert not np.array_equal(augment.create(kind, 1)(KEY, batch), augment.create(kind, 4)(KEY, batch))
        np.testing.assert_array_equal(augment.create(kind)(KEY, batch), whole(KEY, batch, 4))


def test_create_none_is_none():
    assert augment.create("none") is None
    assert augment.create("none", 2) is None


@pytest.mark.parametrize("kind", slow_but(["flip"], KINDS))
def test_create_gives_the_same_object_so_that_nothing_is_compiled_again(kind):
    assert augment.create(kind, 3) is augment.create(kind, padding=3)
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def run(change, key, batch):
        traces.append(change)
        return change(key, batch)

    batch = jnp.asarray(images(2))
    for seed in (1, 2):
        run(augment.create(kind, 3), jax.random.key(seed), batch)
    assert len(traces) == 1
    if kind != "flip":
        assert augment.create(kind, 3) is not augment.create(kind, 2)
        run(augment.create(kind, 2), KEY, batch)
        assert len(traces) == 2


@pytest.mark.parametrize(
    ("kind", "padding", "words"),
    [
        ("mixup", 4, "unknown augmentation 'mixup'.*none, crop, flip, crop-flip"),
        ("crop_flip", 4, "unknown augmentation 'crop_flip'"),
        ("crop", 0, "at least 1 pixel, got 0"),
        ("crop-flip", -2, "at least 1 pixel, got -2"),
    ],
)
def test_create_refuses(kind, padding, words):
    with pytest.raises(ValueError, match=words):
        augment.create(kind, padding)
