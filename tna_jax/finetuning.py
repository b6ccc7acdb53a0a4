"""Fine-tuning: its hyper-parameters as stacked values, so that M configurations train at once in one program.

A configuration is a learning rate, a weight decay, a label smoothing, an augmentation strength and a seed (of data order and
augmentation). The first four are (M,) arrays, the `hyper` of an ensemble; the seed is the key of its data order:

    trainer = Trainer(network, adamw(steps, warmup), 64, prepare=augmented, loss=smoothed)
    members = init_ensemble(trainer, params, data_keys, masks, hyper=stack(configs))

Law: M configurations at once train to the numbers of M trainings one by one (bit for bit under `map`; see `tna_jax.placement`).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Float32, Integer, Key, Shaped

from tna_jax import metrics, prng
from tna_jax.ensemble import Batch, Hyper

PADDING = 4
"""Pixels an image is moved by at most, at strength 1."""
JITTER = 0.4
"""Largest relative change of brightness and contrast, at strength 1."""
FLIP, MOVE, BRIGHTNESS, CONTRAST = 0, 1, 2, 3
"""Streams of a batch's key."""


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """How one model is fine-tuned."""

    learning_rate: float
    """Of AdamW, at the end of the warm-up; above 0."""
    weight_decay: float = 0.0
    """Decoupled, of matrices only (biases and norms do not decay); at least 0."""
    label_smoothing: float = 0.0
    """Share of a label's weight that is spread over all classes, in [0, 1)."""
    augmentation: float = 0.0
    """Strength in [0, 1], see `augment`; 0 leaves images as they are."""
    seed: int = 0
    """Of data order and augmentation."""

    def check(self) -> None:
        """Raises ValueError that names every value outside its range."""
        ranges = {
            "learning_rate": self.learning_rate > 0 and np.isfinite(self.learning_rate),
            "weight_decay": self.weight_decay >= 0 and np.isfinite(self.weight_decay),
            "label_smoothing": 0 <= self.label_smoothing < 1,
            "augmentation": 0 <= self.augmentation <= 1,
            "seed": self.seed >= 0,
        }
        wrong = [f"{name} {getattr(self, name)}" for name, right in ranges.items() if not right]
        if wrong:
            raise ValueError(f"not possible in a fine-tuning configuration: {', '.join(wrong)}")


STACKED = ("learning_rate", "weight_decay", "label_smoothing", "augmentation")


def stack(configs: Sequence[FinetuneConfig]) -> dict[str, Float32[Array, " M"]]:
    """Returns the values of M configurations as (M,) float32 arrays by name.

    Raises:
      ValueError: a value outside its range.

    >>> stack([FinetuneConfig(0.5), FinetuneConfig(0.25, seed=1)])["learning_rate"].tolist()
    [0.5, 0.25]
    """
    for config in configs:
        config.check()
    return {name: jnp.asarray([getattr(config, name) for config in configs], jnp.float32) for name in STACKED}


def warmup_cosine(steps: int, warmup: int) -> optax.Schedule:
    """Returns the share of the peak learning rate by step: linear from 0 over `warmup` steps, then a half cosine to 0 at `steps`.

    Raises:
      ValueError: a warm-up of all steps or more.
    """
    if not 0 <= warmup < steps:
        raise ValueError(f"the warm-up must be shorter than the {steps} steps, got {warmup}")
    falling = optax.cosine_decay_schedule(1.0, steps - warmup)
    return optax.join_schedules([optax.linear_schedule(0.0, 1.0, warmup), falling], [warmup]) if warmup else falling


@functools.lru_cache
def adamw(
    steps: int, warmup: int = 0, clip: float | None = 1.0, b2: float = 0.999
) -> Callable[[Hyper], optax.GradientTransformation]:
    """Returns AdamW with warm-up and cosine, whose peak and decay are a member's: what `Trainer.optimizer` takes.

    The same arguments give the same function, so that a program compiled with it is reused.

    Args:
      steps: of the whole training.
      warmup: steps over which the rate first rises.
      clip: largest norm of the gradient of the trainable entries; `None` for no clipping.
      b2: decay of the squared gradients' average.
    """
    schedule = warmup_cosine(steps, warmup)

    def optimizer(hyper: Hyper) -> optax.GradientTransformation:
        def rate(count: Any) -> Array:
            return jnp.asarray(schedule(count), jnp.float32) * hyper["learning_rate"]

        decay = hyper["weight_decay"]
        parts = [optax.scale_by_adam(b2=b2), _decay(decay), optax.scale_by_learning_rate(rate)]
        return optax.chain(*([optax.clip_by_global_norm(clip)] if clip else []), *parts)

    return optimizer


