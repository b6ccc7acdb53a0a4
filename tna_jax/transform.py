"""Anchoring as an optax gradient transformation: the update of an anchored entry is exactly zero.

arXiv 2402.01342, TNA-PFN: `w <- w - eta * (m * g)`, `m` = 0 for anchored entries. Two things differ here, by choice of this
project: we select instead of multiplying (0 * nan is nan), and `anchored` also masks the final update, so that no weight
decay, momentum or noise can move an anchor.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tna_jax import optimizers, sharding, trees
from tna_jax.masks import Mask, Params, bitwise_where

Tree = TypeVar("Tree")


class MaskState(NamedTuple):
    """State of `tna_mask(mask)`: the mask, `()` when it is passed at update.

    It is a pytree like the parameters, boxes and shapes included, so that whatever lays out a moment of Adam lays out the mask:
    `nn.get_sharding`, `optax.tree_utils.tree_map_params`, `nnx.Optimizer` under a mesh. A tuple of its leaves, as states of earlier
    versions have it, does as well.

    It lives in the state, not in the compiled program: compile time does not depend on it, and a training step that donates
    its state (`jax.jit(step, donate_argnums=...)`) keeps it in place, without a copy.
    """

    mask: Mask


class AnchoredState(NamedTuple):
    """State of `anchored`: the mask as in `MaskState`, and the state of the optimizer inside."""

    mask: Mask
    inner: Any


class _Outer(NamedTuple):
    """A mask passed at update on its way through `anchored` to what stands inside: it goes behind a mask of their own."""

    mask: Mask


def tna_mask(
    mask: Mask | Callable[[Params], Mask] | None = None, *, last: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Passes updates of trainable entries on and gives anchored entries an update of exactly zero.

    Put it first in a chain: `optax.chain(tna_mask(mask), optax.adam(lr))`. That is right for every optimizer whose update of an
    entry is zero when all gradients of that entry were zero (sgd with momentum, adam, rmsprop, ...). It is not for weight
    decay, noise or trust ratios, nor for what mixes the entries of a matrix (muon, Shampoo, centralized gradients), nor when
    the mask changes while momentum is alive: use `anchored` there. Nor for float16 parameters under Adam and its kin, whose epsilon is 0
    in float16: they divide 0 by 0, and anchors become NaN; a warning says so. `checks.anchors_stay` tries an optimizer.

    Args:
      mask: a pytree with the key paths of the parameters (Linen dict, NNX state boxed or pure, Equinox module: it does
        not matter which). Bool leaves, `True` = trainable, `False` = anchored: selected, so a non-finite gradient under
        an anchor is dropped. Float leaves in [0, 1]: soft anchors, the update is multiplied, and dropped where 0. A leaf
        has the shape of its parameter, or shape `()` for the whole parameter or a whole branch of them, as optax has it:
        `{"encoder": False, "head": True}`. A function of the parameters is called with them at `init`. `None`: pass it at every
        update, `update(updates, state, params, mask=mask)`, for masks that change over time; that neither retraces nor copies.
      last: whether it stands last in its chain, where its zeros are added to the parameters: they are negative then, so that even an
        anchor of -0.0 keeps its bits. (Elsewhere they are positive: an optimizer turns them to negative ones.)

    Returns:
      An optax transformation. `update` keeps tree structure, shapes and dtypes. A mask passed at update goes before `mask`.

    Raises:
      ValueError: the mask does not fit the parameters (all paths listed), there is none at update, or the state holds another
        mask (noticed where its values are at hand; under `jit` see `checks.state_mask`).
      TypeError: mask leaves that are neither bool nor float, or a ratio or an optimizer in the mask's place.

    Example:
      >>> params = {"kernel": jnp.ones(3)}
      >>> mask = {"kernel": jnp.array([True, False, True])}
      >>> optimizer = optax.chain(tna_mask(mask), optax.sgd(1.0))
      >>> updates, state = optimizer.update({"kernel": jnp.ones(3)}, optimizer.init(params), params)
      >>> (updates["kernel"] == 0).tolist()
      [False, True, False]
    """
    source = _Source(mask, "tna_mask(mask)")
    scale = _scale_update if last else _pass_trainable

    def init(params: Params) -> MaskState:
        if not last and any(map(optimizers.is_float16, jax.tree.leaves(params))):
            warnings.warn(FLOAT16, UserWarning, stacklevel=2)
        return MaskState(source.stored(params))

    def update(
        updates: Params, state: MaskState, params: Params | None = None, *, mask: Mask | None = None, **extra_args: Any
    ) -> tuple[Params, MaskState]:
        del extra_args
        leaves = source.current(state.mask, mask, updates, params)
        return _map(scale, leaves, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


FLOAT16 = (
    "tna_mask stands before an optimizer of float16 parameters: Adam and its kin divide 0 by 0 where all gradients of an entry were zero "
    "(their epsilon is 0 in float16), and anchored entries would become NaN. Use tna_jax.anchored(optimizer, mask)"
)


def _apart(state: Any, params: Params) -> Any:
    """Copies what a state shares with the parameters (prodigy's `params0` are the parameters): both may be donated to one program."""
    shared = {id(leaf) for leaf in jax.tree.leaves(params) if isinstance(leaf, jax.Array)}
    return jax.tree.map(lambda leaf: jnp.copy(leaf) if id(leaf) in shared else leaf, state)


def anchored(
    optimizer: optax.GradientTransformation | optax.MultiSteps, mask: Mask | Callable[[Params], Mask] | None = None
) -> optax.GradientTransformationExtraArgs:
    """Runs `optimizer` so that nothing in it can move an anchored entry: masked before and after.

    Before: anchored entries reach the optimizer as zero gradients, so they gather no momentum from them and do not count in
    global norms. (What the optimizer itself adds before its momentum, as in `chain(add_decayed_weights(wd), sgd(lr, 0.9))`, is
    gathered, and moves an entry that a later mask sets free. Where masks change, put it outside:
    `chain(add_decayed_weights(wd), anchored(sgd(lr, 0.9)))`.) After: their update is exactly zero whatever the optimizer adds (decay, noise, trust ratios, momentum gathered
    under an earlier mask). It is the *negative* zero, so that even an anchor of -0.0 keeps its bits. Soft anchors act once,
    after the optimizer: the update is multiplied. (Before it, adaptive optimizers would divide the multiplier away.)

    It goes outermost: what stands around it (`MultiSteps`, `lookahead`) may turn an anchor of -0.0 into +0.0, and `optax.contrib.schedule_free`
    around it interpolates parameters, which moves anchors by rounding; `anchored(schedule_free(...), mask)` keeps them. A mask passed at
    update also reaches `tna_mask()` and `anchored` inside the optimizer that have none of their own. Functions among the extra arguments are passed on as they are: line searches and SAM see the whole gradient, at parameters that they have moved
    everywhere. Averages kept outside the update (schedule-free evaluation parameters, an EMA) are not its own: take them by
    `interpolation.line`, or put the anchors back by `masks.share_anchors`.

    Parameters of float16 reach the optimizer as float32, and its state is float32: in float16 the epsilon of Adam and its kin is 0, the
    update of an entry whose gradients were all zero 0 / 0, and a norm over that NaN.

    `optax.apply_updates` then keeps anchors bit for bit. One exception is the processor's: arithmetic on the CPU flushes
    subnormal float32 numbers (below 1.2e-38) to zero; `apply_updates` of this file copies anchors instead of adding to them.

    Args:
      optimizer: any optax transformation that returns additive updates, or `optax.MultiSteps`; extra arguments (`value=`,
        `value_fn=`, ...) reach it, `grad=` with the anchored entries zero.
      mask: as in `tna_mask`; `None`: pass it at every update with `mask=`.

    Returns:
      An optax transformation. Raises as `tna_mask`; TypeError also for what is no optimizer (`optax.adam` not called).

    Example:
      >>> params = {"kernel": jnp.ones(3)}
      >>> mask = {"kernel": jnp.array([True, False, True])}
      >>> optimizer = anchored(optax.chain(optax.add_decayed_weights(0.05), optax.sgd(0.1)), mask)
      >>> updates, state = optimizer.update({"kernel": jnp.ones(3)}, optimizer.init(params), params)
      >>> (updates["kernel"] == 0).tolist()
      [False, True, False]
    """
    inside = optimizers.as_transformation(optimizer)
    source = _Source(mask, "anchored(optimizer, mask)")

    def init(params: Params) -> AnchoredState:
        return AnchoredState(source.stored(params), _apart(inside.init(optimizers.in_float32(params)), params))

    def update(
        updates: Params,
        state: AnchoredState,
        params: Params | None = None,
        *,
        mask: Mask | None = None,
        **extra_args: Any,
    ) -> tuple[Params, AnchoredState]:
        leaves = source.current(state.mask, mask, updates, params)
        gradients = _map(_zero_anchored, leaves, updates)
        if mask is not None and _takes_mask(state.inner):
            extra_args["mask"] = mask if isinstance(mask, _Outer) else _Outer(mask)
        if "grad" in extra_args:  # of a line search, that of the parameters
            extra_args["grad"] = optimizers.in_float32(_map(_zero_anchored, leaves, extra_args["grad"]))
        if callable(loss := extra_args.get("value_fn")) and any(map(optimizers.is_float16, jax.tree.leaves(updates))):
            extra_args["value_fn"] = lambda moved, *args, **kwargs: loss(
                optimizers.in_types_of(moved, gradients), *args, **kwargs
            )
        wide, inner = inside.update(
            optimizers.in_float32(gradients), state.inner, optimizers.in_float32(params), **extra_args
        )
        return _map(_scale_update, leaves, optimizers.in_types_of(wide, gradients)), AnchoredState(state.mask, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def apply_updates(params: Tree, updates: Params, mask: Mask) -> Tree:
    """Adds updates as `optax.apply_updates` does, but copies anchored entries (bool `False`, soft 0) instead of adding zero to them.

    With it anchors keep their bits even where they are subnormal numbers. Structure, shapes and dtypes are those of
    `params`; raises ValueError where the mask does not fit.
    """
    moved = jax.tree.leaves(optax.apply_updates(params, updates))
    leaves = [
        bitwise_where(m if m.dtype == bool else m > 0, new, old)
        for m, new, old in zip(_aligned(mask, params), moved, jax.tree.leaves(params), strict=True)
    ]
    return trees.like(params, leaves)


def _zero_anchored(m: jax.Array, u: jax.Array) -> jax.Array:
    return sharding.where(m if m.dtype == bool else m > 0, u, jnp.zeros_like(u))


def _pass_trainable(m: jax.Array, u: jax.Array) -> jax.Array:
    return _zero_anchored(m, u if m.dtype == bool else u * m.astype(u.dtype))


def _scale_update(m: jax.Array, u: jax.Array) -> jax.Array:
    scaled = u if m.dtype == bool else u * m.astype(u.dtype)
    return sharding.where(m if m.dtype == bool else m > 0, scaled, -jnp.zeros_like(u))


def _map(function: Callable[[jax.Array, jax.Array], jax.Array], leaves: list[jax.Array], updates: Params) -> Params:
    pairs = zip(leaves, jax.tree.leaves(updates), strict=True)
    return trees.like(updates, [function(sharding.match(m, u), u) for m, u in pairs])


class _Source:
    """Where a transformation has its mask from: what it was made with, its state, or the update."""

    def __init__(self, mask: Any, maker: str) -> None:
        self.mask, self.maker = mask, maker
        self.function = mask if is_mask_function(mask) else None
        self.known: tuple[jax.Array, ...] = ()
        """The leaves of a state that is known to hold this mask."""
        if self.function is None:
            _check_kind(mask, maker)
            _check_values(mask)

    def stored(self, params: Params) -> Mask:
        """The mask as a state holds it: a pytree like the parameters, `()` without one."""
        if self.mask is None:
            return ()
        if not jax.tree.leaves(params):  # optax.tree_map_params marks by such a tree what is like the parameters
            return params
        # A copy, once: the state may be donated, and the caller's mask must outlive that.
        pairs = zip(trees.align(self._resolved(params), params), jax.tree.leaves(params), strict=True)
        leaves = [_beside(m, p) for m, p in pairs]
        self.known = tuple(leaves)
        return trees.like(params, leaves)

    def current(self, stored: Mask, mask: Any, updates: Params, params: Params | None) -> list[jax.Array]:
        """The mask's leaves at an update: of `mask`, else of the state."""
        leaves = jax.tree.leaves(stored)
        if isinstance(mask, _Outer):
            mask = None if leaves else mask.mask
        if mask is not None:
            function = mask if is_mask_function(mask) else None
            return _aligned(function(updates if params is None else params) if function else mask, updates)
        if not leaves and jax.tree.leaves(updates):
            raise ValueError(
                "no mask: give one to tna_mask(mask) / anchored(optimizer, mask), or update(..., mask=mask)"
            )
        if len(leaves) != len(jax.tree.leaves(updates)):
            raise ValueError(
                f"the state holds a mask of {len(leaves)} leaves, and there are {len(jax.tree.leaves(updates))} updates: gradients must be those of "
                "the parameters that init was called with (None for some of them takes these away); zeros stand for no gradient"
            )
        self._check_state(leaves, updates, params)
        return leaves

    def _resolved(self, params: Params) -> Mask:
        if self.function is None:
            return self.mask
        mask = self.function(params)
        _check_kind(mask, self.maker)
        _check_values(mask)
        return mask

    def _check_state(self, leaves: list[jax.Array], updates: Params, params: Params | None) -> None:
        """Raises ValueError where the state holds another mask than the one given here, and both are at hand."""
        if self.mask is None or _same_objects(leaves, self.known) or (self.function is not None and params is None):
            return
        if not all(map(is_at_hand, [*leaves, *jax.tree.leaves(self.mask), *jax.tree.leaves(params)])):
            return
        differing = mask_difference(self._resolved(params), leaves, updates)
        if differing:
            raise ValueError(
                f"this state holds another mask than {self.maker} was given: {', '.join(differing)}. A state keeps the mask it was made "
                "with; make a new one by init(params), or pass masks that change at update(..., mask=mask)"
            )
        self.known = tuple(leaves)


def mask_difference(mask: Mask, leaves: list[Any], tree: Params) -> list[str]:
    """Returns the tensors in which a mask differs from the leaves of a state's, with the number of entries; `tree` has their paths."""
    named = [(path, leaf) for path, leaf in trees.named_leaves(tree) if not isinstance(leaf, optax.MaskedNode)]
    differing = []
    for (path, leaf), m, held in zip(named, trees.align(mask, tree), leaves, strict=True):
        shape = np.shape(leaf)
        wanted, stored = (np.broadcast_to(np.asarray(jnp.asarray(x)), shape) for x in (m, held))  # of the types of JAX
        count = int((wanted != stored).sum())
        if count:
            differing.append(f"{trees.name(path)} ({count} of {int(np.prod(shape))})")
    return differing


def _takes_mask(state: Any) -> bool:
    """Whether a `tna_mask` or `anchored` without a mask of its own has its state in there; others may refuse the argument."""
    kinds = (MaskState, AnchoredState)
    for part in jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, kinds)):
        if isinstance(part, kinds) and not jax.tree.leaves(part.mask):
            return True
        if isinstance(part, AnchoredState) and _takes_mask(part.inner):
            return True
    return False


