"""Heads whose units have orders of their own: each is found, and what mixes heads is tried and found out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tna_jax.matching.test_activations import attention, weights
from tna_jax.matching import heads, permutations
from tna_jax.matching.permutations import permutation_spec
from tna_jax.matching.weights import weight_matching

X = np.random.default_rng(9).normal(size=(6, 5, 3)).astype(np.float32)


def test_heads_with_units_in_orders_of_their_own_are_found_exactly():
    a, draws = weights(0), np.random.default_rng(1)
    spec = permutation_spec(attention, a, X)
    nested = heads.nests(spec, a)
    (group,) = set(nested.values())
    assert spec.groups[group] == 3 and sorted(spec.groups[units] for units in nested) == [2, 4]
    hidden = permutations.random_permutation(spec, jax.random.key(3))
    for units in nested:
        size = spec.groups[units]
        hidden[units] = np.concatenate([i * size + draws.permutation(size) for i in hidden[group]])
    b = heads.apply_head_permutation(spec, nested, hidden, a)
    permutations.check_function(spec, a, b)
    found = heads.head_matching(spec, a, b, restarts=4)
    assert all(np.array_equal(found.matching.params[name], leaf) for name, leaf in a.items())
    order = permutations.inverse(hidden)
    assert all(np.array_equal(found.matching.permutation[name], order[name]) for name in spec.groups)
    common = weight_matching(spec, a, b, restarts=4, check=False)  # the control: one order for all heads does not do
    assert common.objective < 0.99 * found.matching.objective
    other = weights(5)
    assert (
        heads.head_matching(spec, a, other).matching.objective >= weight_matching(spec, a, other, check=False).objective
    )


def test_units_whose_mean_over_heads_counts_have_one_order_for_all_heads():
    @jax.jit
    def mixing(p, x):
        inner = jnp.tanh(jnp.einsum("bti,ihu->bthu", x, p["in"]))
        return jnp.einsum("bthu,huo->bto", jnp.tanh(inner + inner.mean(2, keepdims=True)), p["out"])

    draws = np.random.default_rng(0)
    params = {
        "in": draws.normal(size=(3, 3, 4)).astype(np.float32),
        "out": draws.normal(size=(3, 4, 2)).astype(np.float32),
    }
    spec = permutation_spec(mixing, params, X)
    assert sorted(spec.groups.values()) == [3, 4]
    by_size = {size: name for name, size in spec.groups.items()}
    assert heads.nests(spec, params) == {
        by_size[3]: by_size[4]
    }  # but the heads may have an order of their own for each unit


def test_units_of_shared_heads_stand_beside_each_other_and_one_kind_of_them_is_nested():
    """Heads of queries that share keys and values: (shared heads, heads of each, units) of the kernel that mixes them."""

    @jax.jit
    def shared(p, x):
        inner = jnp.tanh(jnp.einsum("bti,ihu->bthu", x, p["value"]))
        weights = jnp.tanh(jnp.einsum("bti,ihk->bthk", x, p["query"]))
        return jnp.einsum("bthk,bthu,hkuo->bto", weights, inner, p["out"])

    draws = np.random.default_rng(0)
    shapes = {"value": (3, 2, 4), "query": (3, 2, 3), "out": (2, 3, 4, 2)}
    a, b = ({name: draws.normal(size=s).astype(np.float32) for name, s in shapes.items()} for _ in "ab")
    spec = permutation_spec(shared, a, X)
    assert sorted(spec.groups.values()) == [2, 3, 4]
    found = heads.head_matching(spec, a, b)
    by_size = {size: name for name, size in spec.groups.items()}
    assert found.nested == {by_size[4]: by_size[2]}
    with pytest.raises(ValueError, match="another function"):
        heads.head_matching(spec, a, b, tolerance=-1.0)


def test_what_mixes_heads_is_found_out_where_it_hardly_shows():
    @jax.jit
    def mixing(p, x):
        inner = jnp.einsum("bti,ihu->bthu", x, p["in"])
        return jnp.einsum("bthu,huo->bto", jnp.tanh(inner + inner.mean(2, keepdims=True) ** 3), p["out"])

    draws = np.random.default_rng(0)
    shapes = {"in": (3, 3, 4), "out": (3, 4, 2)}
    params = {name: 1e-3 * draws.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    spec = permutation_spec(mixing, params, X)
    assert 4 not in [spec.groups[units] for units in heads.nests(spec, params)]