def _decay(strength: jax.Array) -> optax.GradientTransformation:
    """Adds `strength` times the parameter to the update of every matrix."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def add(u: Array, p: Array) -> Array:
            return u + strength.astype(p.dtype) * p if p.ndim > 1 else u

        return jax.tree.map(add, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def smoothed(logits: Float[Array, "*B C"], labels: Integer[Array, "*B"], hyper: Hyper) -> Float32[Array, "*B"]:
    """Computes the cross-entropy against labels of which `hyper["label_smoothing"]` is spread over all classes; nats, shape of `labels`."""
    logits = logits.astype(jnp.float32)
    share = hyper["label_smoothing"]
    spread = jax.nn.logsumexp(logits, axis=-1) - jnp.mean(logits, axis=-1)
    spread = jnp.where(share > 0, spread, np.float32(0))  # infinite where a class has a logit of minus infinity
    return (1 - share) * metrics.cross_entropy(logits, labels) + share * spread


def augmented(key: Key[Array, ""], hyper: Hyper, batch: Batch) -> Batch:
    """Returns the batch with its images augmented at `hyper["augmentation"]`: for `Trainer.prepare`."""
    return augment(key, batch[0], hyper["augmentation"]), *batch[1:]


@prng.same_bits
def augment(
    key: Key[Array, ""], images: Shaped[Array, "B H W C"], strength: float | Float[Array, ""], max_value: int = 255
) -> Shaped[Array, "B H W C"]:
    """Moves images, mirrors them, and changes their brightness and contrast, all in proportion to `strength`.

    An image moves by up to 4 * strength pixels both ways (zeros come in), is mirrored with probability strength / 2, and its
    brightness and contrast are multiplied by factors in 1 ± 0.4 * strength. Law: strength 0 is the identity, bit for bit.

    Args:
      key: a PRNG key; each image draws changes of its own.
      images: (B, H, W, C) uint8 or float in [0, `max_value`].
      strength: in [0, 1]; may be traced.
      max_value: the largest pixel value.

    Returns:
      Images of the same shape and dtype.
    """
    count, height, width, channels = images.shape
    strength = jnp.asarray(strength, jnp.float32)
    keys = [jax.random.fold_in(key, stream) for stream in (FLIP, MOVE, BRIGHTNESS, CONTRAST)]
    flipped = jax.random.uniform(keys[0], (count, 1, 1, 1), jnp.float32) < strength / 2
    images = jnp.where(flipped, images[:, :, ::-1], images)
    by = jax.random.uniform(keys[1], (count, 2), jnp.float32, -1, 1)
    offsets = PADDING + jnp.round(by * PADDING * strength).astype(jnp.int32)
    wide = jnp.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))

    def cut(image: Array, offset: Array) -> Array:
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], np.int32(0)), (height, width, channels))

    images = jax.vmap(cut)(wide, offsets)
    values = images.astype(jnp.float32)
    bright, sharp = (
        1 + JITTER * strength * jax.random.uniform(k, (count, 1, 1, 1), jnp.float32, -1, 1) for k in keys[2:]
    )
    values = values * bright
    mean = jnp.mean(values, axis=(1, 2, 3), keepdims=True)
    values = jnp.clip((values - mean) * sharp + mean, np.float32(0), np.float32(max_value))
    if jnp.issubdtype(images.dtype, jnp.integer):
        return jnp.round(values).astype(images.dtype)
    return jnp.where(strength > 0, values, images.astype(jnp.float32)).astype(images.dtype)


def grid(
    learning_rates: Sequence[float],
    weight_decays: Sequence[float] = (0.0,),
    label_smoothings: Sequence[float] = (0.0,),
    augmentations: Sequence[float] = (0.0,),
    count: int | None = None,
    seed: int = 0,
) -> list[FinetuneConfig]:
    """Returns `count` configurations whose values are taken in turn from each list, the last list the slowest; default: every combination.

    Configuration i has seed `seed + i`, so that those of equal values differ in their data order.

    Args:
      learning_rates, weight_decays, label_smoothings, augmentations: values of the fields of `FinetuneConfig`, at least one each.
      count: number of configurations; beyond the number of combinations they begin again.
      seed: of the first one.

    Raises:
      ValueError: an empty list, or no configurations.

    >>> [config.learning_rate for config in grid([0.1, 0.2], weight_decays=[0.0, 0.01])]
    [0.1, 0.2, 0.1, 0.2]
    """
    lists: list[Sequence[Any]] = [learning_rates, weight_decays, label_smoothings, augmentations]
    total = int(np.prod([len(values) for values in lists])) if count is None else count
    if not all(map(len, lists)) or total < 1:
        raise ValueError(
            f"expected one or more values in each list, and one or more configurations; got {lists}, count {count}"
        )
    configs = []
    for i in range(total):
        picked, rest = [], i
        for values in lists:
            picked.append(values[rest % len(values)])
            rest //= len(values)
        configs.append(FinetuneConfig(**dict(zip(STACKED, picked, strict=True)), seed=seed + i))
    return configs