def _same_objects(leaves: list[Any], known: tuple[Any, ...]) -> bool:
    return len(leaves) == len(known) and all(a is b for a, b in zip(leaves, known, strict=True))


def is_at_hand(leaf: Any) -> bool:
    """Whether the values of a leaf can be read here: not traced, not donated, not on other processes."""
    if isinstance(leaf, jax.core.Tracer):
        return False
    return not isinstance(leaf, jax.Array) or (leaf.is_fully_addressable and not leaf.is_deleted())


def is_mask_function(mask: Any) -> bool:
    """Whether a mask is a function of the parameters; an Equinox module can be called too, but has leaves of its own."""
    leaves = jax.tree.leaves(mask)
    return callable(mask) and len(leaves) == 1 and leaves[0] is mask


def _check_kind(mask: Any, maker: str) -> None:
    """Raises TypeError for what is often given in the place of a mask: an optimizer, or a ratio."""
    if optimizers.is_transformation(mask):
        raise TypeError(f"{maker} takes a mask here, got an optimizer: write anchored(optimizer, mask)")
    number = np.isscalar(mask) or (isinstance(mask, (np.ndarray, jax.Array)) and mask.ndim == 0)
    if number and not isinstance(mask, jax.core.Tracer) and np.asarray(mask).dtype != bool:
        raise TypeError(
            f"{maker} takes a mask, got {mask!r}: if it is a ratio, draw a mask by masks.bernoulli(key, params, {mask}); True or "
            "False alone makes all parameters trainable or anchored"
        )


