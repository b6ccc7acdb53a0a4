"""Questions to ask before an expensive step. Each answers with an error that says what is wrong and what to do, or with nothing.

They run eagerly, once, on the host, and are not meant to be called under `jit`: a training step pays nothing for them.

    checks.mask_ratio(mask, 0.4)               # not inverted?
    checks.anchors_stay(optimizer, params, mask)  # does nothing in the optimizer move an anchor?
    checks.anchors_shared([a, b], mask)        # were both trained with these anchors?
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tna_jax import masks, trees
from tna_jax.masks import Mask, Params


def mask_ratio(mask: Mask, ratio: float, tolerance: float = 0.05) -> None:
    """Raises ValueError unless the share of anchored entries is `ratio`, to within `tolerance`; an inverted mask is named so.

    Here `True` (or 1) is trainable and `False` (or less) is anchored. `optax.freeze`, `requires_grad_(False)` lists and pruning
    literature often say it the other way round.

    Args:
      mask: a bool or soft mask.
      ratio: the share of anchored entries it should have, in [0, 1].
      tolerance: how far off a mask of independent draws may be.
    """
    found = float(masks.anchored_ratio(mask))
    if abs(found - ratio) <= tolerance:
        return
    inverted = abs(1 - found - ratio) <= tolerance
    advice = "it looks inverted: True = trainable, False = anchored; masks.complement(mask) swaps them" if inverted else (
        "was it drawn with another ratio, or in some layers only (where=)?")  # fmt: skip
    raise ValueError(f"the mask anchors {found:.1%} of the entries, not {ratio:.1%}: {advice}")


def anchors_stay(
    optimizer: optax.GradientTransformation, params: Params, mask: Mask, *, at_update: bool = False, **extra: Any
) -> None:
    """Raises ValueError if `optimizer` moves an anchored entry, naming every tensor: weight decay behind `tna_mask`, say.

    Three steps are made on the given parameters, with gradients of one and then of zero. That shows decay, momentum, noise and
    trust ratios; what starts later than that (a schedule of the decay) it cannot show.

    Args:
      optimizer: the whole chain, as it will be used for training.
      params: the initial parameters, concrete arrays.
      mask: bool or soft; entries with a multiplier between 0 and 1 may move.
      at_update: whether the optimizer takes its mask at every update (`update(..., mask=mask)`).
      extra: further arguments of `optimizer.update`, such as `value=`.
    """
    optimizer = optax.with_extra_args_support(optimizer)
    extra |= {"mask": mask} if at_update else {}
    state, now = optimizer.init(params), params
    for gradient in (1.0, 0.0, 0.0):
        gradients = jax.tree.map(lambda p, g=gradient: jnp.full_like(p, g), now)
        updates, state = optimizer.update(gradients, state, now, **extra)
        now = optax.apply_updates(now, updates)
    moved = _differing(params, now, mask)
    if moved:
        raise ValueError(
            f"this optimizer moves anchored entries: {', '.join(moved)}. tna_mask first in a chain stops gradients only; weight "
            "decay, noise and trust ratios come after it. Use tna_jax.anchored(optimizer, mask)"
        )


def anchors_shared(models: Sequence[Params], mask: Mask) -> None:
    """Raises ValueError unless the anchored entries of all models are equal, bit for bit; every differing tensor is named.

    Models that do not share their anchors were not trained in one permutation subspace: their average is seldom any good.

    Args:
      models: two or more pytrees of the same paths and shapes.
      mask: the mask all of them were trained with.
    """
    first = models[0]
    for i, other in enumerate(models[1:], 1):
        wrong = _differing(first, other, mask)
        if wrong:
            raise ValueError(
                f"models 0 and {i} do not share their anchors: {', '.join(wrong)}. Draw one mask from one key for all models, and "
                "start them from one initialisation or through masks.share_anchors(params, source, mask)"
            )


def _differing(a: Params, b: Params, mask: Mask) -> list[str]:
    """The tensors in which fixed entries differ, with their number."""
    named = trees.parameters(a)
    found = []
    for m, other, (path, own) in zip(trees.align(mask, a), trees.align(b, a, subject="model"), named, strict=True):
        fixed = np.broadcast_to(~np.asarray(m) if np.asarray(m).dtype == bool else np.asarray(m) == 0, own.shape)
        count = int((_bits(own) != _bits(other)).any(-1)[fixed].sum())
        if count:
            found.append(f"{trees.name(path)} ({count} of {int(fixed.sum())})")
    return found


def _bits(leaf: jax.Array) -> np.ndarray:
    """(..., bytes) uint8."""
    array = np.ascontiguousarray(leaf)
    return array.reshape(*array.shape, 1).view(np.uint8)
