"""Masked-language modelling: shares of what is chosen and what becomes of it; what is never chosen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tna_jax import masked_lm

V, L, B = 200, 20, 4000
PAD, MASK = 0, 4
SPECIAL = np.arange(V) < 5


@pytest.fixture(scope="module")
def drawn():
    """Sequences of 3 to 20 tokens between two separators, padded; and what was drawn for them."""
    rng = np.random.default_rng(0)
    ids = rng.integers(5, V, (B, L)).astype(np.int32)
    used = rng.integers(5, L + 1, B)
    ids[np.arange(L)[None] >= used[:, None]] = PAD
    ids[:, 0] = 2
    ids[np.arange(B), used - 1] = 3
    draw = jax.jit(lambda key, ids: masked_lm.mask_tokens(key, ids, special=jnp.asarray(SPECIAL), mask_id=MASK))
    made = draw(jax.random.key(0), ids)
    return ids, jax.tree.map(np.asarray, made)


def test_the_shares_are_those_of_bert(drawn):
    ids, made = drawn
    chosen = made.weight > 0
    assert made.positions.shape == (B, masked_lm.max_predictions(L)) == (B, 3)
    ordinary = ~SPECIAL[ids]
    at_least_one = np.maximum(0.15 * ordinary.sum(1), 1)  # short texts predict one token
    assert chosen.sum() == pytest.approx(at_least_one.sum(), rel=0.03)
    long = ordinary.sum(1) >= 14
    assert chosen[long].sum() / ordinary[long].sum() == pytest.approx(0.15, rel=0.02)
    rows = np.arange(B)[:, None]
    now, before = made.ids[rows, made.positions][chosen], ids[rows, made.positions][chosen]
    assert (now == MASK).mean() == pytest.approx(0.8, abs=0.02)
    assert ((now != MASK) & (now != before)).mean() == pytest.approx(0.1 * (1 - 1 / (V - 5)), abs=0.015)
    assert (now == before).mean() == pytest.approx(0.1, abs=0.015)
    assert np.array_equal(made.targets[chosen], before)


def test_special_tokens_are_never_chosen_and_never_put_in_and_nothing_else_changes(drawn):
    ids, made = drawn
    chosen = made.weight > 0
    assert not SPECIAL[made.targets[chosen]].any()
    places = np.zeros((B, L), bool)
    rows = np.broadcast_to(np.arange(B)[:, None], chosen.shape)
    places[rows[chosen], made.positions[chosen]] = True
    assert places.sum() == chosen.sum()  # no token twice
    assert np.array_equal(made.ids[~places], ids[~places])
    put_in = made.ids[places]
    assert not SPECIAL[put_in[put_in != MASK]].any()
    replaced = put_in[(put_in != MASK)]
    assert len(set(replaced)) > 0.9 * (V - 5)  # every ordinary token may come


def test_a_key_gives_one_draw_and_another_key_another():
    ids = jnp.asarray(np.random.default_rng(1).integers(5, V, (50, L)).astype(np.int32))
    draw = jax.jit(lambda key: masked_lm.mask_tokens(key, ids, special=jnp.asarray(SPECIAL), mask_id=MASK))
    one, same, other = draw(jax.random.key(3)), draw(jax.random.key(3)), draw(jax.random.key(4))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one.positions, other.positions)


@pytest.mark.slow
def test_a_text_without_ordinary_tokens_predicts_nothing():
    ids = jnp.asarray([[2, 3, 0, 0], [2, 9, 3, 0]], jnp.int32)
    made = masked_lm.mask_tokens(jax.random.key(0), ids, special=jnp.asarray(SPECIAL), mask_id=MASK)
    assert np.array_equal(made.weight.sum(1), [0, 1])
    assert np.array_equal(made.ids[0], ids[0])
    assert int(made.positions[1, 0]) == 1 and int(made.targets[1, 0]) == 9


@pytest.mark.parametrize("rate", [0.0, 1.5, -0.1, float("nan")])
def test_a_share_out_of_range_is_refused(rate):
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\]"):
        masked_lm.max_predictions(10, rate)
