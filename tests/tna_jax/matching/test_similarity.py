"""Correlations of two networks' hidden units are those that NumPy computes of all their activations at once."""

import jax.numpy as jnp
import numpy as np
import pytest

from tna_jax.matching import UnitCorrelations, apply_permutation, permutation_spec

X = np.random.default_rng(0).normal(size=(23, 4)).astype(np.float32)


def network(p, x):
    return jnp.tanh(jnp.maximum(x @ p["first"], 0) @ p["second"]) @ p["last"]


def weights(seed):
    draws = np.random.default_rng(seed)
    shapes = {"first": (4, 5), "second": (5, 3), "last": (3, 2)}
    return {name: draws.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_correlations_of_parts_joined_are_those_of_all_inputs():
    a, b = weights(0), weights(1)
    b["first"][:, 2] = 0  # a unit that never varies
    spec = permutation_spec(network, a, X[:2])
    found = UnitCorrelations(spec, X, batch_size=10)(a, b)
    hidden = [np.maximum(X @ p["first"], 0) for p in (a, b)]
    expected = {"first": hidden, "second": [np.tanh(h @ p["second"]) for h, p in zip(hidden, (a, b), strict=True)]}
    for group, (first, second) in expected.items():
        with np.errstate(invalid="ignore"):
            both = np.nan_to_num(np.corrcoef(first.T, second.T)[: first.shape[1], first.shape[1] :])
        assert np.allclose(found[group], both, atol=1e-5)
    assert not found["first"][:, 2].any() and found["first"].any(0).sum() == 4
    order = {"first": np.array([3, 0, 4, 1, 2])}
    moved = UnitCorrelations(spec, X, batch_size=10)(a, apply_permutation(spec, order, a))["first"]
    assert (moved.argmax(0) == order["first"]).all() and np.allclose(moved.max(0), 1, atol=1e-5)
    with pytest.raises(ValueError, match="at least one input"):
        UnitCorrelations(spec, X[:0])