def _beside(m: Any, param: Any) -> jax.Array:
    """A copy of a leaf of the mask with its parameter's shape and layout."""
    return sharding.place(jnp.broadcast_to(jnp.array(m, copy=True), np.shape(param)), param)


def _aligned(mask: Mask, updates: Params) -> list[jax.Array]:
    _check_values(mask)
    return [jnp.asarray(m) for m in trees.align(mask, updates, what="updates")]


def _multipliers(m: Any) -> bool:
    """Whether all entries lie in [0, 1]; of an array that other processes hold parts of, on the devices."""
    if isinstance(m, jax.Array) and not m.is_fully_addressable:
        return bool(jnp.all((m >= 0) & (m <= 1)))
    return bool(np.all((np.asarray(m) >= 0) & (np.asarray(m) <= 1)))


def _check_values(mask: Mask | None) -> None:
    bad = []
    for path, m in trees.named_leaves(mask):
        dtype = jnp.result_type(m)
        if dtype == bool:
            continue
        if not jnp.issubdtype(dtype, jnp.floating):
            bad.append(f"{trees.name(path)} ({dtype})")
        elif not isinstance(m, jax.core.Tracer) and not _multipliers(m):
            bad.append(f"{trees.name(path)} (values outside [0, 1])")
    if bad:
        raise TypeError(
            f"mask leaves must be bool (True = trainable) or float in [0, 1]; these are not: {', '.join(bad)}"
        )
