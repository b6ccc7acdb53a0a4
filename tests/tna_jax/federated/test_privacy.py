"""Clipping, noise on live entries alone, the chance of taking part; the accountant against the closed form."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.parameters import slow
from tna_jax import federated
from tna_jax.federated import Federation, Scaffold, Schedule, ServerRule, aggregate, privacy, simulation, stack
from tna_jax.federated.algorithm import ClientUpdate
from tna_jax.federated.faults import NO_FAULTS, sample_clients
from tna_jax.federated.partition import padded
from tna_jax.federated.privacy import Privacy
from tna_jax.metrics import zero


def test_sums_are_of_clipped_moves_and_only_live_entries_get_noise():
    size, expected = 4000, 2.5
    private = Privacy(clip=1.0, noise=2.0, expected=expected)
    federation = Federation(lambda p, x: x, 4, 2, server=ServerRule(optax.sgd(1.0), privacy=private))
    server = federated.init_server(federation, {"w": jnp.zeros(size)})
    sent = federated.broadcast(federation, server, Schedule("pfn", 0.4), jax.random.key(0), 0, 0.1)
    mask = np.asarray(sent.mask["w"])
    moves = np.random.default_rng(0).normal(size=(3, size)).astype(np.float32) * mask  # norms of about 49
    moves[2] *= 0.01 / np.linalg.norm(moves[2])  # below the clip: as it is
    made = [
        ClientUpdate({"w": m}, (), (), np.array([3, 0], np.int32), np.float32(9 + i), zero())
        for i, m in enumerate(moves)
    ]
    sums = aggregate(federation, sent, stack(made), jnp.ones(3, bool))
    clipped = moves * np.minimum(1, 1 / np.linalg.norm(moves, axis=1))[:, None]
    np.testing.assert_allclose(sums.total["delta"]["w"], clipped.sum(0), atol=1e-6)
    after = np.asarray(federated.server_update(federation, server, sent, sums, jax.random.key(5)).params["w"])
    noise = after * expected - clipped.sum(0)
    assert not after[~mask].any() and (~mask).mean() > 0.3
    assert noise[mask].std() == pytest.approx(2.0, rel=0.05) and abs(noise[mask].mean()) < 0.15
    again = np.asarray(federated.server_update(federation, server, sent, sums, jax.random.key(6)).params["w"])
    assert (after != again)[mask].all()


def test_what_is_not_covered_is_refused():
    rule = ServerRule(optax.sgd(1.0), privacy=Privacy(1.0, 1.0, 10))
    with pytest.raises(ValueError, match="SCAFFOLD averages more than clipped moves"):
        Federation(lambda p, x: x, 4, 2, Scaffold(), rule)
    for field in dataclasses.fields(Privacy):
        with pytest.raises(ValueError, match=f"{field.name} must be above 0"):
            dataclasses.replace(rule.privacy, **{field.name: 0.0})


@pytest.mark.parametrize("kind", ["pfn", *slow("pnu", "none")])
def test_a_round_without_a_client_has_noise_on_the_same_entries_as_any_other(small, kind):
    """Else the model says that nobody took part. Under `pnu` a client of one step has one phase: noise does not tell that either."""
    rule = ServerRule(optax.sgd(1.0), privacy=Privacy(clip=0.1, noise=1.0, expected=0.4))
    federation = small.federation(server=rule, placement="map", epochs=1, batch_size=16)
    server, moved = federated.init_server(federation, small.params), {}
    states, clients = simulation.init_client_states(federation, server), padded(small.rows)
    for participation in (1e-6, 1.0):
        after, outcome = simulation.simulate_round(
            federation,
            Schedule(kind, 0.4),
            small.root,
            0,
            server,
            states,
            clients,
            small.x,
            small.y,
            0.1,
            participation=participation,
        )
        assert outcome.stepped and outcome.accepted == len(outcome.turnout.sampled) == (4 if participation == 1 else 0)
        moved[participation] = jax.tree.map(lambda a, b: np.asarray(a) != np.asarray(b), after.params, server.params)
    mask = federated.broadcast(federation, server, Schedule(kind, 0.4), small.root, 0, 0.1).mask
    for nobody, all_, live in zip(*map(jax.tree.leaves, (*moved.values(), mask)), strict=True):
        np.testing.assert_array_equal(nobody, all_)
        np.testing.assert_array_equal(nobody, np.asarray(live) if kind == "pfn" else np.ones_like(nobody))


def test_each_client_takes_part_by_itself():
    counts = [len(sample_clients(jax.random.key(1), i, 400, 0.1, NO_FAULTS, poisson=True).sampled) for i in range(30)]
    assert np.mean(counts) == pytest.approx(40, abs=4) and np.std(counts) == pytest.approx(6, abs=2.5)
    assert {len(sample_clients(jax.random.key(1), i, 400, 0.1, NO_FAULTS).sampled) for i in range(3)} == {40}


def gaussian_delta(epsilon: float, sigma: float) -> float:
    """Of the Gaussian mechanism (Balle and Wang 2018, theorem 8)."""

    def phi(x):
        return math.erfc(-x / math.sqrt(2)) / 2

    return phi(0.5 / sigma - epsilon * sigma) - math.exp(epsilon) * phi(-0.5 / sigma - epsilon * sigma)


def test_epsilon_is_that_of_the_literature():
    pytest.importorskip("dp_accounting")
    found = privacy.epsilon(10.0, 1.0, 25, 1e-5)  # 25 times 10 is once 2
    assert gaussian_delta(found, 2.0) == pytest.approx(1e-5, rel=0.02)
    # DP-SGD's tutorial of TensorFlow Privacy (60,000 examples, batches of 256, noise 1.1, 60 epochs): 2.6 by Renyi accounting, 2.4 exactly
    assert privacy.epsilon(1.1, 256 / 60_000, 60 * 60_000 // 256, 1e-5) == pytest.approx(2.38, abs=0.02)
    assert privacy.epsilon(1.0, 0.1, 50, 1e-5) > privacy.epsilon(1.0, 0.1, 10, 1e-5)  # rounds add up


@pytest.mark.parametrize("dtype", [jnp.bfloat16, *slow(jnp.float32)])
def test_a_clipped_move_of_any_type_has_a_norm_of_at_most_the_clip(lenient, dtype):
    """Rounded to 16 bits after clipping it had a larger one: more than the noise is for."""
    federation = Federation(lambda p, x: x, 4, 2, server=ServerRule(optax.sgd(1.0), privacy=Privacy(1.0, 1.0, 4)))
    server = federated.init_server(federation, {"w": jnp.zeros(192, dtype)})
    sent = federated.broadcast(federation, server, Schedule(), jax.random.key(0), 0, 0.1)
    for value in np.linspace(10, 20, 6):
        move = {"w": jnp.full(192, value, dtype)}
        update = ClientUpdate(move, (), (), jnp.array([3, 0]), jnp.float32(9), zero())
        total = aggregate(federation, sent, stack([update]), jnp.ones(1, bool)).total["delta"]["w"]
        assert np.linalg.norm(np.asarray(total, np.float64)) == pytest.approx(1, abs=1e-6)


def test_both_parts_of_a_complex_number_get_noise():
    total, rule = {"w": jnp.zeros(4000, jnp.complex64)}, Privacy(1.0, 2.0, 1)
    noisy = np.asarray(privacy.noise(rule, jax.random.key(0), total, {"w": jnp.arange(4000) < 3000})["w"])
    assert not noisy[3000:].any()
    for part in (noisy[:3000].real, noisy[:3000].imag):
        assert part.std() == pytest.approx(2, rel=0.05)
    assert abs(np.corrcoef(noisy[:3000].real, noisy[:3000].imag)[0, 1]) < 0.06


def test_an_epsilon_of_numbers_out_of_range_is_refused():
    """Before the package is asked: a participation of 40 was taken for all clients."""
    for numbers, words in (
        ((1.0, 40, 10, 1e-5), "participation"),
        ((0.0, 0.1, 10, 1e-5), "noise_multiplier above 0"),
        ((1.0, 0.1, 2.5, 1e-5), "rounds a whole number"),
        ((1.0, 0.1, 0, 2.0), r"rounds a whole number, at least 1, delta in \(0, 1\)"),
    ):
        with pytest.raises(ValueError, match=f"epsilon needs {words}"):
            privacy.epsilon(*numbers)
