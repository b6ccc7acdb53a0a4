"""Random numbers of merging methods: they depend on seed, tensor's name, model's index and entry's index, on nothing else.

So a rerun gives the same bytes, whatever the order of tensors, the number of threads or the cutting into pieces. As for
masks, the name enters through SHA-256, not `hash`. The generator is Philox, which is counter-based: a piece begins anywhere
without drawing what is before it. Its raw output is stable between versions of NumPy.
"""

import hashlib

import numpy as np

from tna_jax.merging.method import Array, Context, Option

SEED = Option("seed", 0, "of what is dropped", low=0, high=2**63 - 1)
PER_BLOCK = 8
"""32-bit numbers of one block of Philox."""


def uniform(seed: int, context: Context, model: int, size: int) -> Array:
    """Returns (size,) float32, multiples of 2**-24 in [0, 1), for entries `context.start`, `context.start + 1`, ... of a model's tensor."""
    digest = hashlib.sha256(f"{seed}\0{model}\0{context.name}".encode()).digest()
    blocks, skipped = divmod(context.start, PER_BLOCK)
    generator = np.random.Philox(key=np.frombuffer(digest[:16], "<u8").astype(np.uint64))
    generator.advance(blocks)
    raw = generator.random_raw(-(-(skipped + size) // 2)).astype("<u8", copy=False).view("<u4")
    return (raw[skipped : skipped + size] >> 8).astype(np.float32) * np.float32(2**-24)
