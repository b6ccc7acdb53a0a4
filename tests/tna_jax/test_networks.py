"""Networks with state through the whole chain: ensembles in every placement, padding, paths, ends."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.parameters import slow
from tna_jax import connectivity, ensemble, masks, networks, repair
from tna_jax.connectivity.one_pass import batch_metrics
from tna_jax.connectivity.points import Line
from tna_jax.ensemble import Trainer

M, N, SIZE = 4, 50, 6


class Normed(nn.Module):
    """Two dense layers with BatchNorm between."""

    @nn.compact
    def __call__(self, x, train=False, weight=None):
        x = nn.Dense(8)(x)
        mask = None if weight is None else (weight > 0).reshape(-1, 1)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x, mask=mask)
        return nn.Dense(3)(nn.relu(x))


class Plain(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x)


class Odd(nn.Module):
    @nn.compact
    def __call__(self, x):
        self.variable("cache", "seen", lambda: jnp.zeros(()))
        return nn.Dense(3)(x)


NET, INIT = networks.linen(Normed(), (SIZE,), lambda x: x.astype(jnp.float32) / np.float32(16))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    return jax.device_put((rng.integers(0, 17, (N, SIZE)).astype(np.uint8), rng.integers(0, 3, N).astype(np.int32)))


@jax.jit  # one program for all that is drawn
def drawn():
    keys = jax.random.split(jax.random.key(0), M)
    params, state = jax.vmap(INIT)(keys)
    return keys, params, state, jax.vmap(lambda key, p: masks.bernoulli(key, p, 0.3))(keys, params)


def start(trainer: Trainer) -> ensemble.Members:
    keys, params, state, mask = drawn()
    return ensemble.init_ensemble(trainer, params, keys, mask, state=state)


def trained(placement: str, data, batch_size: int = 16, epochs: int = 2):
    trainer = Trainer(NET, optax.sgd(0.1, momentum=0.9), batch_size, placement)
    return ensemble.train_ensemble(trainer, start(trainer), *data, epochs)


@pytest.fixture(scope="module")
def members(data):
    return trained("map", data)[0]


def test_linen_tells_networks_with_state_from_those_without():
    plain, init = networks.linen(Plain(), (SIZE,))
    assert callable(plain)
    assert init(jax.random.key(0))[1] == ()
    assert isinstance(NET, networks.Stateful)
    with pytest.raises(ValueError, match="cache"):
        networks.linen(Odd(), (SIZE,))


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["loop", "vmap"])
def test_placements_agree_on_parameters_and_statistics(data, placement):
    """To rounding: sums over a batch are ordered differently in different programs."""
    one, other = (trained(which, data, epochs=1)[0] for which in ("map", placement))
    fresh = start(Trainer(NET, optax.sgd(0.1, momentum=0.9), 16))
    for a, b in zip(*(jax.tree.leaves((x.params, x.state)) for x in (one, other)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    moved = [
        not np.allclose(a, c, rtol=1e-3, atol=1e-4)
        for a, c in zip(*(jax.tree.leaves((x.params, x.state)) for x in (one, fresh)), strict=True)
    ]
    assert sum(moved) > 5


@pytest.mark.parametrize("placement", ["vmap", *slow("map", "loop")])
def test_anchors_do_not_move_a_bit(data, placement):
    trainer = Trainer(NET, optax.adamw(0.1, weight_decay=0.1), 16, placement)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # optax's own arithmetic
        before = start(trainer)
        after, _ = ensemble.train_ensemble(trainer, before, *data, 1)
    moved = 0
    for m, old, new in zip(*map(jax.tree.leaves, (before.mask, before.params, after.params)), strict=True):
        frozen = ~np.asarray(m)
        assert np.asarray(old)[frozen].tobytes() == np.asarray(new)[frozen].tobytes()
        moved += int(np.sum(np.asarray(old)[~frozen] != np.asarray(new)[~frozen]))
    assert moved > 100


@pytest.mark.slow
def test_padding_of_the_last_batch_does_not_enter_the_statistics(data):
    """50 examples in batches of 16 against the same order with a last batch of 2, by a plain loop."""
    inputs, labels = data
    trainer = Trainer(NET, optax.sgd(0.1, momentum=0.9), 16, "map")
    begin = start(trainer)
    found, _ = ensemble.train_ensemble(trainer, begin, *data, 1)
    own, step = ensemble.member(begin, 0), jax.jit(functools.partial(ensemble.train_step, trainer, padded=False))
    order = np.asarray(jax.random.permutation(jax.random.fold_in(own.data_keys, 0), N))
    for first in range(0, N, 16):
        part = order[first : first + 16]
        own, _ = step(own, inputs[part], labels[part], jnp.ones(len(part)))
    for a, b in zip(jax.tree.leaves(own.state), jax.tree.leaves(ensemble.member(found.state, 0)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)
    train = jax.jit(NET.train)
    ignoring = train(own.params, own.state, inputs[:16], jnp.ones(16))[1]
    masked = train(own.params, own.state, inputs[:16], (jnp.arange(16) < 5).astype(jnp.float32))[1]
    assert not np.allclose(jax.tree.leaves(ignoring)[0], jax.tree.leaves(masked)[0])  # the control: weights do matter


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["loop", "map", "vmap"])
def test_ends_keep_their_own_statistics_and_points_between_get_new_ones(data, members, placement):
    close = (
        np.testing.assert_array_equal
        if placement != "vmap"
        else lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5)
    )
    splits, alphas = {"train": data}, connectivity.grid(5)
    chosen = np.array([[0, 1], [2, 3], [1, 1]])
    path = connectivity.evaluate_paths(
        NET,
        members.params,
        chosen,
        alphas,
        splits,
        state=members.state,
        calibration=data[0],
        batch_size=20,
        placement=placement,
    )["train"].metrics.loss_sum
    alone = connectivity.evaluate(NET, members.params, splits, state=members.state, batch_size=20, placement=placement)[
        "train"
    ]
    close(path[:, 0], np.asarray(alone.loss_sum)[chosen[:, 0]])
    close(path[:, -1], np.asarray(alone.loss_sum)[chosen[:, 1]])
    close(path[2], np.full(5, path[2, 0]))  # from a model to itself: flat
    mixed = Line(chosen[0], jnp.float32(0.5)).params(members.params)
    evaluate = jax.jit(functools.partial(batch_metrics, NET))
    state = repair.reset_batch_stats(NET, mixed, ensemble.member(members.state, 0), data[0], batch_size=20)
    expected = evaluate(mixed, state, *data).loss_sum
    np.testing.assert_allclose(path[0, 2], expected, rtol=1e-4)
    stale = evaluate(mixed, ensemble.member(members.state, 0), *data).loss_sum
    assert abs(float(stale) / float(expected) - 1) > 1e-3  # the control: old statistics give other numbers


@pytest.mark.parametrize("placement", [*slow("map", "vmap"), "loop"])
@pytest.mark.slow
def test_mixtures_are_lines_where_two_weights_are_set_and_keep_a_single_members_statistics(data, members, placement):
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5)
    options = {"state": members.state, "calibration": data[0], "batch_size": 20, "placement": placement}
    weights = np.array([[0.75, 0.25, 0, 0], [0, 0, 1, 0], [0.25] * 4], np.float32)
    found = connectivity.evaluate_mixtures(NET, members.params, weights, {"train": data}, **options)["train"].loss_sum
    alone = connectivity.evaluate(
        NET, members.params, {"train": data}, state=members.state, batch_size=20, placement=placement
    )["train"].loss_sum
    alphas = np.array([0, 0.25, 0.5, 1], np.float32)
    line = connectivity.evaluate_paths(NET, members.params, [[0, 1]], alphas, {"train": data}, **options)["train"]
    close(found[0], line.metrics.loss_sum[0, 1])
    close(found[1], alone[2])
    assert abs(found[2] / alone.mean() - 1) > 1e-3  # the control: the average of all is none of them


@pytest.mark.slow
def test_a_network_with_state_needs_calibration_inputs(data, members):
    with pytest.raises(ValueError, match="calibration"):
        connectivity.evaluate_paths(
            NET, members.params, np.array([[0, 1]]), connectivity.grid(3), {"a": data}, state=members.state
        )


def test_a_state_of_the_wrong_length_is_named(data):
    trainer = Trainer(NET, optax.sgd(0.1), 16)
    keys, params, state, _ = drawn()
    with pytest.raises(ValueError, match="state.*mean.*(2, 8)"):
        ensemble.init_ensemble(trainer, params, keys, state=jax.tree.map(lambda x: x[:2], state))


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["map", "loop", "vmap"])
def test_augmentation_is_drawn_anew_each_step_and_alike_in_every_placement(data, placement):
    def noise(key, inputs):
        return inputs + jax.random.randint(key, inputs.shape, 0, 3).astype(inputs.dtype)

    def run(placement, augment):
        trainer = Trainer(NET, optax.sgd(0.1), 25, placement, augment)
        return ensemble.train_ensemble(trainer, start(trainer), *data, 2)[0].params

    reference, found, without = run("map", noise), run(placement, noise), run(placement, None)
    for a, b, c in zip(*map(jax.tree.leaves, (reference, found, without)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
        assert not np.allclose(b, c, rtol=1e-4)


def test_a_key_reaches_networks_that_draw_random_numbers_and_no_others():
    params, x, key = {"w": jnp.ones(())}, jnp.ones((4, 1)), jax.random.key(7)

    def plain(params, inputs):
        return inputs * params["w"]

    def noisy(params, inputs, key):
        return plain(params, inputs) + jax.random.normal(key, inputs.shape)

    four = networks.Stateful(lambda p, s, x, w: (plain(p, x), s + 1), lambda p, s, x: plain(p, x))
    five = networks.Stateful(lambda p, s, x, w, key: (noisy(p, x, key), s + 1), lambda p, s, x: plain(p, x), True)
    alone = networks.Stochastic(noisy, plain)
    for network, drawn in ((plain, False), (four, False), (five, True), (alone, True)):
        assert networks.wants_key(network) == drawn
        state = 1 if isinstance(network, networks.Stateful) else ()
        outputs, new = networks.train(network, params, state, x, None, key)
        np.testing.assert_array_equal(outputs, noisy(params, x, key) if drawn else x)
        assert new == (2 if state else ())
        np.testing.assert_array_equal(networks.evaluate(network, params, state, x), x)
        if drawn:
            with pytest.raises(ValueError, match="give a key for the step"):
                networks.train(network, params, state, x, None)
        else:
            np.testing.assert_array_equal(networks.train(network, params, state, x, None)[0], x)
