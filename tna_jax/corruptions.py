"""Corruptions of images on the device, for test sets that are shifted away from what a network was trained on.

Kinds and the idea of five severities are those of Hendrycks and Dietterich, arXiv 1903.12261 (ImageNet-C, CIFAR-10-C); the
tables below are this project's, of the size used there for images of 32x32. Everything is a pure function of a key: the same
key gives the same shifted set on every run and in every placement.

Laws: severity 0 is the identity, bit for bit; blur and contrast do not depend on the key; an image's corruption depends on its
place in the batch and the key alone; a constant image is a fixed point of blur and of contrast.
"""

import functools
from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Key

from tna_jax import prng

Corruption = Literal["noise", "blur", "contrast"]
KINDS: tuple[str, ...] = get_args(Corruption)
SEVERITIES = 5
NOISE = (0.0, 0.04, 0.06, 0.08, 0.09, 0.10)
"""Standard deviation, in units of the largest pixel value, by severity."""
BLUR = (0.0, 0.4, 0.6, 0.7, 0.8, 1.0)
"""Standard deviation of the Gaussian kernel in pixels, by severity."""
CONTRAST = (1.0, 0.75, 0.5, 0.4, 0.3, 0.15)
"""Factor of the distance from the image's mean, by severity."""
RADIUS = 4
"""Of the blur's kernel in pixels: four standard deviations at the highest severity."""


Images = Float[Array, "B H W C"] | Integer[Array, "B H W C"]
Severity = int | Integer[Array, ""]


@prng.same_bits
def noise(key: Key[Array, ""], images: Images, severity: Severity, max_value: int = 255) -> Images:
    """Adds independent Gaussian noise to every value; severity 0 adds none. Arguments as in `corrupt`."""
    scale = jnp.asarray(NOISE, jnp.float32)[severity] * np.float32(max_value)
    return _stored(
        images.astype(jnp.float32) + scale * jax.random.normal(key, images.shape, jnp.float32), images, max_value
    )


def blur(key: Key[Array, ""], images: Images, severity: Severity, max_value: int = 255) -> Images:
    """Convolves every channel with a Gaussian, the border repeated; the key is not used. Arguments as in `corrupt`."""
    del key
    sigma = jnp.asarray(BLUR, jnp.float32)[severity]
    distance = np.arange(-RADIUS, RADIUS + 1, dtype=np.float32)
    weights = jnp.exp(
        -jnp.square(distance / jnp.maximum(sigma, np.float32(1e-2))) / np.float32(2)
    )  # 0 off the center for 0
    weights = weights / jnp.sum(weights)
    blurred = images.astype(jnp.float32)
    for axis in (1, 2):
        blurred = _along(blurred, weights, axis)
    return _stored(blurred, images, max_value)


def contrast(key: Key[Array, ""], images: Images, severity: Severity, max_value: int = 255) -> Images:
    """Draws every value toward the mean of its image's channel; the key is not used. Arguments as in `corrupt`."""
    del key
    factor = jnp.asarray(CONTRAST, jnp.float32)[severity]
    values = images.astype(jnp.float32)
    mean = jnp.mean(values, axis=(1, 2), keepdims=True)
    return _stored((values - mean) * factor + mean, images, max_value)


FUNCTIONS: dict[str, Callable[..., jax.Array]] = {"noise": noise, "blur": blur, "contrast": contrast}


def corrupt(key: Key[Array, ""], images: Images, kind: str, severity: Severity, max_value: int = 255) -> Images:
    """Returns the images after one corruption: rounded and cut to [0, `max_value`] where they are stored as integers.

    Args:
      key: a PRNG key.
      images: (B, H, W, C), uint8 or float; values from 0 to `max_value`.
      kind: of `KINDS`.
      severity: 0 (nothing) to 5; may be traced.
      max_value: the largest pixel value.

    Returns:
      Images of the same shape and dtype.

    Raises:
      ValueError: an unknown kind, a severity outside 0 to 5, or images outside 0 to `max_value`, which would be cut; floats up to 1
        under a larger `max_value` too, which most likely mean that they go up to 1. (Of traced images nobody looks.)

    >>> images = jnp.array([[[[0], [200]]]], jnp.uint8)  # 1 image of 1x2 pixels, 1 channel
    >>> corrupt(jax.random.key(0), images, "contrast", severity=2).tolist()
    [[[[50], [150]]]]
    >>> corrupt(jax.random.key(0), images, "contrast", severity=0).tolist()
    [[[[0], [200]]]]
    """
    if kind not in FUNCTIONS:
        raise ValueError(f"unknown corruption {kind!r}: known are {', '.join(FUNCTIONS)}")
    if not isinstance(severity, jax.core.Tracer) and not (0 <= severity <= SEVERITIES and severity == int(severity)):
        raise ValueError(f"the severity must be a whole number in 0 to {SEVERITIES}, got {severity}")
    _check_range(images, max_value)
    corrupted: Array = _program(kind, max_value)(key, images, jnp.asarray(severity, jnp.int32))
    return corrupted


def _check_range(images: Images, max_value: int) -> None:
    """Raises ValueError for values that are not in the range of pixels, or hardly are of that range."""
    if isinstance(images, jax.core.Tracer) or not np.size(images):
        return
    with jax.ensure_compile_time_eval():  # they may be constants of a program that is traced
        low, high = float(jnp.min(images)), float(jnp.max(images))
    if not (low >= 0 and high <= max_value):
        raise ValueError(
            f"corrupt takes images of values from 0 to max_value {max_value}, and these go from {low:g} to {high:g}: corrupt them "
            "before they are scaled, or give their max_value"
        )
    if jnp.issubdtype(images.dtype, jnp.floating) and 0 < high <= 1 < max_value:
        raise ValueError(
            f"corrupt: these images are {images.dtype} and go up to {high:g}, max_value is {max_value}: give max_value=1 if that is "
            "their largest value"
        )


@functools.lru_cache
def _program(kind: str, max_value: int) -> Callable[..., Array]:
    return jax.jit(functools.partial(FUNCTIONS[kind], max_value=max_value))


def _along(images: jax.Array, weights: jax.Array, axis: int) -> jax.Array:
    """The weighted sum of 2 * RADIUS + 1 shifted copies along one axis."""
    margin = [(RADIUS, RADIUS) if i == axis else (0, 0) for i in range(images.ndim)]
    wide, size = jnp.pad(images, margin, mode="edge"), images.shape[axis]
    parts = [jax.lax.slice_in_dim(wide, i, i + size, axis=axis) * weights[i] for i in range(2 * RADIUS + 1)]
    return functools.reduce(jnp.add, parts)


def _stored(values: jax.Array, like: jax.Array, max_value: int) -> jax.Array:
    """As the images are stored: integers are rounded, all are cut to the range of pixels."""
    cut = jnp.clip(values, np.float32(0), np.float32(max_value))
    return (jnp.round(cut) if jnp.issubdtype(like.dtype, jnp.integer) else cut).astype(like.dtype)
