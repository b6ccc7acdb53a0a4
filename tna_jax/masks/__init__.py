"""Anchor masks: which weights stay fixed while a network trains.

A mask is a pytree like the parameters. Its leaves are bool: `True` = trainable, `False` = anchored (fixed). Float leaves
in [0, 1] are soft anchors, multipliers of the update. **`ratio` is the share of `False`, of anchored entries**; others use
the opposite convention. Source: Li et al., arXiv 2402.01342 (TNA-PFN, partially fixed neurons: one Bernoulli mask over
every parameter tensor, shared by all models).

The bits of a leaf depend on the key, the key path of the leaf and its shape, and on nothing else: not on the other
leaves, their order, the framework of the tree, devices, processes, `jit` or `vmap`.

    mask = masks.bernoulli(jax.random.key(0), params, ratio=0.4)
    optimizer = anchored(optax.sgd(0.1), mask)
"""

from tna_jax.masks.bits import from_bits, to_bits
from tna_jax.masks.draws import bernoulli, exact, neurons, percent
from tna_jax.masks.freezing import freeze
from tna_jax.masks.kinds import DRAWS
from tna_jax.masks.measures import beta, trained_cosine, trained_distance
from tna_jax.masks.operations import Mask, Params, anchored_ratio, complement, soft
from tna_jax.masks.recipe import AnchorRecipe
from tna_jax.masks.unit_inputs import per_unit
from tna_jax.masks.values import bitwise_where, draw_anchors, prune, scale_anchors, share_anchors

__all__ = [
    "DRAWS", "AnchorRecipe", "Mask", "Params", "anchored_ratio", "bernoulli", "beta", "bitwise_where", "complement", "draw_anchors", "exact", "freeze", "from_bits", "neurons",
    "per_unit", "percent", "prune", "scale_anchors", "share_anchors", "soft", "to_bits", "trained_cosine", "trained_distance",
]  # fmt: skip
