"""PAPA pulls a population towards its average: the identity for equal networks, and never an anchor."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tna_jax import ensemble, placement
from tna_jax.ensemble import Papa, Trainer

M, N = 3, 22
RNG = np.random.default_rng(0)
DATA = (RNG.normal(size=(N, 4)).astype(np.float32), RNG.integers(0, 3, N).astype(np.int32))
START = {"w": RNG.normal(size=(M, 4, 3)).astype(np.float32), "b": np.zeros((M, 3), np.float32)}
MASK = {"w": RNG.random((M, 4, 3)) < 0.6, "b": np.ones((M, 3), bool)}


def network(params, inputs):
    return inputs @ params["w"] + params["b"][None]


def trained(papa, start, keys, how="map", mask=MASK, epochs=2):
    trainer = Trainer(network, optax.sgd(0.1), 4, how, papa=papa)
    return ensemble.train_ensemble(trainer, ensemble.init_ensemble(trainer, start, keys, mask), *DATA, epochs)


def by_numpy(papa, start, keys, epochs=2):
    """Every member's steps of SGD written out, and the pull."""
    params, keep = ({k: np.array(v) for k, v in tree.items()} for tree in (start, MASK))
    for epoch in range(epochs):
        orders = [np.asarray(ensemble.batch_indices(key, epoch, N, 4)[0]) for key in keys]
        for s in range(6):
            for i in range(M):
                chosen = orders[i][s][: N - 4 * s]
                x, y = DATA[0][chosen], DATA[1][chosen]
                scores = x @ params["w"][i] + params["b"][i]
                p = np.exp(scores - scores.max(1, keepdims=True))
                error = (p / p.sum(1, keepdims=True) - np.eye(3)[y]) / len(y)
                params["w"][i] -= 0.1 * keep["w"][i] * (x.T @ error)
                params["b"][i] -= 0.1 * error.sum(0)
            if (s + 1) % papa.every == 0:
                for name in params:
                    mean = params[name].mean(0)
                    params[name] += keep[name] * papa.rate * (mean - params[name])
    return params


@pytest.mark.parametrize("how", ["map", *(pytest.param(how, marks=pytest.mark.slow) for how in ("vmap", "loop"))])
def test_the_rule_and_its_anchors(how):
    keys, papa = jax.random.split(jax.random.key(1), M), Papa(4, 0.3)
    members, history = trained(papa, START, keys, how)
    expected = by_numpy(papa, START, keys)
    for name in START:
        np.testing.assert_allclose(members.params[name], expected[name], atol=2e-6)
        assert np.array_equal(np.asarray(members.params[name])[~MASK[name]], START[name][~MASK[name]])  # bit for bit
    assert np.asarray(history[-1].count).tolist() == [N] * M


def test_equal_networks_are_what_they_would_be_alone():
    same = {k: np.repeat(v[:1], M, 0) for k, v in START.items()}
    mask = {k: np.repeat(v[:1], M, 0) for k, v in MASK.items()}
    keys = jax.random.split(jax.random.key(1), 1)[jnp.zeros(M, int)]
    alone, _ = trained(None, same, keys, mask=mask)
    pulled, _ = trained(Papa(1, 0.7), same, keys, mask=mask)
    assert jax.tree.all(jax.tree.map(np.array_equal, pulled.params, alone.params))


@pytest.mark.slow
def test_a_pull_by_itself():
    soft = {"w": np.where(MASK["w"], np.float32(1), np.float32(0.5)), "b": np.ones((M, 3), np.float32)}
    params = jax.tree.map(jnp.asarray, START)
    halfway = np.asarray(ensemble.pull(Papa(1, 0.5), params, soft)["w"])
    share = 0.5 * soft["w"]
    np.testing.assert_allclose(halfway, (1 - share) * START["w"] + share * START["w"].mean(0), atol=1e-6)
    average = ensemble.pull(Papa(1, 1.0), params, jax.tree.map(jnp.ones_like, MASK))["w"]
    np.testing.assert_allclose(average, np.repeat(START["w"].mean(0)[None], M, 0), atol=1e-6)


@pytest.mark.parametrize("how", ["map", "loop"])
def test_frozen_leaves_are_not_pulled(how):
    """They differ between members here, and their masks are `True`."""
    start = START | {"b": RNG.normal(size=(M, 3)).astype(np.float32)}
    trainer = Trainer(network, optax.sgd(0.1), 4, how, papa=Papa(2, 0.5), freeze="b")
    members = ensemble.init_ensemble(trainer, start, jax.random.split(jax.random.key(1), M))
    found = ensemble.train_ensemble(trainer, members, *DATA, 1)[0].params
    assert np.asarray(found["b"]).tobytes() == start["b"].tobytes()
    spread = [np.asarray(w).std(0).max() for w in (found["w"], start["w"])]
    assert spread[0] < 0.5 * spread[1]  # the others are


def test_what_it_is_not_for():
    for fields in ({"every": 0}, {"every": 1.5}, {"rate": 1.5}, {"rate": -0.1}):
        with pytest.raises(ValueError, match=next(iter(fields))):
            Papa(**fields)
    trainer = Trainer(network, optax.sgd(0.1), 4, papa=Papa())
    members = ensemble.init_ensemble(
        trainer, {k: v[:2] for k, v in START.items()}, jax.random.split(jax.random.key(0), 2)
    )
    on_two = placement.shard(members, placement.mesh(jax.devices()[:2]))
    with pytest.raises(ValueError, match="stay on one device, but these lie on 2"):
        ensemble.train_epoch(trainer, on_two, *DATA, 0)
