"""Optimizers that keep state for trainable entries only: `compact(optimizer, mask)` instead of `anchored(optimizer, mask)`."""

from tna_jax.packing.elementwise import require_elementwise as require_elementwise
from tna_jax.packing.index import PackedLeaf as PackedLeaf
from tna_jax.packing.products import live_dot_general as live_dot_general
from tna_jax.packing.transformation import CompactState as CompactState
from tna_jax.packing.transformation import compact as compact
