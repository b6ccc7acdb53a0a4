"""The networks of one pair number: every row's two, with their initial values, anchors, masks and orders, in one ensemble."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tna_jax import augment, averaging, masks, models, networks, trees
from tna_jax.ensemble import Members, Trainer, init_ensemble
from tna_jax.masks import Mask, Params
from tna_jax.prng import Stream, stream
from tna_jax.programs import data
from train.record.rows import Row
from train.record.settings import Case


class Network(NamedTuple):
    """What a case trains, and on what."""

    trainer: Trainer
    init: Callable[[jax.Array], tuple[Any, Any]]
    train: tuple[np.ndarray, np.ndarray]
    held_out: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


class Pair(NamedTuple):
    """Two members of an ensemble."""

    row: str
    members: tuple[int, int]


def load(case: Case, placement: Any = "auto") -> Network:
    """Returns a case's network, trainer and data. The last of its training images, in the order of the set's files, are held out."""
    loaded = data.load(case.dataset)
    module = models.create(case.model, num_classes=10, **case.options)
    mean, std = (np.asarray(x, np.float32).reshape(1, 1, 1, -1) for x in (case.mean, case.std))

    def scaled(images: jax.Array) -> jax.Array:
        return (images.astype(jnp.float32) / np.float32(255) - mean) / std

    images = {
        name: small(split.images, case.stride) for name, split in (("train", loaded.train), ("test", loaded.test))
    }
    network, init = networks.linen(module, images["train"].shape[1:], scaled)
    count, kept = case.train_examples, len(images["train"]) - case.held_out
    trainer = Trainer(
        network, optimizer, case.batch_size, placement, augment=augment.create(case.augment, max(1, 4 // case.stride))
    )
    return Network(
        trainer,
        init,
        (images["train"][: min(count, kept)], loaded.train.labels[: min(count, kept)]),
        (images["train"][kept:], loaded.train.labels[kept:]),
        (images["test"], loaded.test.labels),
    )


def small(images: np.ndarray, stride: int) -> np.ndarray:
    """Returns images (N, H, W, C) uint8 averaged over squares of side `stride`."""
    if stride == 1:
        return images
    n, h, w, c = images.shape
    means = images.reshape(n, h // stride, stride, w // stride, stride, c).mean((2, 4), dtype=np.float32)
    rounded: np.ndarray = np.rint(means).astype(np.uint8)
    return rounded


def optimizer(hyper: dict[str, Any]) -> optax.GradientTransformation:
    """AdamW with a member's own rate and decay, of all parameters as PyTorch's decays them; anchors are masked by the ensemble."""
    return optax.adamw(hyper["rate"], weight_decay=hyper["decay"])


def build(case: Case, network: Network, rows: Sequence[str], seed: int) -> tuple[Members, list[Pair]]:
    """Returns the members of pair number `seed` of the rows, and where each row's pair stands among them.

    Rows share the initial values and the orders of the data: what differs between them is the setting alone. A network that two
    rows have in common (the first of a pair, and of the control of one initial value) is trained once.
    """
    starts = [he(jax.jit(network.init)(stream(seed, Stream.RUN_INIT, i))[0], case.he) for i in (0, 1)]
    orders = [stream(seed, Stream.RUN_ORDER, i) for i in (0, 1)]
    places: dict[tuple[str, int, int], int] = {}
    pairs: list[Pair] = []
    params: list[Params] = []
    masks_of: list[Mask] = []
    keys: list[jax.Array] = []
    decays: list[float] = []
    for name in rows:
        row = case.rows[name]
        setting = repr((row.anchors, row.start, row.decay))
        both = []
        for init, order in ((0, 0), (0 if row.one_init else 1, 1)):
            place = places.setdefault((setting, init, order), len(places))
            both.append(place)
            if place == len(params):
                start, mask = initial(row, starts[init], starts[0], seed)
                params.append(start)
                masks_of.append(mask)
                keys.append(orders[order])
                decays.append(case.decay if row.decay is None else row.decay)
        pairs.append(Pair(name, (both[0], both[1])))
    hyper = {"rate": np.full(len(keys), case.rate(0), np.float32), "decay": np.asarray(decays, np.float32)}
    members = init_ensemble(
        network.trainer, averaging.stacked(params), jnp.stack(keys), averaging.stacked(masks_of), hyper
    )
    return members, pairs


def initial(row: Row, start: Params, first: Params, seed: int) -> tuple[Params, Mask]:
    """Returns a network as its training starts, and its mask.

    Args:
      row: the setting.
      start: the network's own initial values.
      first: those of the pair's first network, whose anchors both share.
      seed: the pair's number.
    """
    small_start = scaled_kernels(start, row.start)
    recipe = row.recipe(seed)
    if recipe is None:
        return small_start, jax.tree.map(lambda p: jnp.ones(p.shape, bool), start)
    mask = recipe.draw(first)
    return masks.share_anchors(small_start, recipe.anchor_values(first, mask), mask), mask


def scaled_kernels(params: Params, factor: float) -> Params:
    """Returns parameters whose kernels are `factor` times as large; biases and norms stay."""
    if factor == 1:
        return params
    leaves = [leaf * np.float32(factor) if path[-1] == "kernel" else leaf for path, leaf in trees.named_leaves(params)]
    return trees.like(params, leaves)


def he(params: Params, wanted: bool) -> Params:
    """Returns Flax's initial values with He et al.'s variance in the kernels of convolutions."""
    leaves = [
        leaf * np.float32(np.sqrt(2)) if wanted and path[-1] == "kernel" and leaf.ndim == 4 else leaf
        for path, leaf in trees.named_leaves(params)
    ]
    return trees.like(params, leaves)
