"""Anchoring as an optax gradient transformation: the update of an anchored entry is exactly zero.

arXiv 2402.01342, TNA-PFN: `w <- w - eta * (m * g)`, `m` = 0 for anchored entries. Two things differ here, by choice of this
project: we select instead of multiplying (0 * nan is nan), and `anchored` also masks the final update, so that no weight
decay, momentum or noise can move an anchor.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tna_jax import trees
from tna_jax.masks import Mask, Params, bitwise_where


class MaskState(NamedTuple):
    """State of `tna_mask(mask)`: the mask's leaves in the parameters' leaf order, `()` when it is passed at update.

    It lives in the state, not in the compiled program: compile time does not depend on it, and a training step that donates
    its state (`jax.jit(step, donate_argnums=...)`) keeps it in place, without a copy.
    """

    mask: tuple[jax.Array, ...]


class AnchoredState(NamedTuple):
    """State of `anchored`: the mask's leaves as in `MaskState`, and the state of the optimizer inside."""

    mask: tuple[jax.Array, ...]
    inner: Any


def tna_mask(mask: Mask | None = None) -> optax.GradientTransformationExtraArgs:
    """Passes updates of trainable entries on and gives anchored entries an update of exactly zero.

    Put it first in a chain: `optax.chain(tna_mask(mask), optax.adam(lr))`. That is right for every optimizer whose update of an
    entry is zero when all gradients of that entry were zero (sgd with momentum, adam, rmsprop, ...). It is not for weight
    decay, noise or trust ratios, nor for what mixes the entries of a matrix (muon, Shampoo, centralized gradients), nor when
    the mask changes while momentum is alive: use `anchored` there. `checks.anchors_stay` tries an optimizer.

    Args:
      mask: a pytree with the key paths of the parameters (Linen dict, NNX state boxed or pure, Equinox module: it does
        not matter which). Bool leaves, `True` = trainable, `False` = anchored: selected, so a non-finite gradient under
        an anchor is dropped. Float leaves in [0, 1]: soft anchors, the update is multiplied, and dropped where 0. A leaf
        has the shape of its parameter, or shape `()` for the whole parameter. `None`: pass it at every update,
        `update(updates, state, params, mask=mask)`, for masks that change over time; that neither retraces nor copies.

    Returns:
      An optax transformation. `update` keeps tree structure, shapes and dtypes. A mask passed at update goes before `mask`.

    Raises:
      ValueError: the mask does not fit the parameters (all paths listed), or there is none at update.
      TypeError: mask leaves that are neither bool nor float.

    Example:
      >>> params = {"kernel": jnp.ones(3)}
      >>> mask = {"kernel": jnp.array([True, False, True])}
      >>> optimizer = optax.chain(tna_mask(mask), optax.sgd(1.0))
      >>> updates, state = optimizer.update({"kernel": jnp.ones(3)}, optimizer.init(params), params)
      >>> (updates["kernel"] == 0).tolist()
      [False, True, False]
    """
    _check_values(mask)

    def init(params: Params) -> MaskState:
        return MaskState(_stored(mask, params))

    def update(
        updates: Params, state: MaskState, params: Params | None = None, *, mask: Mask | None = None, **extra_args: Any
    ) -> tuple[Params, MaskState]:
        del params, extra_args
        leaves = _current(state.mask, mask, updates)
        return _map(_pass_trainable, leaves, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def anchored(
    optimizer: optax.GradientTransformation, mask: Mask | None = None
) -> optax.GradientTransformationExtraArgs:
    """Runs `optimizer` so that nothing in it can move an anchored entry: masked before and after.

    Before: anchored entries reach the optimizer as zero gradients, so they gather no momentum from them and do not count in
    global norms. (What the optimizer itself adds before its momentum, as in `chain(add_decayed_weights(wd), sgd(lr, 0.9))`, is
    gathered, and moves an entry that a later mask sets free. Where masks change, put it outside:
    `chain(add_decayed_weights(wd), anchored(sgd(lr, 0.9)))`.) After: their update is exactly zero whatever the optimizer adds (decay, noise, trust ratios, momentum gathered
    under an earlier mask). It is the *negative* zero, so that even an anchor of -0.0 keeps its bits. Soft anchors act once,
    after the optimizer: the update is multiplied. (Before it, adaptive optimizers would divide the multiplier away.)

    It goes outermost: what stands around it (`MultiSteps`, `lookahead`) may turn an anchor of -0.0 into +0.0. Functions among the
    extra arguments are passed on as they are: line searches and SAM see the whole gradient, at parameters that they have moved
    everywhere. Averages kept outside the update (schedule-free evaluation parameters, an EMA) are not its own: take them by
    `interpolation.line`, or put the anchors back by `masks.share_anchors`.

    `optax.apply_updates` then keeps anchors bit for bit. One exception is the processor's: arithmetic on the CPU flushes
    subnormal float32 numbers (below 1.2e-38) to zero; `apply_updates` of this file copies anchors instead of adding to them.

    Args:
      optimizer: any optax transformation that returns additive updates; extra arguments (`value=`, `value_fn=`, ...) reach it.
      mask: as in `tna_mask`; `None`: pass it at every update with `mask=`.

    Returns:
      An optax transformation. Raises as `tna_mask`.

    Example:
      >>> params = {"kernel": jnp.ones(3)}
      >>> mask = {"kernel": jnp.array([True, False, True])}
      >>> optimizer = anchored(optax.chain(optax.add_decayed_weights(0.05), optax.sgd(0.1)), mask)
      >>> updates, state = optimizer.update({"kernel": jnp.ones(3)}, optimizer.init(params), params)
      >>> (updates["kernel"] == 0).tolist()
      [False, True, False]
    """
    _check_values(mask)
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params: Params) -> AnchoredState:
        return AnchoredState(_stored(mask, params), optimizer.init(params))

    def update(
        updates: Params,
        state: AnchoredState,
        params: Params | None = None,
        *,
        mask: Mask | None = None,
        **extra_args: Any,
    ) -> tuple[Params, AnchoredState]:
        leaves = _current(state.mask, mask, updates)
        gradients = _map(_zero_anchored, leaves, updates)
        updates, inner = optimizer.update(gradients, state.inner, params, **extra_args)
        return _map(_scale_update, leaves, updates), AnchoredState(state.mask, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def apply_updates(params: Params, updates: Params, mask: Mask) -> Params:
    """Adds updates as `optax.apply_updates` does, but copies anchored entries (bool `False`, soft 0) instead of adding zero to them.

    With it anchors keep their bits even where they are subnormal numbers. Structure, shapes and dtypes are those of
    `params`; raises ValueError where the mask does not fit.
    """
    moved = jax.tree.leaves(optax.apply_updates(params, updates))
    leaves = [
        bitwise_where(m if m.dtype == bool else m > 0, new, old)
        for m, new, old in zip(_current((), mask, params), moved, jax.tree.leaves(params), strict=True)
    ]
    return trees.like(params, leaves)


def _zero_anchored(m: jax.Array, u: jax.Array) -> jax.Array:
    return jnp.where(m if m.dtype == bool else m > 0, u, jnp.zeros_like(u))


def _pass_trainable(m: jax.Array, u: jax.Array) -> jax.Array:
    return _zero_anchored(m, u if m.dtype == bool else u * m.astype(u.dtype))


def _scale_update(m: jax.Array, u: jax.Array) -> jax.Array:
    scaled = u if m.dtype == bool else u * m.astype(u.dtype)
    return jnp.where(m if m.dtype == bool else m > 0, scaled, -jnp.zeros_like(u))


def _map(function: Callable[[jax.Array, jax.Array], jax.Array], leaves: list[jax.Array], updates: Params) -> Params:
    return trees.like(updates, [function(m, u) for m, u in zip(leaves, jax.tree.leaves(updates), strict=True)])


def _stored(mask: Mask | None, params: Params) -> tuple[jax.Array, ...]:
    if mask is None:
        return ()
    if not jax.tree.leaves(params):  # optax.tree_map_params asks for the state of a tree without leaves
        return tuple(jnp.asarray(m) for m in jax.tree.leaves(mask))
    # A copy, once: the state may be donated, and the caller's mask must outlive that.
    return tuple(jnp.array(m, copy=True) for m in trees.align(mask, params))


def _current(stored: tuple[jax.Array, ...], mask: Mask | None, updates: Params) -> list[jax.Array]:
    if mask is not None:
        _check_values(mask)
        return [jnp.asarray(m) for m in trees.align(mask, updates, what="updates")]
    if not stored and jax.tree.leaves(updates):
        raise ValueError("no mask: give one to tna_mask(mask) / anchored(optimizer, mask), or update(..., mask=mask)")
    return list(stored)


def _check_values(mask: Mask | None) -> None:
    bad = []
    for path, m in trees.named_leaves(mask):
        dtype = jnp.result_type(m)
        if dtype == bool:
            continue
        if not jnp.issubdtype(dtype, jnp.floating):
            bad.append(f"{trees.name(path)} ({dtype})")
        elif not isinstance(m, jax.core.Tracer) and not bool(np.all((np.asarray(m) >= 0) & (np.asarray(m) <= 1))):
            bad.append(f"{trees.name(path)} (values outside [0, 1])")
    if bad:
        raise TypeError(
            f"mask leaves must be bool (True = trainable) or float in [0, 1]; these are not: {', '.join(bad)}"
        )
