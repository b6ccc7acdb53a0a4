"""ColD Fusion: heads stay, bodies are averaged, anchors keep their bits; the linear probe is the exact solution."""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tna_jax import cold_fusion, linear_probe, masks

K = 3


def is_head(path: str) -> bool:
    return path.startswith("head/")


@pytest.fixture(scope="module")
def contributors():
    """Three contributors with one body and own heads."""

    def one(key):
        keys = jax.random.split(key, 3)
        return {
            "body": {"kernel": jax.random.normal(keys[0], (40, 30)), "bias": jax.random.normal(keys[1], (30,))},
            "head": {"kernel": jax.random.normal(keys[2], (30, 2))},
        }

    heads = jax.vmap(one)(jax.random.split(jax.random.key(1), K))
    return one(jax.random.key(0)), heads, cold_fusion.broadcast_body(one(jax.random.key(0)), heads, is_head)


def train(params, mask):
    """Moves every trainable entry, each contributor by another amount."""
    by = jnp.arange(1.0, K + 1)
    return jax.tree.map(
        lambda p, m: jnp.where(m[None], p + by.reshape(-1, *(1,) * (p.ndim - 1)) * (1 + p), p), params, mask
    )


def bits(tree):
    return [np.asarray(leaf).view(np.uint32) for leaf in jax.tree.leaves(tree)]


def test_contributors_have_the_body_and_their_own_heads(contributors):
    start, heads, params = contributors
    assert np.array_equal(params["head"]["kernel"], heads["head"]["kernel"])
    for name, leaf in start["body"].items():
        assert np.array_equal(params["body"][name], np.stack([leaf] * K))


def test_an_iteration_averages_live_entries_and_copies_anchors_bit_for_bit(contributors):
    _, _, params = contributors
    made, mask = cold_fusion.cold_fusion_round(jax.random.key(2), 0, params, 0.4, train, is_head)
    trained = train(params, mask)
    for name in ("kernel", "bias"):
        free, before, after = (np.asarray(tree["body"][name]) for tree in (mask, params, made))
        assert np.array_equal(after.view(np.uint32)[:, ~free], before.view(np.uint32)[:, ~free])
        expected = np.float32(np.mean(np.asarray(trained["body"][name], np.float64), axis=0))
        assert after[0][free] == pytest.approx(expected[free], rel=1e-5)
        assert np.array_equal(after, np.stack([after[0]] * K))
        assert (after[0] != before[0])[free].all()  # the control: what is not anchored has moved
    assert np.array_equal(made["head"]["kernel"], trained["head"]["kernel"])
    assert not np.array_equal(made["head"]["kernel"][0], made["head"]["kernel"][1])


def test_a_mask_is_fresh_in_each_iteration_over_the_body_only(contributors):
    start, _, _ = contributors
    first, again, second = (cold_fusion.draw_mask(jax.random.key(0), i, start, 0.4, is_head) for i in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(bits_of(first), bits_of(again), strict=True))
    a, b = first["body"]["kernel"], second["body"]["kernel"]
    assert np.mean(~np.asarray(a)) == pytest.approx(0.4, abs=0.05)
    assert np.mean(np.asarray(a == b)) == pytest.approx(0.4**2 + 0.6**2, abs=0.06)  # independent
    assert bool(jnp.all(first["head"]["kernel"]))


