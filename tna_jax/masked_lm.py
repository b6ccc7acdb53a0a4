"""Batches for masked-language modeling (BERT, arXiv 1810.04805, section 3.1 and appendix A.1), drawn on the device from keys.

Of the tokens of a sequence that are no special ones, 15 % are to be predicted; of these 80 % are replaced by the mask
token, 10 % by a random token and 10 % stay. Each sequence has a fixed number of slots for predictions, as in the authors' code,
so that shapes do not depend on the draw and the costly output layer runs on the predicted tokens alone.

[ours] The number of predictions is `rate` times the tokens that may be chosen, rounded at random, so that its expectation is
exact for short sequences too; a sequence that has any such token predicts at least one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32, Integer, Key

from tna_jax import prng

RATE = 0.15
MASKED, RANDOM = 0.8, 0.1
"""Shares of the predicted tokens that become the mask token, and a random token; the rest stay."""
CHOICE, COUNT, FATE, TOKEN = 0, 1, 2, 3
"""Streams of a batch's key."""


class MaskedBatch(NamedTuple):
    """B sequences of L tokens with K slots for predictions."""

    ids: Integer[Array, "B L"]
    """(B, L) integers: what the network sees."""
    positions: Int32[Array, "B K"]
    """(B, K) int32 in [0, L): where it is to predict."""
    targets: Int32[Array, "B K"]
    """(B, K) int32: the tokens that were there."""
    weight: Float32[Array, "B K"]
    """(B, K) float32: 1, or 0 for slots that are not used."""


def max_predictions(length: int, rate: float = RATE) -> int:
    """Returns K, the slots for sequences of up to `length` tokens: enough for every draw at `rate`; ValueError unless that is in (0, 1]."""
    if not 0 < rate <= 1:
        raise ValueError(f"the share of tokens to predict must lie in (0, 1], got {rate}")
    return max(int(np.ceil(rate * length)), 1)


@prng.same_bits
def mask_tokens(
    key: Key[Array, ""],
    ids: Integer[Array, "B L"],
    *,
    special: Bool[Array, " V"],
    mask_id: int,
    rate: float = RATE,
) -> MaskedBatch:
    """Chooses the tokens to predict and hides them.

    Args:
      key: a PRNG key of the batch.
      ids: (B, L) integers in [0, V), padded.
      special: (V,) bool, the ids that are never chosen and never put in for another (padding, separators, the mask token).
      mask_id: the mask token's id.
      rate: share of tokens to predict, in (0, 1].
    """
    shape = (count, length) = ids.shape
    slots = max_predictions(length, rate)
    streams = [jax.random.fold_in(key, stream) for stream in (CHOICE, COUNT, FATE, TOKEN)]
    free = ~special[ids]
    number = jnp.sum(free, axis=1).astype(jnp.float32) * np.float32(rate)
    number = jnp.floor(number + jax.random.uniform(streams[1], (count,), jnp.float32)).astype(jnp.int32)
    number = jnp.clip(number, jnp.int32(1), jnp.int32(slots))
    number = jnp.where(jnp.any(free, axis=1), number, jnp.int32(0))
    scores = jnp.where(free, jax.random.uniform(streams[0], shape, jnp.float32), np.float32(2))
    positions = jnp.argsort(scores, axis=1)[:, :slots].astype(jnp.int32)
    used = jnp.arange(slots, dtype=jnp.int32)[None] < number[:, None]
    targets = jnp.take_along_axis(ids, positions, axis=1).astype(jnp.int32)
    fate = jax.random.uniform(streams[2], positions.shape, jnp.float32)
    other = _ordinary(streams[3], positions.shape, special)
    hidden = jnp.where(fate < MASKED, jnp.int32(mask_id), jnp.where(fate < MASKED + RANDOM, other, targets))
    hidden = jnp.where(used, hidden, targets).astype(ids.dtype)
    rows = jnp.arange(count, dtype=jnp.int32)[:, None]
    return MaskedBatch(ids.at[rows, positions].set(hidden), positions, targets, used.astype(jnp.float32))


def _ordinary(key: Key[Array, ""], shape: tuple[int, ...], special: Bool[Array, " V"]) -> Int32[Array, "..."]:
    """Draws ids that are not special, int32, all equally likely."""
    order = jnp.argsort(special, stable=True).astype(jnp.int32)  # the ordinary ones first
    among = jnp.sum(~special).astype(jnp.float32)
    drawn = jnp.floor(jax.random.uniform(key, shape, jnp.float32) * among).astype(jnp.int32)
    return order[jnp.minimum(drawn, among.astype(jnp.int32) - 1)]
