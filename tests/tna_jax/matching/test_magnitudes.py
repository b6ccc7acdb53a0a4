"""Weights of extreme size are matched as those of usual size are; values that are not finite are named before any search."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import slow
from tna_jax.matching import (
    UnitCorrelations,
    activation_matching,
    apply_permutation,
    head_matching,
    merge_many,
    orthogonal_matching,
    permutation_spec,
    random_permutation,
    weight_matching,
)
from tna_jax.matching.assignment import assign, shortest_augmenting_paths
from tna_jax.repair import repair

X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
SMALL, LARGE = np.float32(2.0**-100), np.float32(2.0**100)


def network(p, x):
    """The kernel of the first layer holds two layers' end to end."""
    first, second = jnp.split(x @ p["both"], 2, axis=-1)
    hidden = jnp.maximum(jnp.maximum(first, 0) @ p["mixed"], 0) @ p["last"]
    return jnp.concatenate([hidden, jnp.maximum(second, 0) @ p["other"]], -1)


def weights(seed):
    draws = np.random.default_rng(seed)
    shapes = {"both": (4, 12), "mixed": (6, 5), "last": (5, 3), "other": (6, 2)}
    return {name: draws.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def spec():
    return permutation_spec(network, weights(0), X[:2])


def scaled(params, factor):
    return jax.tree.map(lambda leaf: leaf * np.float32(factor), params)


def same(one, other):
    return all(np.array_equal(one[name], other[name]) for name in one)


MATCHINGS = {
    "weights": lambda spec, a, b: weight_matching(spec, a, b, check=False, restarts=3),
    "heads": lambda spec, a, b: head_matching(spec, a, b, check=False).matching,
    "many": lambda spec, a, b: merge_many(spec, [a, b], check=False).matchings[1],
    "at once": lambda spec, a, b: merge_many(spec, [a, b], check=False, algorithm="frank_wolfe").matchings[1],
}


@pytest.mark.parametrize("factors", [(SMALL, SMALL), (LARGE, LARGE), (1, SMALL)])
def test_the_permutation_does_not_depend_on_the_size_of_the_weights(spec, factors):
    a, b = weights(1), weights(2)
    for name, match in MATCHINGS.items():
        if name == "at once" and factors[0] != factors[1]:
            continue  # it adds up all models, of which the small ones are rounding
        expected, reached = match(spec, a, b), match(spec, *map(scaled, (a, b), factors))
        assert expected.moved and same(expected.permutation, reached.permutation), name
        if name == "weights":
            assert np.isclose(
                reached.objective, expected.objective * np.prod(factors, dtype=np.float64), rtol=1e-5, atol=0
            )


def test_each_part_of_a_kernel_is_matched_whatever_the_size_of_the_others(spec):
    a = weights(1)
    a["both"][:, 6:] *= SMALL
    a["other"] *= SMALL
    b = apply_permutation(spec, random_permutation(spec, jax.random.key(1)), a)
    assert not same(a, b)
    assert same(weight_matching(spec, a, b).params, a)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [SMALL, *slow(LARGE)])
def test_activations_of_extreme_size_are_compared(spec, factor):
    a, b = weights(1), weights(2)
    correlations = UnitCorrelations(spec, X, batch_size=10)
    expected, alike = activation_matching(spec, a, b, X, batch_size=10, check=False), correlations(a, b)
    assert expected.moved
    first, second = ({**p, "both": p["both"] * factor, "mixed": p["mixed"] / factor} for p in (a, b))
    reached = activation_matching(spec, first, second, X, batch_size=10, check=False)
    assert same(expected.permutation, reached.permutation)
    for group, values in correlations(first, second).items():
        assert np.allclose(values, alike[group], atol=1e-6) and values.any()


@pytest.mark.slow
def test_activations_of_extreme_size_are_repaired():
    def layered(p, x):
        return jnp.maximum(x @ p["first"], 0) @ p["last"]

    ends = [{"first": weights(seed)["both"][:, :5], "last": weights(seed)["last"]} for seed in (1, 2)]
    middle = jax.tree.map(lambda x, y: (x + y) / 2, *ends)
    expected = repair(layered, middle, ends, (0.5, 0.5), X)
    small = [{"first": p["first"] * SMALL, "last": p["last"] / SMALL} for p in (middle, *ends)]
    reached = repair(layered, small[0], small[1:], (0.5, 0.5), X)
    assert np.allclose(reached.params["first"] / SMALL, expected.params["first"], rtol=1e-5)
    assert not np.allclose(expected.params["first"], middle["first"], rtol=1e-2)


def test_wider_floats_are_matched_or_refused_by_name(spec):
    a, b = ({name: leaf.astype(np.float64) for name, leaf in weights(seed).items()} for seed in (1, 2))
    expected = weight_matching(spec, a, b, check=False).permutation
    for factor in (1e-60, 1e60):
        first, second = ({name: leaf * factor for name, leaf in p.items()} for p in (a, b))
        assert same(weight_matching(spec, first, second, check=False).permutation, expected)
    with pytest.raises(ValueError, match=r"below 2\*\*-480, .* cannot be matched: b/mixed. Scale them"):
        weight_matching(spec, a, {**b, "mixed": b["mixed"] * 1e-200})


def test_costs_of_any_size_are_assigned():
    cost = np.random.default_rng(0).uniform(size=(7, 7))
    for factor in (2.0**-900, 2.0**900):
        assert np.array_equal(shortest_augmenting_paths(cost * factor), shortest_augmenting_paths(cost))
        assert np.array_equal(assign(cost * factor), assign(cost))


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_values_that_are_not_finite_are_named_before_the_search(spec, value):
    a, b = weights(0), weights(1)
    b["mixed"][2, 1] = value
    calls = {**MATCHINGS, "activations": lambda spec, a, b: activation_matching(spec, a, b, X),
             "orthogonal": lambda spec, a, b: orthogonal_matching(spec, a, b, norms={})}  # fmt: skip
    for match in calls.values():
        with pytest.raises(ValueError, match=r"not finite cannot be matched: (b|model 1)/mixed$"):
            match(spec, a, b)
        with pytest.raises(ValueError, match=r"not finite cannot be matched: (a|model 0)/mixed$"):
            match(spec, b, a)
    with pytest.raises(ValueError, match="not finite cannot be repaired: end 1: mixed$"):
        repair(network, a, [a, b], (0.5, 0.5), X)


def test_outputs_that_overflow_are_no_other_function(spec):
    a, b = (scaled(weights(seed), LARGE) for seed in (1, 2))
    with pytest.raises(ValueError, match=r"outputs are NaN.*check=False"):
        weight_matching(spec, a, b)
