"""Many models matched with each other: copies are found, wherever they start, and what maps one to another agrees along cycles."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tna_jax.matching.joined_network import traced, weights
from tna_jax.matching import permutations
from tna_jax.matching.many import match_to_first, merge_many
from tna_jax.matching.permutations import apply_permutation, permutation_spec, random_permutation
from tna_jax.matching.weights import weight_matching

ALGORITHMS = ["coordinate_ascent", "frank_wolfe"]


def stacked(trees):
    return jax.tree.map(lambda *x: np.stack(x), *trees)


def member(members, i):
    return jax.tree.map(lambda x: x[i], members)


def same_bits(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def spread(members):
    """The squared distances of the models from their mean."""
    return sum(float(((x - x.mean(0)) ** 2).sum()) for x in jax.tree.leaves(members))


def noisy_copies(spec, params, count=3):
    """Copies with noise, in a common order and each in one of its own."""
    draws = np.random.default_rng(0)
    ordered = [
        jax.tree.map(lambda w: (w + draws.normal(0, 0.3 * w.std(), w.shape)).astype(np.float32), params)
        for _ in range(count)
    ]
    shuffled = [apply_permutation(spec, random_permutation(spec, jax.random.key(i)), m) for i, m in enumerate(ordered)]
    return stacked(ordered), stacked(shuffled)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_noisy_copies_are_found_from_whatever_order(algorithm):
    spec, a, _ = traced()
    ordered, shuffled = noisy_copies(spec, a)
    assert spread(shuffled) > 5 * spread(ordered)
    for seed in range(2):
        merged = merge_many(spec, shuffled, key=jax.random.key(seed), algorithm=algorithm, check=False)
        assert spread(merged.members) == pytest.approx(spread(ordered), rel=1e-5)
    copies = [apply_permutation(spec, random_permutation(spec, jax.random.key(i)), a) for i in range(3)]
    first, *others = (
        member(merge_many(spec, stacked(copies), algorithm=algorithm, check=False).members, i) for i in range(3)
    )
    assert all(same_bits(first, other) for other in others)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_unlike_models_come_nearer_and_agree_along_cycles(algorithm):
    spec, *_ = traced()
    members = stacked([weights(seed) for seed in range(3)])
    merged = merge_many(spec, members, algorithm=algorithm)
    assert spread(merged.members) < 0.8 * spread(members)
    assert merged.rounds >= 1 and len(merged.matchings) == 3
    again = merge_many(spec, members, algorithm=algorithm, check=False)
    assert same_bits(again.members, merged.members)
    for i, matching in enumerate(merged.matchings):
        new = member(merged.members, i)
        assert same_bits(apply_permutation(spec, matching.permutation, member(members, i)), new)
        others = jax.tree.map(lambda x, i=i: np.delete(x, i, 0).mean(0), merged.members)
        assert matching.objective == pytest.approx(sum(float(np.vdot(others[k], new[k])) for k in new), rel=1e-4)
    for i, j, k in itertools.permutations(range(3)):
        there, on = merged.between(i, j), merged.between(j, k)
        assert all(np.array_equal(on[name][there[name]], direct) for name, direct in merged.between(i, k).items())
        moved = apply_permutation(spec, merged.between(i, j), member(members, j))
        back = permutations.inverse(merged.matchings[i].permutation)
        assert same_bits(moved, apply_permutation(spec, back, member(merged.members, j)))


def test_models_in_a_common_order_stay_and_the_first_can_be_kept():
    spec, a, _ = traced()
    ordered, shuffled = noisy_copies(spec, a)
    assert not any(m.moved for m in merge_many(spec, ordered, check=False).matchings)
    first = match_to_first(shuffled, lambda a, b, s: weight_matching(spec, a, b, state=s, restarts=8, check=False))
    assert same_bits(member(first.members, 0), member(shuffled, 0))
    assert spread(first.members) == pytest.approx(spread(ordered), rel=1e-5)


def test_models_may_be_given_one_by_one():
    spec, a, b = traced()
    together = merge_many(spec, stacked([a, b]), check=False)
    for members in ([a, b], (a, b)):
        assert same_bits(merge_many(spec, members, check=False).members, together.members)
    first = match_to_first([a, b], lambda x, y, s: weight_matching(spec, x, y, state=s, check=False))
    assert same_bits(jax.tree.map(lambda leaf: leaf[0], first.members), a)
    with pytest.raises(ValueError, match="at least 2 models, got 1"):
        merge_many(spec, [a])


def test_complex_weights_are_matched_by_the_real_part_of_their_inner_product():
    draws = np.random.default_rng(0)
    params = {
        name: (1j * draws.normal(size=shape)).astype(np.complex64) for name, shape in (("w", (5, 7)), ("o", (7, 3)))
    }
    spec = permutation_spec(
        lambda p, x: jnp.abs(jnp.tanh(x @ p["w"]) @ p["o"]), params, jnp.ones((4, 5), jnp.complex64)
    )
    copy = apply_permutation(spec, random_permutation(spec, jax.random.key(1)), params)
    found = weight_matching(spec, params, copy, check=False)
    assert same_bits(found.params, params) and not same_bits(copy, params)
    assert found.objective == pytest.approx(sum(np.vdot(w, w).real for w in params.values()), rel=1e-5)
    merged = merge_many(spec, stacked([params, copy]), check=False)
    assert spread(jax.tree.map(lambda x: x.imag, merged.members)) == 0 and merged.members["w"].dtype == np.complex64


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": 1}, "at least 2 models, got 1"),
        ({"restarts": 0}, "at least 1, got 0 and 50"),
        ({"algorithm": "mean"}, "'coordinate_ascent' or 'frank_wolfe', got 'mean'"),
    ],
)
def test_merging_refuses(options, words):
    spec, a, b = traced()
    members = stacked([a, b][: options.pop("count", 2)])
    with pytest.raises(ValueError, match=words):
        merge_many(spec, members, **options)