def bits_of(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def test_equal_bodies_stay_and_weights_count(contributors):
    _, _, params = contributors
    assert all(np.array_equal(a, b) for a, b in zip(bits(cold_fusion.fuse(params, is_head)), bits(params), strict=True))
    mask = jax.tree.map(lambda leaf: jnp.ones(leaf.shape[1:], bool), params)
    trained = train(params, mask)
    made = cold_fusion.fuse(trained, is_head, jnp.asarray([0.0, 0.0, 1.0]))
    assert np.allclose(made["body"]["kernel"][0], trained["body"]["kernel"][2], rtol=1e-6)


def test_fusing_works_for_many_variants_at_once(contributors):
    _, _, params = contributors
    both = jax.tree.map(
        lambda leaf: jnp.stack([leaf, 2 * leaf]),
        train(params, masks.complement(jax.tree.map(lambda p: jnp.zeros(p.shape[1:], bool), params))),
    )
    found = jax.jit(jax.vmap(lambda p: cold_fusion.fuse(p, is_head)))(both)
    for i in range(2):
        one = cold_fusion.fuse(jax.tree.map(lambda leaf, i=i: leaf[i], both), is_head)
        assert np.allclose(found["body"]["kernel"][i], one["body"]["kernel"], rtol=1e-6)


def test_a_tree_without_heads_or_without_a_body_is_refused(contributors):
    _, _, params = contributors
    with pytest.raises(ValueError, match="none of the parameters are heads: body/bias, body/kernel, head/kernel"):
        cold_fusion.fuse(params, lambda path: path.startswith("classifier"))
    for call in (
        lambda: cold_fusion.fuse(params, lambda path: True),
        lambda: cold_fusion.draw_mask(jax.random.key(0), 0, params, 0.4, lambda path: True),
    ):
        with pytest.raises(ValueError, match="all of the parameters are heads: body/bias"):
            call()


def test_heads_of_unlike_numbers_of_contributors_are_refused_by_name():
    start = {"body": jnp.zeros(4), "head": {"bias": jnp.zeros(2), "kernel": jnp.ones((4, 2))}}
    heads = {"body": jnp.zeros((1, 4)), "head": {"bias": jnp.ones((3, 2)), "kernel": jnp.ones((3, 4, 2))}}
    made = cold_fusion.broadcast_body(start, heads, is_head)  # bodies of `heads` are not used, nor is their number
    assert made["body"].shape == (3, 4) and made["head"]["bias"].tolist() == [[1, 1]] * 3
    unlike = {**heads, "head": {"bias": jnp.ones((2, 2)), "kernel": jnp.ones((3, 4, 2))}}
    with pytest.raises(ValueError, match=r"head/bias \[2, 2\], head/kernel \[3, 4, 2\]"):
        cold_fusion.broadcast_body(start, unlike, is_head)
    with pytest.raises(ValueError, match="0 contributors"):
        cold_fusion.broadcast_body(start, jax.tree.map(lambda leaf: leaf[:0], heads), is_head)
    alone = {"body": {"w": 1.0}, "head": {"bias": 0.0}}
    with pytest.raises(ValueError, match=r"head/bias \[\]"):
        cold_fusion.broadcast_body(alone, alone, is_head)


def test_heads_go_by_their_paths_not_by_their_order():
    start = OrderedDict(z=jnp.zeros(2), head=OrderedDict(b=jnp.zeros(2), a=jnp.zeros(2)))
    heads = {"head": {"a": jnp.full((3, 2), 1.0), "b": jnp.full((3, 2), 2.0)}, "z": jnp.zeros((3, 2))}
    made = cold_fusion.broadcast_body(start, heads, is_head)
    assert made["head"]["a"][0, 0] == 1 and made["head"]["b"][0, 0] == 2


def test_a_list_of_layers_is_one_tree_of_contributors():
    """Layers of equal shapes look like models one by one."""
    layers = [{"w": jnp.arange(12.0).reshape(3, 4)}, {"w": jnp.ones((3, 4))}]
    made = cold_fusion.fuse(layers, lambda path: path.startswith("1/"))
    assert made[0]["w"].tolist() == [[4, 5, 6, 7]] * 3 and made[1]["w"].tolist() == [[1] * 4] * 3


def test_a_training_that_moves_anchors_and_bodies_that_differ_are_refused_by_name(contributors):
    _, _, params = contributors
    with pytest.raises(ValueError, match=r"body/bias \(\d+\), body/kernel \(\d+\). Either `train` moves them"):
        cold_fusion.cold_fusion_round(
            jax.random.key(2), 0, params, 0.4, lambda p, m: jax.tree.map(lambda x: x + 1, p), is_head
        )
    other = {**params, "body": {**params["body"], "bias": params["body"]["bias"].at[1].add(1)}}
    with pytest.raises(ValueError, match=r"sent out: body/bias \(\d+\). Either"):
        cold_fusion.cold_fusion_round(jax.random.key(2), 0, other, 0.4, train, is_head)
    plain = cold_fusion.cold_fusion_round(jax.random.key(2), 0, other, 0.0, train, is_head)[0]  # nothing is anchored
    assert jnp.isfinite(plain["body"]["bias"]).all()
    given = jax.tree.map(jnp.copy, params)
    donating = jax.jit(train, donate_argnums=0)
    assert bool(
        cold_fusion.cold_fusion_round(jax.random.key(2), 0, given, 0.4, donating, is_head)[0]["body"]["bias"].any()
    )
    compiled = jax.jit(lambda p: cold_fusion.cold_fusion_round(jax.random.key(2), 0, p, 0.4, train, is_head)[0])(params)
    eager = cold_fusion.cold_fusion_round(jax.random.key(2), 0, params, 0.4, train, is_head)[0]
    assert np.allclose(compiled["body"]["kernel"], eager["body"]["kernel"], rtol=1e-6)


def test_the_probe_is_the_ridge_solution_and_learns_what_is_linear():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 8)).astype(np.float32) * np.array([1, 10, 0.1, 1, 1, 1, 1, 0], np.float32)
    labels = (x[:, 0] + 0.1 * x[:, 1] > 0).astype(np.int32) + (x[:, 3] > 1)
    fitted = linear_probe.fit(jnp.asarray(x), jnp.asarray(labels), 5, decay=0.05)
    used = x[:, :7].astype(np.float64)
    z = (used - used.mean(0)) / used.std(0)
    y = np.eye(5)[labels]
    exact = np.linalg.solve(z.T @ z / 300 + 0.05 * np.eye(7), z.T @ (y - y.mean(0)) / 300)
    assert np.asarray(fitted.kernel)[:7] == pytest.approx(exact, abs=1e-4)
    assert np.asarray(fitted.kernel)[7] == pytest.approx(0, abs=1e-6)  # a constant feature
    scores = np.asarray(linear_probe.scores(fitted, jnp.asarray(x)))
    assert np.isfinite(scores).all() and scores.sum(1) == pytest.approx(1, abs=1e-4)
    assert scores[:, 3:] == pytest.approx(0, abs=1e-5)  # classes that do not occur
    assert float(linear_probe.accuracy(fitted, jnp.asarray(x), jnp.asarray(labels))) > 0.75
    shuffled = jnp.asarray(rng.permutation(labels))
    assert (
        float(linear_probe.accuracy(linear_probe.fit(jnp.asarray(x), shuffled, 5), jnp.asarray(x), jnp.asarray(labels)))
        < 0.65
    )
    with pytest.raises(ValueError, match="above 0"):
        linear_probe.fit(jnp.asarray(x), jnp.asarray(labels), 5, decay=0.0)
    with pytest.raises(ValueError, match="labels below 0"):  # one-hot rows of zeros
        linear_probe.fit(jnp.asarray(x), labels - 1, 5)
    for wrong in (labels[:, None], labels[:1]):  # compared with every example's prediction
        with pytest.raises(ValueError, match="300 inputs but labels of shape"):
            linear_probe.accuracy(fitted, jnp.asarray(x), jnp.asarray(wrong))
