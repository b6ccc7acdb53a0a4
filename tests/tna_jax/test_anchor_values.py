"""Values of anchors: scaled, or drawn anew; what trains is not touched."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import slow
from tna_jax import masks

SHAPES = {"a": {"kernel": (40, 50), "bias": (50,)}, "b": {"kernel": (50, 10)}}


def params(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda shape: jnp.asarray(0.1 * rng.normal(size=shape), dtype), SHAPES, is_leaf=lambda x: isinstance(x, tuple)
    )


def flat(tree) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float32).ravel() for leaf in jax.tree.leaves(tree)])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("make", [
    lambda p, m: masks.scale_anchors(p, m, 2.0),
    *slow(lambda p, m: masks.draw_anchors(jax.random.key(3), p, m, 0.5)),
])  # fmt: skip
def test_only_anchors_get_new_values(make, dtype):
    before = params(dtype)
    mask = masks.bernoulli(jax.random.key(1), before, 0.4)
    after = make(before, mask)
    assert [leaf.dtype for leaf in jax.tree.leaves(after)] == [dtype] * 3
    free = flat(mask) > 0
    np.testing.assert_array_equal(flat(after)[free], flat(before)[free])
    assert (flat(after)[~free] != flat(before)[~free]).mean() > 0.99


def test_scaled_anchors_are_their_multiples():
    before = params()
    mask = masks.bernoulli(jax.random.key(1), before, 0.4)
    anchored = flat(mask) == 0
    np.testing.assert_array_equal(flat(masks.scale_anchors(before, mask, 2.0))[anchored], 2 * flat(before)[anchored])
    np.testing.assert_array_equal(flat(masks.scale_anchors(before, mask, 1.0)), flat(before))
    small = masks.scale_anchors(before, masks.complement(mask), 0.25)  # the trainable ones instead
    np.testing.assert_array_equal(flat(small)[~anchored], flat(before)[~anchored] / 4)
    np.testing.assert_array_equal(flat(small)[anchored], flat(before)[anchored])


def test_drawn_anchors_are_normal_with_the_scale_as_deviation_and_depend_on_key_and_path_alone():
    before = params()
    everything = jax.tree.map(lambda leaf: np.zeros(leaf.shape, bool), before)
    drawn = masks.draw_anchors(jax.random.key(3), before, everything, 0.5)
    values = flat(drawn) / 0.5
    assert abs(values.mean()) < 4 / np.sqrt(values.size)
    assert values.std() == pytest.approx(1, abs=0.05)
    assert np.abs(values).max() < 6
    alone = masks.draw_anchors(jax.random.key(3), {"b": before["b"]}, {"b": everything["b"]}, 0.5)
    np.testing.assert_array_equal(alone["b"]["kernel"], drawn["b"]["kernel"])
    other = masks.draw_anchors(jax.random.key(4), before, everything, 0.5)
    assert (flat(other) != flat(drawn)).all()


@pytest.mark.parametrize("scale", [-1.0, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(scale):
    before = params()
    mask = masks.bernoulli(jax.random.key(1), before, 0.4)
    with pytest.raises(ValueError, match="scale of anchors"):
        masks.scale_anchors(before, mask, scale)
    with pytest.raises(ValueError, match="scale of anchors"):
        masks.draw_anchors(jax.random.key(0), before, mask, scale)


@pytest.mark.slow
def test_complex_anchors_are_drawn_in_both_parts():
    params = {"w": jnp.ones(4000, jnp.complex64)}
    drawn = np.asarray(masks.draw_anchors(jax.random.key(0), params, {"w": False}, 2.0)["w"])
    np.testing.assert_allclose([drawn.real.std(), drawn.imag.std()], np.sqrt(2), rtol=0.05)
    assert abs(np.corrcoef(drawn.real, drawn.imag)[0, 1]) < 0.05


def test_a_ratio_that_is_text_is_refused():
    with pytest.raises(TypeError, match="got the text '0.4'"):
        masks.bernoulli(jax.random.key(0), {"w": jnp.ones(3)}, "0.4")
