"""The models of a run before training: which initial value, data order and anchors each of them has."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import masks
from tna_jax.ensemble import Hyper
from tna_jax.masks import AnchorRecipe
from tna_jax.networks import State
from tna_jax.prng import Stream, stream
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
    starts = {(m.seed, m.start): _initial_params(init, stream(m.seed, Stream.RUN_INIT, m.start)) for m in members}
    firsts = {m.seed: _initial_params(init, stream(m.seed, Stream.RUN_INIT)) for m in members}
    recipes = {(m.seed, m.ratio): dataclasses.replace(recipe, seed=m.seed, ratio=m.ratio) for m in members}
    drawn = {cell: of.draw(firsts[of.seed]) for cell, of in recipes.items()}
    shared = {cell: of.anchor_values(firsts[of.seed], drawn[cell]) for cell, of in recipes.items()}
    values = []
    for m in members:
        cell = m.seed, m.ratio
        params = recipes[cell].trainable_values(starts[m.seed, m.start], drawn[cell])
        values.append(prune(params, drawn[cell]) if m.method == "prune" else share(params, shared[cell], drawn[cell]))

    def stack(trees: list[Any]) -> Any:
        return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)  # on the host: no program for each shape

    keys = jnp.stack([stream(m.seed, Stream.RUN_ORDER, m.order) for m in members])
    state = jax.tree.map(np.asarray, _initial_state(init, stream(0, Stream.RUN_INIT)))
    return InitialModels(stack(values), state, stack([drawn[m.seed, m.ratio] for m in members]), keys)


@static_jit
def _initial_params(init: Init, key: jax.Array) -> Any:
    return init(key)[0]


@static_jit
def _initial_state(init: Init, key: jax.Array) -> Any:
    return init(key)[1]
