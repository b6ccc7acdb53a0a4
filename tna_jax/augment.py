"""Augmentation of image batches on the device: pure functions of a key, for `Trainer(augment=...)`."""

import functools
from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, Shaped

from tna_jax import prng

Augment = Callable[[jax.Array, jax.Array], jax.Array]
"""(key, images (B, H, W, C)) -> images of the same shape and dtype."""

Augmentation = Literal["none", "crop", "flip", "crop-flip"]
CROP = 0
"""Stream of a batch's key for cropping."""
FLIP = 1
"""Stream of a batch's key for flipping."""


@prng.same_bits
def crop(key: Key[Array, ""], images: Shaped[Array, "B H W C"], padding: int = 4) -> Shaped[Array, "B H W C"]:
    """Cuts each image out at random, at its size, from itself within a margin of `padding` zeros.

    Args:
      key: a PRNG key; each image draws its own offset in [0, 2 * padding] for both axes.
      images: (B, H, W, C) of any dtype; the margin's zero is that of the stored pixels.
      padding: pixels of the margin on each side, at least 0.
    """
    count, height, width, channels = images.shape
    margin = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    offsets = jax.random.randint(key, (count, 2), 0, 2 * padding + 1, jnp.int32)

    def cut(image: Array, offset: Array) -> Array:
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], np.int32(0)), (height, width, channels))

    cropped: Array = jax.vmap(cut)(jnp.pad(images, margin), offsets)
    return cropped


@prng.same_bits
def flip(key: Key[Array, ""], images: Shaped[Array, "B H W C"]) -> Shaped[Array, "B H W C"]:
    """Mirrors each image left to right with probability 1/2; images (B, H, W, C) of any dtype."""
    mirrored = jax.random.bernoulli(key, np.float32(0.5), (images.shape[0], 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def crop_flip(key: Key[Array, ""], images: Shaped[Array, "B H W C"], padding: int = 4) -> Shaped[Array, "B H W C"]:
    """Runs `crop`, then `flip`: the usual augmentation of CIFAR (arXiv 1512.03385, section 4.2)."""
    images = crop(jax.random.fold_in(key, CROP), images, padding)
    return flip(jax.random.fold_in(key, FLIP), images)


def create(kind: Augmentation, padding: int = 4) -> Augment | None:
    """Returns the augmentation called `kind`, `None` for `none`.

    Raises:
      ValueError: an unknown name, or a padding below 1.
    """
    if kind not in get_args(Augmentation):
        raise ValueError(f"unknown augmentation {kind!r}: known are {', '.join(get_args(Augmentation))}")
    if padding < 1:
        raise ValueError(f"the padding of crops must be at least 1 pixel, got {padding}")
    return _create(kind, padding)


@functools.lru_cache
def _create(kind: Augmentation, padding: int) -> Augment | None:
    augmentations: dict[str, Augment | None] = {
        "none": None,
        "flip": flip,
        "crop": functools.partial(crop, padding=padding),
        "crop-flip": functools.partial(crop_flip, padding=padding),
    }
    return augmentations[kind]
