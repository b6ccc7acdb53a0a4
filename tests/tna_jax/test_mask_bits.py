"""Masks as bits come back as they were, also through a file, and what does not fit is refused."""

import jax
import numpy as np
import pytest

from tna_jax import io, masks

PARAMS = {"dense": {"kernel": np.zeros((5, 7), np.float32), "bias": np.zeros(16, np.float32)}, "gain": np.zeros((), np.float32), "none": np.zeros((0, 3), np.float32)}  # fmt: skip
MASK = jax.tree.map(lambda p: np.random.default_rng(0).random(p.shape) < 0.6, PARAMS)


def test_a_mask_comes_back_from_a_file_of_an_eighth_of_its_bytes(tmp_path):
    bits = masks.to_bits(MASK)
    assert {k: v.nbytes for k, v in bits["dense"].items()} == {"kernel": 5, "bias": 2}
    io.save(tmp_path / "mask.safetensors", bits)
    read = io.load(tmp_path / "mask.safetensors", like=bits)
    again = masks.from_bits(read, PARAMS)
    assert jax.tree.structure(again) == jax.tree.structure(PARAMS)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(MASK), strict=True):
        assert one.dtype == bool and one.shape == other.shape and (one == other).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(TypeError, match=r"not: dense/bias \(float32\)"):
        masks.to_bits({"dense": {"bias": np.ones(3, np.float32), "kernel": np.ones(3, bool)}})
    bits = masks.to_bits(MASK)
    with pytest.raises(
        ValueError, match=r"of another shape: dense/bias \(bits \(2,\), bits of such parameters \(3,\)\)"
    ):
        masks.from_bits(bits, PARAMS | {"dense": PARAMS["dense"] | {"bias": np.zeros(17, np.float32)}})
    with pytest.raises(ValueError, match="leaves of uint8, got bool"):
        masks.from_bits({"w": np.ones(1, bool)}, {"w": np.ones(8)})
