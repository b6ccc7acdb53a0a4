"""The models of a run before training: which initial value, data order and anchors each of them has."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from tna_jax import host_bits, masks
from tna_jax.ensemble import Hyper
from tna_jax.masks import AnchorRecipe
from tna_jax.networks import State
from tna_jax.prng import Stream
from tna_jax.program_cache import static_jit

Init = Callable[[jax.Array], tuple[masks.Params, State]]
"""A key to the parameters and the state of one model."""


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
    data_keys: jax.Array
    """(M,) typed keys of the data orders."""
    hyper: Hyper | tuple[()] = ()
    """(M,) hyper-parameters by name, for optimizers that take them."""


def build(members: list[ModelSpec], init: Init, recipe: AnchorRecipe) -> InitialModels:
    """Builds the models' initial parameters, masks and data-order keys.

    Args:
      members: the models.
      init: a key to parameters and state.
      recipe: how masks are drawn and which values anchored and trainable entries start from; each model has its own seed and
        ratio in it. Anchors are shared by all models of a seed and a ratio.
    """
    prune, share = jax.jit(masks.prune), jax.jit(masks.share_anchors)
    seeds = [m.seed for m in members]
    wanted = list(dict.fromkeys([(0, 0), *((m.seed, m.start) for m in members), *((seed, 0) for seed in seeds)]))
    words = host_bits.streams([seed for seed, _ in wanted], Stream.RUN_INIT, [start for _, start in wanted])
    initial = {name: _initial(init, host_bits.keys(word)) for name, word in zip(wanted, words, strict=True)}
    starts = {name: params for name, (params, _) in initial.items()}
    recipes = {(m.seed, m.ratio): dataclasses.replace(recipe, seed=m.seed, ratio=m.ratio) for m in members}
    drawn = {cell: of.draw(starts[of.seed, 0]) for cell, of in recipes.items()}
    shared = {cell: of.anchor_values(starts[of.seed, 0], drawn[cell]) for cell, of in recipes.items()}
    values = []
    for m in members:
        cell = m.seed, m.ratio
        params = recipes[cell].trainable_values(starts[m.seed, m.start], drawn[cell])
        values.append(prune(params, drawn[cell]) if m.method == "prune" else share(params, shared[cell], drawn[cell]))

    def stack(trees: list[Any]) -> Any:
        return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)  # on the host: no program for each shape

    keys = host_bits.keys(host_bits.streams(seeds, Stream.RUN_ORDER, [m.order for m in members]))
    state = jax.tree.map(np.asarray, initial[0, 0][1])
    return InitialModels(stack(values), state, stack([drawn[m.seed, m.ratio] for m in members]), keys)


@static_jit
def _initial(init: Init, key: jax.Array) -> tuple[masks.Params, State]:
    return init(key)
