"""Laws of averages and greedy soups: anchors bit for bit, hand-written soups, both rules for ties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import slow
from tna_jax import averaging, greedy_soup, interpolation, masks, stack, uniform_soup, weighted_average
from tna_jax.averaging import greedy_recipe


def tree(models=4, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return {
        "a": jnp.asarray(rng.normal(size=(models, 3, 4)), dtype),
        "b": {"c": jnp.asarray(rng.normal(size=(models, 5)), dtype)},
    }


def member(members, i):
    return jax.tree.map(lambda leaf: leaf[i], members)


def same_bits(x, y) -> bool:
    pairs = zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)
    return all(p.dtype == q.dtype and np.asarray(p).tobytes() == np.asarray(q).tobytes() for p, q in pairs)


@pytest.mark.parametrize("dtype", [jnp.float32, *slow(jnp.bfloat16)])
def test_anchors_are_copied_and_naive_averages_would_move_them(dtype):
    members = tree(7, dtype)
    mask = masks.bernoulli(jax.random.key(1), member(members, 0), 0.5)
    shared = jax.tree.map(lambda leaf, m: jnp.where(m, leaf, leaf[0]), members, mask)
    soup = uniform_soup(shared)
    naive = jax.tree.map(lambda leaf: (leaf * jnp.asarray(1 / 7, dtype)).sum(0), shared)
    moved = 0
    for new, plain, old, m in zip(*map(jax.tree.leaves, (soup, naive, member(shared, 0), mask)), strict=True):
        assert np.asarray(new)[~np.asarray(m)].tobytes() == np.asarray(old)[~np.asarray(m)].tobytes()
        assert (new != old)[m].any()
        moved += int((plain != old)[~m].sum())
    assert moved > 0


def test_averages_by_hand_and_as_the_simplex():
    members = {"w": jnp.array([[0.0, 4.0], [8.0, 4.0], [0.0, 0.0]]), "step": jnp.array([3, 5, 7])}
    assert weighted_average(members, [1, 2, 1])["w"].tolist() == [4.0, 3.0]
    assert uniform_soup(members)["step"] == 3
    random = tree(3)
    simplex = jax.jit(lambda t: interpolation.simplex([member(t, i) for i in range(3)], [0.25, 0.5, 0.25]))(random)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), simplex, weighted_average(random, [1, 2, 1]))
    half = {"w": jnp.array([[1.0], [1.0078125]], jnp.bfloat16)}  # summed in float32
    expected = (np.float32(0.75) + np.float32(0.25) * np.float32(1.0078125)).astype(jnp.bfloat16)
    assert weighted_average(half, [3, 1])["w"][0] == expected


def test_corners_and_copies_bit_for_bit_also_compiled():
    members = tree()
    members["a"] = members["a"].at[1, 0, 0].set(jnp.inf).at[2, 0, 0].set(-0.0)
    average = jax.jit(weighted_average)
    for i, weights in enumerate(np.eye(4, dtype=np.float32) * 3):
        assert same_bits(weighted_average(members, weights), member(members, i))
        assert same_bits(average(members, weights), member(members, i))
    copies = jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], 4, axis=0), members)
    assert same_bits(weighted_average(copies, [0.3, 0.1, 0.2, 0.7]), member(members, 0))
    diverged = {"w": jnp.array([[1.0], [jnp.nan], [2.0]])}  # weight 0 is not there
    assert weighted_average(diverged, [1, 0, 1])["w"].tolist() == [1.5]


@pytest.mark.parametrize(
    ("weights", "message"), [([1, 2], "4 models"), ([1, -1, 0, 0], "not 0"), ([1, np.nan, 0, 0], "finite")]
)
def test_weights_that_are_none_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        weighted_average(tree(), weights)


SCORES = {(1, 0, 0, 0): 0.5, (0, 1, 0, 0): 0.8, (0, 0, 1, 0): 0.7, (0, 0, 0, 1): np.nan,
          (0, 1, 1, 0): 0.8, (1, 1, 1, 0): 0.9, (1, 1, 0, 0): 0.79}  # fmt: skip


@pytest.mark.parametrize(
    ("ties", "weights", "score", "trail"),
    [
        ("keep", [1, 1, 1, 0], 0.9, [(1, 0.8, True), (2, 0.8, True), (0, 0.9, True), (3, None, False)]),
        ("drop", [0, 1, 0, 0], 0.8, [(1, 0.8, True), (2, 0.8, False), (0, 0.79, False), (3, None, False)]),
    ],
)
def test_greedy_soups_by_hand(ties, weights, score, trail):
    asked = []

    def look(chosen):
        asked.append(tuple(chosen.astype(int).tolist()))
        return SCORES[asked[-1]]

    alone = [SCORES[tuple(row)] for row in np.eye(4, dtype=int).tolist()]
    recipe = greedy_recipe(alone, look, ties)
    assert recipe.weights.tolist() == weights and recipe.score == score
    assert [(i.model, i.score if np.isfinite(i.score) else None, i.kept) for i in recipe.trail] == trail
    assert len(asked) == 2  # the model without a score is never tried


@pytest.mark.parametrize(("larger", "worst"), [(True, np.inf), (False, -np.inf)])
def test_a_soup_whose_score_is_not_finite_is_not_kept(larger, worst):
    """As of a model alone: the score of what has overflowed is no best one, and no other could be compared with it."""
    scores = {(1, 1, 0): worst, (1, 0, 1): 0.9 if larger else 0.1}
    recipe = greedy_recipe(
        [0.5, 0.4, 0.3] if larger else [0.5, 0.6, 0.7], lambda w: scores[tuple(w.astype(int).tolist())], "keep", larger
    )
    assert recipe.weights.tolist() == [1, 0, 1] and recipe.score == scores[1, 0, 1]
    assert [step.kept for step in recipe.trail] == [True, False, True]


def test_a_greedy_soup_is_the_average_of_its_ingredients_and_never_worse_than_the_best_model():
    members = tree(6)
    goal = member(members, 0)["a"] + member(members, 1)["a"]

    def score(params):
        return -float(((2 * params["a"] - goal) ** 2).sum())

    soup, recipe = greedy_soup(members, score)
    assert 1 < recipe.weights.sum() < 6
    assert same_bits(soup, weighted_average(members, recipe.weights))
    assert score(soup) == pytest.approx(recipe.score)
    assert recipe.score >= max(score(member(members, i)) for i in range(6))
    for words, message in (((members, lambda p: np.nan), "finite score"), ((members, score, "both"), "keep, drop")):
        with pytest.raises(ValueError, match=message):
            greedy_soup(*words)


def test_a_model_of_weight_0_changes_nothing_of_what_the_others_share():
    """What a greedy soup rejects may have other anchors."""
    members = tree()
    shared = jax.tree.map(lambda leaf: leaf.at[1:3].set(leaf[0]), members)
    assert same_bits(weighted_average(shared, [1, 1, 1, 0]), member(shared, 0))
    assert same_bits(weighted_average(shared, [0, 1, 1, 0]), member(shared, 0))
    assert not same_bits(weighted_average(shared, [1, 1, 1, 1]), member(shared, 0))


def test_models_one_by_one_are_stacked_and_what_is_not_stacked_is_named():
    members = tree()
    models = [member(members, i) for i in range(4)]
    assert same_bits(stack(models), members)
    with pytest.raises(ValueError, match=r"tna_jax.stack makes that of models one by one: a \[3, 4\], b/c \[5\]"):
        uniform_soup(models[0])
    with pytest.raises(ValueError, match="model 1"):
        stack([models[0], {"a": models[1]["a"]}])
    with pytest.raises(ValueError, match="no models"):
        stack([])


def test_a_list_or_tuple_of_models_is_that_many_models():
    a, b = ({"q": np.full((4, 4), v, np.float32), "k": [np.full((4, 4), v, np.float32)] * 2} for v in (1.0, 3.0))
    for models in ([a, b], (a, b), [a, b, b, a]):
        soup = uniform_soup(models)
        assert jax.tree.structure(soup) == jax.tree.structure(a)
        assert all(leaf.shape == (4, 4) and (leaf == 2).all() for leaf in jax.tree.leaves(soup))
    assert weighted_average([a, b], [1, 0])["q"].tolist() == a["q"].tolist()
    soup, recipe = greedy_soup([a, b], lambda model: -abs(float(model["q"][0, 0]) - 2.0))
    assert soup["q"][0, 0] == 2 and recipe.weights.tolist() == [1, 1]
    layers = [{"w": np.ones((2, 4, 3))}, {"w": np.ones((2, 3, 5))}]  # of two stacked models: their shapes differ
    assert [layer["w"].shape for layer in uniform_soup(layers)] == [(4, 3), (3, 5)]
    alike = [{"w": np.ones((3, 2, 2))}, {"w": np.zeros((3, 2, 2))}]
    assert [layer["w"].shape for layer in averaging.average_stacked(alike, [1, 1, 1])] == [(2, 2), (2, 2)]


def test_modules_that_are_not_arrays_are_not_stacked():
    with pytest.raises(TypeError, match=r"not arrays: act\. Give the trainable part: eqx.filter"):
        stack([{"w": np.ones(2), "act": jnp.tanh}] * 2)


def test_integers_that_jax_would_cut_are_refused_by_name():
    large = {"w": np.ones(2, np.float32), "steps": np.array([2**40 + 3])}
    small = large | {"steps": np.array([7])}
    for call in (lambda: stack([large, large]), lambda: uniform_soup(jax.tree.map(lambda x: np.stack([x, x]), large))):
        with pytest.raises(ValueError, match=r"cut these integers to 32 bits: steps \(int64, up to 1099511627779\)"):
            call()
    assert stack([small, small])["steps"].tolist() == [[7], [7]]


def test_a_list_of_one_model_is_one_model():
    """`uniform_soup(models[:count])` in a loop over counts: rows of a square weight are no models."""
    model = {"w": np.arange(9, dtype=np.float32).reshape(3, 3)}
    for models in ([model], (model,)):
        assert same_bits(uniform_soup(models), model)
        assert same_bits(weighted_average(models, [3]), model)
        assert same_bits(greedy_soup(models, lambda m: float(m["w"].sum()))[0], model)


def test_leaves_of_other_shapes_or_dtypes_are_not_stacked():
    model = {"w": np.zeros(3, np.float32)}
    with pytest.raises(ValueError, match=r"w \(model 1 \(\), first model \(3,\)\)"):
        stack([model, {"w": np.float32(0)}])
    with pytest.raises(ValueError, match=r"w \(model 1 float16, first model float32\)"):
        stack([model, {"w": np.zeros(3, np.float16)}])
    with pytest.raises(ValueError, match="Cast it first"):  # not the layers of three models
        uniform_soup([model, {"w": np.zeros(3, np.float16)}])


def test_no_models_and_weights_whose_sum_overflows_are_refused():
    for nothing in ([], {}):
        with pytest.raises(ValueError, match="there are no models"):
            uniform_soup(nothing)
    with pytest.raises(ValueError, match="their sum must be finite"):
        weighted_average([{"w": np.zeros(3)}, {"w": np.ones(3)}], [3e38, 3e38])
