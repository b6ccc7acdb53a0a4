"""Checks before an expensive step. Each raises an error that says what is wrong and what to do, or does nothing.

They run eagerly, once, on the host, and are not meant to be called under `jit`: a training step pays nothing for them. Of arrays that
are spread over several processes, all must call them.

    checks.mask_ratio(mask, 0.4)               # not inverted?
    checks.anchors_stay(optimizer, params, mask)  # does nothing in the optimizer move an anchor?
    checks.anchors_shared([a, b], mask)        # were both trained with these anchors?
    checks.state_mask(opt_state, mask)         # is a restored optimizer state one of this mask?
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tna_jax import masks, transform, trees
from tna_jax.masks import Mask, Params
from tna_jax.packing import CompactState, index
from tna_jax.placement import to_host


def mask_ratio(mask: Mask, ratio: float, tolerance: float = 0.05) -> None:
    """Checks that the share of anchored entries is `ratio`, to within `tolerance`; names an inverted mask.

    Here `True` (or 1) is trainable and `False` (or less) is anchored. `optax.freeze`, `requires_grad_(False)` lists and pruning
    literature often say it the other way round.

    Args:
      mask: a bool or soft mask.
      ratio: the share of anchored entries it should have, in [0, 1].
      tolerance: how far off a mask of independent draws may be.

    Raises:
      ValueError: it is another share.
    """
    share = float(masks.anchored_ratio(mask))
    if abs(share - ratio) <= tolerance:
        return
    inverted = abs(1 - share - ratio) <= tolerance
    advice = "it looks inverted: True = trainable, False = anchored; masks.complement(mask) swaps them" if inverted else (
        "was it drawn with another ratio, or in some layers only (where=)?")  # fmt: skip
    raise ValueError(f"the mask anchors {share:.1%} of the entries, not {ratio:.1%}: {advice}")


def anchors_stay(
    optimizer: optax.GradientTransformation, params: Params, mask: Mask, *, at_update: bool = False, **extra: Any
) -> None:
    """Checks that `optimizer` moves no anchored entry; names every tensor that it does: by weight decay behind `tna_mask`, say.

    Three steps are made on the given parameters, with gradients of one and then of zero. That shows decay, momentum, noise and
    trust ratios; what starts later than that (a schedule of the decay) it cannot show.

    Args:
      optimizer: the whole chain, as it will be used for training.
      params: the initial parameters, concrete arrays.
      mask: bool or soft; entries with a multiplier between 0 and 1 may move.
      at_update: whether the optimizer takes its mask at every update (`update(..., mask=mask)`).
      extra: further arguments of `optimizer.update`, such as `value=`.

    Raises:
      ValueError: anchored entries move.
    """
    optimizer = optax.with_extra_args_support(optimizer)
    extra |= {"mask": mask} if at_update else {}
    state, moved = optimizer.init(params), params
    for gradient in (1.0, 0.0, 0.0):
        gradients = jax.tree.map(lambda p, g=gradient: jnp.full_like(p, g), moved)
        updates, state = optimizer.update(gradients, state, moved, **extra)
        moved = optax.apply_updates(moved, updates)
    wrong = _differing(params, moved, mask)
    if wrong:
        raise ValueError(
            f"this optimizer moves anchored entries: {', '.join(wrong)}. tna_mask first in a chain stops gradients only; weight "
            "decay, noise and trust ratios come after it. Use tna_jax.anchored(optimizer, mask)"
        )


def anchors_shared(models: Sequence[Params], mask: Mask) -> None:
    """Checks that the anchored entries of all models are equal, bit for bit; names every tensor that differs.

    Models that do not share their anchors were not trained in one permutation subspace: their average is seldom any good.

    Args:
      models: two or more pytrees of the same paths, shapes and dtypes, in a list or tuple.
      mask: the mask all of them were trained with.

    Raises:
      ValueError: anchored entries differ, or the models do not fit each other.
      TypeError: fewer than two models, or models that are not in a list or tuple.
    """
    if not isinstance(models, (list, tuple)) or len(models) < 2:
        raise TypeError(
            "anchors_shared compares two or more models, a list of them: "
            f"got {f'{len(models)} in a {type(models).__name__}' if isinstance(models, (list, tuple)) else type(models).__name__}; of stacked "
            "ones [tna_jax.ensemble.member(members, i) for i in range(M)]"
        )
    first = models[0]
    for i, other in enumerate(models[1:], 1):
        wrong = _differing(first, other, mask)
        if wrong:
            raise ValueError(
                f"models 0 and {i} do not share their anchors: {', '.join(wrong)}. Draw one mask from one key for all models, and "
                "start them from one initialization or through masks.share_anchors(params, source, mask)"
            )


def state_mask(state: Any, mask: Mask) -> None:
    """Checks that an optimizer state holds this mask, wherever it stands in it; names every tensor in which it holds another.

    `tna_mask`, `anchored` and `compact` notice another mask by themselves where the values are at hand. A compiled step cannot: call this once
    when a run resumes, before the first step.

    Args:
      state: the state of `tna_mask(mask)`, `anchored(optimizer, mask)`, `compact(optimizer, mask)`, or of a chain or wrapper that holds one.
      mask: what the transformation is made with; for `compact` a leaf for each parameter, of its shape.

    Raises:
      ValueError: the masks differ, or the state holds none.
    """
    kinds = (transform.MaskState, transform.AnchoredState, CompactState)
    pending, masks_held = [state], []
    while pending:
        for part in jax.tree.leaves(pending.pop(), is_leaf=lambda node: isinstance(node, kinds)):
            if isinstance(part, CompactState):
                masks_held.append(_mask_of_compact(part, mask))
            elif isinstance(part, (transform.MaskState, transform.AnchoredState)):
                masks_held.extend([part.mask] if jax.tree.leaves(part.mask) else [])
            pending.extend([part.inner] if isinstance(part, (transform.AnchoredState, CompactState)) else [])
    if not masks_held:
        raise ValueError("this optimizer state holds no mask: its transformation takes it at every update")
    for held in masks_held:
        on_host = to_host(held)
        differing = transform.mask_difference(to_host(mask), jax.tree.leaves(on_host), on_host)
        if differing:
            raise ValueError(
                f"this optimizer state holds another mask: {', '.join(differing)}. It was made with other anchors (another key, ratio "
                "or kind); continue with those, or start with a new state"
            )


def _mask_of_compact(state: CompactState, like: Mask) -> Mask:
    """The mask that a state of `compact` was made with, as a tree like another mask."""
    arrays = jax.tree.leaves(like)
    here, held = [np.shape(array) for array in arrays], [leaf.shape for leaf in state.leaves]
    if here != held:
        raise ValueError(
            f"this state of compact was made for parameters of shapes {held}, and the mask has leaves of shapes {here}: give the mask "
            "that belongs to these parameters, a leaf for each of them"
        )
    return trees.like(like, [index.mask_of(leaf) for leaf in state.leaves])


def _differing(a: Params, b: Params, mask: Mask) -> list[str]:
    """The tensors in which fixed entries differ, with their number."""
    named = trees.parameters(a)
    differing = []
    for m, other, (path, leaf) in zip(
        trees.align(mask, a), trees.align(b, a, "first model", "other model", same_dtypes=True), named, strict=True
    ):
        held = np.asarray(to_host(m))
        fixed = np.broadcast_to(~held if held.dtype == bool else held == 0, leaf.shape)
        count = int((_bits(leaf) != _bits(other)).any(-1)[fixed].sum())
        if count:
            differing.append(f"{trees.name(path)} ({count} of {int(fixed.sum())})")
    return differing


def _bits(leaf: jax.Array) -> np.ndarray:
    """(..., bytes) uint8."""
    array = np.ascontiguousarray(to_host(leaf))
    return array.reshape(*array.shape, 1).view(np.uint8)
