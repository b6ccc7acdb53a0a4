"""Whether a state of `compact` was made with the mask that it is used with: the mask is read off its bits and compared.

As for `anchored`, this is noticed where the values are at hand, outside `jit` or where a program is traced with the state as a constant,
and costs nothing after the first time; a compiled step cannot notice it, see `checks.state_mask`.
"""

from typing import Any

import jax

from tna_jax import transform
from tna_jax.masks import Mask, Params
from tna_jax.packing import index


class HeldMask:
    """The mask that a `compact` was given, and the state that is known to hold it."""

    def __init__(self, mask: Any) -> None:
        self.mask = mask
        self.known: tuple[Any, ...] = ()

    def of(self, params: Params) -> Mask:
        """Returns the mask for these parameters."""
        return self.mask(params) if transform.is_mask_function(self.mask) else self.mask

    def remember(self, leaves: tuple[index.PackedLeaf, ...]) -> None:
        """Takes note of a state's tables that hold this mask."""
        self.known = tuple(leaf.bits for leaf in leaves)

    def check(self, leaves: tuple[index.PackedLeaf, ...], updates: Params, params: Params | None) -> None:
        """Raises ValueError where a state's tables hold another mask, and both are at hand; tensors that differ are named."""
        bits = tuple(leaf.bits for leaf in leaves)
        if len(bits) == len(self.known) and all(a is b for a, b in zip(bits, self.known, strict=True)):
            return
        function = transform.is_mask_function(self.mask)
        if function and params is None:
            return
        parts = jax.tree.leaves((bits, params if function else self.mask))
        if not all(map(transform.is_at_hand, parts)):
            return
        held = [index.mask_of(leaf) for leaf in leaves]
        differing = transform.mask_difference(self.of(params), held, updates)
        if differing:
            raise ValueError(
                f"this state holds another mask than compact(optimizer, mask) was given: {', '.join(differing)}. A state keeps the "
                "mask it was made with, and its moments lie in the slots of that mask; make a new one by init(params), or continue with "
                "the mask that it was made with"
            )
        self.remember(leaves)
