"""Curves between models: their ends and what both share bit for bit, the line as a special case, and a bend that finds a way around a barrier."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.parameters import slow_but
from tna_jax import barrier, connectivity, curves, ensemble, line, masks, networks
from tna_jax.ensemble import Papa, Trainer

PAIRS = [(0, 1), (1, 2)]
EXAMPLES = 96
KEYS = jax.random.split(jax.random.key(2), 2)


@pytest.fixture(autouse=True)
def promotion():
    with jax.numpy_dtype_promotion("standard"):  # optax's own arithmetic, and networks of half precision
        yield


def network(params, inputs):
    return jnp.tanh(inputs @ params["u"]) @ params["v"]


def models(dtype=jnp.float32, anchored=0.0):
    """Three networks; a share of their entries is the same in all."""
    keys = jax.random.split(jax.random.key(0), 2)
    drawn = {"u": jax.random.normal(keys[0], (3, 2, 12)), "v": jax.random.normal(keys[1], (3, 12, 3))}
    shared = masks.bernoulli(jax.random.key(5), jax.tree.map(lambda x: x[0], drawn), anchored)
    return jax.tree.map(lambda x, mask: jnp.where(mask, x, x[:1]).astype(dtype), drawn, shared), shared


@pytest.fixture(scope="module")
def data():
    """Nine sectors of a ring, three of each class: networks that learn them apart do it with other units."""
    sectors = np.arange(EXAMPLES) % 9
    angles = 2 * np.pi * (sectors / 9 + np.random.default_rng(0).normal(0, 0.025, EXAMPLES))
    return 2 * np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32), (sectors % 3).astype(np.int32)


def trained(data, start, mask=None):
    """The networks after training."""
    trainer = Trainer(network, optax.adam(0.05), 32)
    begun = ensemble.init_ensemble(trainer, start, jax.random.split(jax.random.key(1), 3), mask=mask)
    return ensemble.train_ensemble(trainer, begun, *data, 40)[0].params


def one(tree, i):
    return jax.tree.map(lambda x: np.asarray(x[i]), tree)


def same_bits(a, b):
    return all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)
    )


def test_a_curve_goes_from_one_end_to_the_other_and_keeps_what_they_share():
    (members, mask), bend = models(anchored=0.4), one(models(anchored=0.4)[0], 2)
    a, b = one(members, 0), one(members, 1)
    assert same_bits(curves.bezier(a, bend, b, 0), a) and same_bits(curves.bezier(a, bend, b, 1.0), b)
    point, t = curves.bezier(a, bend, b, 0.3), np.float32(0.3)
    for name in a:
        np.testing.assert_allclose(
            point[name], 0.49 * a[name] + 0.42 * bend[name] + 0.09 * b[name], rtol=1e-5, atol=1e-6
        )
        shared = ~np.asarray(mask[name])
        assert shared.any() and (np.asarray(point[name])[shared] == a[name][shared]).all()
    np.testing.assert_allclose(np.asarray(curves.bernstein(np.linspace(0, 1, 5))).sum(-1), 1, rtol=1e-6)
    slope = jax.grad(lambda bend: curves.bezier(a, bend, b, t)["u"].sum())(bend)
    np.testing.assert_allclose(slope["u"], 2 * t * (1 - t), rtol=1e-6)


def test_with_the_bend_in_the_middle_the_curve_is_the_line(data):
    members, _ = models()
    bends = jax.tree.map(lambda x: jnp.stack([(x[i] + x[j]) / 2 for i, j in PAIRS]), members)
    found = curves.evaluate_curves(network, members, bends, PAIRS, 5, {"test": data})["test"]
    straight = connectivity.evaluate_paths(network, members, PAIRS, 5, {"test": data})["test"]
    np.testing.assert_allclose(found.loss, straight.loss, rtol=1e-5)
    assert (found.loss[:, [0, -1]] == straight.loss[:, [0, -1]]).all()  # the ends are the models themselves
    middle = line(one(members, 0), one(members, 1), 0.5)
    bent = curves.bezier(one(members, 0), middle, one(members, 1), 0.25)
    np.testing.assert_allclose(bent["u"], line(one(members, 0), one(members, 1), 0.25)["u"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ratio", [0.0, 0.4])
def test_a_trained_bend_goes_around_the_barrier_and_moves_no_anchor(data, ratio):
    start, mask = models(anchored=ratio)
    members = trained(data, start, jax.tree.map(lambda x: np.stack([x] * 3), mask))
    straight = connectivity.evaluate_paths(network, members, PAIRS, 11, {"test": data})["test"]
    bends = curves.train_bends(KEYS, Trainer(network, optax.adam(0.05), 32), members, PAIRS, *data, 60)
    curved = curves.evaluate_curves(network, members, bends, PAIRS, 11, {"test": data})["test"]
    assert (barrier(straight) > 0.3).all() and (barrier(curved) < 0.35 * barrier(straight)).all()
    for name in bends:
        shared = ~np.asarray(mask[name])
        assert shared.any() == bool(ratio)
        assert (np.asarray(bends[name])[:, shared] == np.asarray(members[name])[:2, shared]).all()


@pytest.mark.parametrize("placement", slow_but(["loop"], ["vmap", "loop"]))
def test_the_same_key_gives_the_same_bends_however_they_are_placed(data, placement):
    members, _ = models()

    def bends(placement, pairs=PAIRS, keys=KEYS):
        trainer = Trainer(network, optax.sgd(0.1), 32, placement)
        return curves.train_bends(keys, trainer, members, pairs, *data, 2)

    mapped = bends("map")
    for name, leaf in bends(placement).items():
        np.testing.assert_allclose(leaf, mapped[name], rtol=1e-5, atol=1e-6)
    alone = bends("map", PAIRS[1:], KEYS[1:])
    assert same_bits(one(alone, 0), one(mapped, 1))
    assert not same_bits(bends("map", keys=KEYS[::-1]), mapped)


def test_half_precision_ends_stay_what_they_are(data):
    members, _ = models(jnp.bfloat16, anchored=0.4)
    bends = curves.train_bends(KEYS, Trainer(network, optax.sgd(0.1), 32), members, PAIRS, *data, 1)
    curve = curves.on_curve(network)
    ends = curves.Ends(*(jax.tree.map(lambda x: x.astype(jnp.float32), one(members, i)) for i in (0, 1)), ())
    assert {leaf.dtype for leaf in jax.tree.leaves(bends)} == {jnp.dtype(jnp.bfloat16)}
    expected = network(curves.bezier(one(members, 0), one(bends, 0), one(members, 1), 0.5), data[0])
    np.testing.assert_array_equal(curve.evaluate(one(bends, 0), ends, data[0]), expected)


def test_networks_with_a_state_estimate_it_anew_on_the_curve(data):
    def in_training(params, state, inputs, weight):
        mean = inputs.mean(0, keepdims=True)
        return network(params, inputs - mean), {"mean": 0.5 * state["mean"] + 0.5 * mean}

    stateful = networks.Stateful(in_training, lambda params, state, inputs: network(params, inputs - state["mean"]))
    members, state = models()[0], {"mean": np.full((3, 1, 2), 9, np.float32)}
    trainer = Trainer(stateful, optax.sgd(0.1), 32)
    bends = curves.train_bends(KEYS, trainer, members, PAIRS, *data, 1, state=state)
    options = {"state": state, "calibration": data[0]}
    path = curves.evaluate_curves(stateful, members, bends, PAIRS, 3, {"test": data}, **options)["test"]
    at = one(bends, 0)
    expected = network(curves.bezier(one(members, 0), at, one(members, 1), 0.5), data[0] - data[0].mean(0))
    losses = optax.softmax_cross_entropy_with_integer_labels(expected, data[1])
    np.testing.assert_allclose(path.loss[0, 1], losses.mean(), rtol=1e-4)
    ends = connectivity.evaluate(stateful, members, {"test": data}, state=state)["test"]
    np.testing.assert_allclose(path.loss[0, [0, 2]], ends.loss[:2], rtol=1e-6)  # with their own statistics
    with pytest.raises(ValueError, match="calibration"):
        curves.evaluate_curves(stateful, members, bends, PAIRS, 3, {"test": data}, state=state)


def test_how_far_a_curve_leaves_its_line():
    members = {"w": np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 3.0]], np.float32)}
    bends = {"w": np.array([[2.0, 1.0], [4.0, 1.5]], np.float32)}
    np.testing.assert_allclose(curves.deflection(members, bends, PAIRS), [0.25, 0.0])
    assert not np.isfinite(curves.deflection(members, {"w": bends["w"][:1]}, [(0, 0)])).any()


def test_what_cannot_be_is_refused(data):
    members, trainer = models()[0], Trainer(network, optax.sgd(0.1), 32)
    for pairs in ([(0, 3)], [(0, 1, 2)], np.zeros((0, 2))):
        with pytest.raises(ValueError, match="pairs must be"):
            curves.train_bends(KEYS, trainer, members, pairs, *data, 1)
    with pytest.raises(ValueError, match="without papa"):
        curves.train_bends(KEYS, dataclasses.replace(trainer, papa=Papa(2, 0.1)), members, PAIRS, *data, 1)
    with pytest.raises(ValueError, match="one bend for each of the 2 pairs"):
        curves.evaluate_curves(network, members, members, PAIRS, 3, {"test": data})
    with pytest.raises(ValueError, match="one number|one weight"):
        curves.bezier(one(members, 0), one(members, 1), one(members, 2), [0.1, 0.2])
