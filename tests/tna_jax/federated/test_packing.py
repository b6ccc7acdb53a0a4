"""Only live entries travel, and every bit of them arrives."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tna_jax import masks, trees
from tna_jax.federated import packing


def bits(array) -> np.ndarray:
    array = np.asarray(array)
    return array.view(f"u{array.dtype.itemsize}")


def assert_same_bits(a, b):
    for (path, x), (_, y) in zip(trees.named_leaves(a), trees.named_leaves(b), strict=True):
        assert np.asarray(x).dtype == np.asarray(y).dtype, path
        np.testing.assert_array_equal(bits(x), bits(y), err_msg=str(path))


def strange(seed: int, dtype, shape) -> np.ndarray:
    """Random bits: NaNs with payloads, infinities, negative zeros and subnormals among them."""
    unsigned = np.dtype(f"u{np.dtype(dtype).itemsize}")
    return np.random.default_rng(seed).integers(0, np.iinfo(unsigned).max, shape, unsigned).view(dtype)


def two(dtypes=(np.float32, ml_dtypes.bfloat16, np.float16, np.float64)):
    shapes = [(3, 4), (5,), (), (2, 1, 3)]
    return tuple(
        {
            f"leaf{i}": {"w": strange(10 * s + i, dtype, shape)}
            for i, (dtype, shape) in enumerate(zip(dtypes, shapes, strict=True))
        }
        for s in (1, 2)
    )


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_live_entries_are_the_senders_and_anchored_ones_the_receivers_bit_for_bit(seed, ratio):
    a, b = two()
    rng = np.random.default_rng(seed)
    mask = jax.tree.map(lambda leaf: np.asarray(rng.random(leaf.shape) >= ratio), a)
    packed = packing.pack(a, mask)
    assert packing.lengths(a, mask) == {dtype: len(vector) for dtype, vector in packed.items()}
    assert packing.payload_bytes(a, mask) == sum(vector.nbytes for vector in packed.values())
    got = packing.unpack(packed, b, mask)
    expected = jax.tree.map(lambda x, y, m: np.where(m, bits(x), bits(y)).view(x.dtype), a, b, mask)
    assert_same_bits(got, expected)
    assert_same_bits(packing.unpack(packing.pack(a, mask), a, mask), a)
    assert_same_bits(b, two()[1])  # the receiver's own copy is left as it was


def test_another_mask_at_the_receiver_gives_another_tree():
    """The negative control: packing relies on both sides having one mask."""
    a, b = (t["leaf0"] for t in two())
    mask = {"w": np.arange(12).reshape(3, 4) % 2 == 0}
    other = masks.complement(mask)
    assert (
        bits(packing.unpack(packing.pack(a, mask), b, other)["w"])
        != bits(packing.unpack(packing.pack(a, mask), b, mask)["w"])
    ).any()


def test_without_a_mask_everything_travels_and_scalar_and_soft_masks_count():
    a, b = two()
    assert_same_bits(packing.unpack(packing.pack(a), b), a)
    whole = {"x": np.ones((2, 3), np.float32), "y": np.full(4, 2, np.float32)}
    assert packing.lengths(whole, {"x": np.False_, "y": np.True_}) == {"float32": 4}
    soft = {"x": np.float32(0.2), "y": np.array([0, 0.5, 1, 0], np.float32)}
    assert packing.pack(whole, soft)["float32"].tolist() == [1] * 6 + [2, 2]
    assert packing.pack(whole, jax.tree.map(lambda _: np.False_, whole)) == {}
    assert_same_bits(packing.unpack({}, whole, jax.tree.map(lambda _: np.False_, whole)), whole)


def test_integers_and_empty_leaves_travel_too():
    tree = {"count": np.arange(3, dtype=np.int32), "none": np.zeros((0, 4), np.float32)}
    assert packing.lengths(tree) == {"int32": 3}
    assert_same_bits(packing.unpack(packing.pack(tree), jax.tree.map(np.zeros_like, tree)), tree)


def test_the_framework_and_the_order_of_its_leaves_do_not_matter():
    """An Equinox layer lists weight before bias, a dictionary the other way round."""
    layer = eqx.nn.Linear(3, 2, key=jax.random.key(0))
    arrays = eqx.filter(layer, eqx.is_inexact_array)
    as_dict = {"weight": layer.weight, "bias": layer.bias}
    for dtype, vector in packing.pack(arrays).items():
        np.testing.assert_array_equal(vector, packing.pack(as_dict)[dtype])
    back = packing.unpack(packing.pack(as_dict), jax.tree.map(jnp.zeros_like, arrays))
    np.testing.assert_array_equal(back.weight, layer.weight)
    np.testing.assert_array_equal(back.bias, layer.bias)


def test_the_share_of_a_networks_entries_that_travels():
    params = nn.Dense(200).init(jax.random.key(0), jnp.zeros((1, 300)))["params"]
    mask = masks.bernoulli(jax.random.key(1), params, 0.4)
    assert packing.payload_bytes(params, mask) / packing.payload_bytes(params) == pytest.approx(0.6, abs=0.01)
    shapes = jax.eval_shape(lambda: params)
    assert packing.lengths(shapes, mask) == packing.lengths(params, mask)


def test_what_does_not_fit_is_named_all_of_it():
    receiver = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, ml_dtypes.bfloat16)}
    mask = {"a": np.eye(2, 3, dtype=bool), "b": np.True_}
    good = packing.pack(receiver, mask)
    cases = {
        "float32: float32 of shape (3,), expected (2,)": {**good, "float32": np.zeros(3, np.float32)},
        "float32: float32 of shape (2, 1), expected (2,)": {**good, "float32": np.zeros((2, 1), np.float32)},
        "float32: float64 of shape (2,), expected (2,)": {**good, "float32": np.zeros(2)},
        "bfloat16: missing, 4 live entries expected": {"float32": good["float32"]},
        "int8: not expected (1 entries)": {**good, "int8": np.zeros(1, np.int8)},
        "bfloat16: missing, 4 live entries expected; float32: missing, 2 live entries expected": {},
    }
    for words, packed in cases.items():
        with pytest.raises(ValueError, match="does not fit the receiver") as caught:
            packing.unpack(packed, receiver, mask)
        assert words in str(caught.value)
    with pytest.raises(ValueError, match="in the tree but not in the mask: b"):
        packing.pack(receiver, {"a": np.True_})
    with pytest.raises(TypeError, match=r"key \(key<fry>\), text \(str\)"):
        packing.pack({"key": jax.random.key(0), "ok": np.zeros(1), "text": "no"})
