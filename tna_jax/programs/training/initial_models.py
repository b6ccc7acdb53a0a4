"""The models of a run before training: which initial value, data order and anchors each of them has."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import masks
from tna_jax.ensemble import Hyper
from tna_jax.networks import State
from tna_jax.prng import Stream, stream
from tna_jax.programs.cli.options import AnchorOptions


class ModelSpec(NamedTuple):
    """One model of the ensemble."""

    seed: int
    ratio: float
    method: str
    """`tna` or `prune`; `tna` at ratio 0, where both are plain training."""
    start: int
    """Which of its seed's initial values."""
    order: int
    """Which of its seed's data orders."""


class InitialModels(NamedTuple):
    """M models before training, on the host."""

    params: masks.Params
    """(M, ...)"""
    state: State
    """Of one model, without the leading axis: all start with the same."""
    mask: masks.Mask
    """(M, ...)"""
    order: jax.Array
    """(M,) typed keys."""
    hyper: Hyper | tuple[()] = ()
    """(M,) hyper-parameters by name, for optimizers that take them."""


def build(members: list[ModelSpec], init, anchors: AnchorOptions) -> InitialModels:
    """The models' initial parameters, masks and data-order keys.

    Args:
      members: the models.
      init: a key to parameters and state.
      anchors: how masks are drawn (one key for all ratios of a seed, so that a seed's masks are nested) and which values
        anchors and trainable weights start from; anchors are shared by all models of a seed and a ratio.
    """
    started, prune, share = jax.jit(lambda key: init(key)[0]), jax.jit(masks.prune), jax.jit(masks.share_anchors)
    starts = {(m.seed, m.start): started(stream(m.seed, Stream.RUN_INIT, m.start)) for m in members}
    firsts = {m.seed: started(stream(m.seed, Stream.RUN_INIT, 0)) for m in members}
    drawn = {(m.seed, m.ratio): anchors.draw(stream(m.seed, Stream.RUN_MASK), firsts[m.seed], m.ratio) for m in members}
    shared = {
        (seed, ratio): anchors.set_anchors(stream(seed, Stream.RUN_ANCHORS), firsts[seed], mask)
        for (seed, ratio), mask in drawn.items()
    }
    values = []
    for m in members:
        mask = drawn[m.seed, m.ratio]
        own = starts[m.seed, m.start]
        own = anchors.set_trainable(own, mask) if m.ratio else own
        values.append(prune(own, mask) if m.method == "prune" else share(own, shared[m.seed, m.ratio], mask))

    def stack(trees):
        return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)  # on the host: no program for each shape

    keys = jnp.stack([stream(m.seed, Stream.RUN_ORDER, m.order) for m in members])
    state = jax.tree.map(np.asarray, jax.jit(lambda key: init(key)[1])(stream(0, Stream.RUN_INIT)))
    return InitialModels(stack(values), state, stack([drawn[m.seed, m.ratio] for m in members]), keys)
