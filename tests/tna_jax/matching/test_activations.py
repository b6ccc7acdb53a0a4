"""Activation matching of networks with heads: groups within each other, and those whose activations meet no weights."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tna_jax.matching import permutations
from tna_jax.matching.activations import activation_matching
from tna_jax.matching.axes import Concat, Group, Product
from tna_jax.matching.correlations import Correlations, stretches
from tna_jax.matching.permutations import apply_permutation, permutation_spec, random_permutation

SHAPES = {"into": (3, 8), "query": (8, 3, 2), "key": (8, 3, 2), "value": (8, 3, 4), "out": (3, 4, 8), "last": (8, 2)}


@jax.jit
def attention(p, x):
    """(B, T, 3) to (B, 2): three heads, queries of two units, values of four."""
    stream = jnp.tanh(x @ p["into"])
    query, key, value = (jnp.einsum("btd,dhu->bthu", stream, p[name]) for name in ("query", "key", "value"))
    weights = jax.nn.softmax(jnp.einsum("bthu,bshu->bhts", query, key))
    return jnp.tanh(stream + jnp.einsum("bhts,bshu,huo->bto", weights, value, p["out"])).mean(1) @ p["last"]


def weights(seed):
    draws = np.random.default_rng(seed)
    return {name: draws.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def test_heads_and_their_units_are_found_and_groups_without_activations_are_named():
    a, x = weights(0), np.random.default_rng(9).normal(size=(40, 5, 3)).astype(np.float32)
    spec = permutation_spec(attention, a, x)
    hidden = random_permutation(spec, jax.random.key(1))
    b = apply_permutation(spec, hidden, a)
    found = activation_matching(spec, a, b, x)
    assert all(np.array_equal(found.params[name], leaf) for name, leaf in a.items())
    (unseen,) = (name for name in spec.groups if {path for path, _ in spec.where(name)} == {("query",), ("key",)})
    assert found.by_weights == (unseen,) and spec.groups[unseen] == 2
    assert found.permutation[unseen].tolist() == permutations.inverse(hidden)[unseen].tolist()
    again = activation_matching(spec, a, b, x, restarts=3, check=False, batch_size=25)
    assert again.objective == pytest.approx(found.objective, rel=1e-5)
    with pytest.raises(ValueError, match="restarts must be at least 1, got 0"):
        activation_matching(spec, a, b, x, restarts=0)


def test_a_spec_of_another_program_is_refused():
    """Traced under `jax.disable_jit` a loop is as many products as it has rounds."""

    def recurrent(p, x):
        h, _ = jax.lax.scan(lambda h, part: (jnp.tanh(part @ p["into"] + h @ p["again"]), None), jnp.zeros((5, 4)), x)
        return h @ p["out"]

    shapes = {"into": (3, 4), "again": (4, 4), "out": (4, 2)}
    p = {name: np.random.default_rng(0).normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    x = np.ones((3, 5, 3), np.float32)
    with jax.disable_jit():
        spec = permutation_spec(recurrent, p, x)
    with pytest.raises(ValueError, match="another than the one its spec was traced from: .*jax.disable_jit unrolls"):
        activation_matching(spec, p, p, x)


def test_gains_of_activations_are_differences_of_their_objective():
    heads, units, more = Group(3, "heads"), Group(4, "units"), Group(5, "more")
    axis = Concat((Product((heads, units)), more))
    assert [groups for groups, _ in stretches(axis)] == [("heads", "units"), ("more",)]
    draws = np.random.default_rng(0)
    products = draws.normal(size=(17, 17))
    attention_spec = permutation_spec(attention, weights(0), jax.ShapeDtypeStruct((2, 5, 3), jnp.float32))
    sizes = {"heads": 3, "units": 4, "more": 5}
    spec = dataclasses.replace(attention_spec, groups=sizes)
    both = Correlations(spec, {axis: products})
    order = {name: draws.permutation(size) for name, size in sizes.items()}
    for name, size in sizes.items():
        new, gain = draws.permutation(size), both.of(name, order)
        rows = np.arange(size)
        expected = both.objective({**order, name: new}) - both.objective(order)
        assert gain[rows, new].sum() - gain[rows, order[name]].sum() == pytest.approx(expected, abs=1e-9)
    moved = np.concatenate([(order["heads"][:, None] * 4 + order["units"]).reshape(-1), 12 + order["more"]])
    assert both.objective(order) == pytest.approx(products[np.arange(17), moved].sum())
    begun = both.of("heads", order, {"units"})
    best = products[:4, 4:8]  # of heads 0 and 1
    assert begun[0, 1] == pytest.approx(max(best[range(4), p].sum() for p in itertools.permutations(range(4))))
