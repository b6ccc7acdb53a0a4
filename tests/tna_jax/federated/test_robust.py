"""Robust servers against NumPy under 20 % hostile clients, in simulation and by single updates; anchors stay, bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import slow_but
from tna_jax import federated
from tna_jax.federated import (
    SERVERS,
    Federation,
    Scaffold,
    Schedule,
    aggregate,
    aggregation,
    robust,
    servers,
    stack,
    stream,
)  # fmt: skip
from tna_jax.federated.algorithm import ClientUpdate
from tna_jax.federated.faults import Faults
from tna_jax.federated.partition import padded
from tna_jax.federated.robust import Krum, NormBound
from tna_jax.federated.simulation import init_client_states, simulate_round
from tna_jax.metrics import zero

RNG = np.random.default_rng(0)
HONEST, HOSTILE = 12, 3


def bounded(rows, examples):
    norms = np.sqrt((rows**2).sum(1))
    return (rows * np.minimum(1, 0.5 / norms)[:, None]).mean(0)


def trimmed(rows, examples):
    cut = int(np.ceil(0.2 * len(rows)))
    return np.sort(rows, 0)[cut : len(rows) - cut].mean(0)


def krum(rows, examples, keep=1):
    near = np.sort(((rows[:, None] - rows[None]) ** 2).sum(2), 1)[:, 1:]  # without itself
    score = near[:, : len(rows) - int(np.ceil(0.2 * len(rows))) - 2].sum(1)
    return rows[np.argsort(score, kind="stable")[:keep]].mean(0)


RULES = {
    "norm-bound": (SERVERS["norm-bound"](bound_at=0.5), bounded),
    "median": (SERVERS["median"](), lambda rows, examples: np.median(rows, 0)),
    "trimmed-mean": (SERVERS["trimmed-mean"](share=0.2), trimmed),
    "krum": (SERVERS["krum"](share=0.2), krum),
    "multi-krum": (SERVERS["krum"](share=0.2, keep=4), lambda rows, examples: krum(rows, examples, 4)),
    "mean": (SERVERS["mean"](), lambda rows, examples: (rows * examples[:, None]).sum(0) / examples.sum()),
}


def updates(mask):
    """15 updates of 12 + 3 numbers, the last 3 hostile, which move anchors too; and one that is not accepted."""
    rows = np.concatenate(
        [RNG.normal(0.1, 0.05, (HONEST, 15)), RNG.normal(-5, 1, (HOSTILE, 15)), np.full((1, 15), np.nan)]
    )
    rows[:HONEST] *= mask[None]
    rows = rows.astype(np.float32)
    examples = np.arange(5, 5 + len(rows)).astype(np.float32)
    made = [
        ClientUpdate({"w": row[:12].reshape(4, 3), "b": row[12:]}, (), (), np.array([3, 0], np.int32), n, zero())
        for row, n in zip(rows, examples, strict=True)
    ]
    return rows, examples, stack(made), jnp.arange(len(rows)) < HONEST + HOSTILE


@pytest.mark.parametrize("name", slow_but(["median", "krum"], RULES))
def test_a_rule_is_its_numpy_under_hostile_clients_and_moves_no_anchor(small, name):
    rule, reference = RULES[name]
    federation = small.federation(server=rule)
    server = federated.init_server(federation, small.params)
    sent = federated.broadcast(federation, server, Schedule("pfn", 0.4), small.root, 0, 0.1)
    mask = np.concatenate([np.asarray(sent.mask[name]).ravel() for name in ("w", "b")])
    rows, examples, stacked, accepted = updates(mask)
    sums = aggregate(federation, sent, stacked, accepted)
    after = federated.server_update(federation, server, sent, sums, stream(small.root, federated.DISTIL, 0))
    expected = reference(rows[: HONEST + HOSTILE].astype(np.float64), examples[: HONEST + HOSTILE])
    before, now = (
        np.concatenate([np.asarray(p["w"]).ravel(), np.asarray(p["b"])]) for p in (small.params, after.params)
    )
    np.testing.assert_allclose((now - before)[mask], expected[mask], atol=2e-6)
    assert now[~mask].tobytes() == before[~mask].tobytes() and not mask.all()
    if name not in ("mean", "norm-bound"):
        assert np.abs(expected - 0.1)[mask].max() < 0.2  # where the honest ones are
    elif name == "mean":
        assert expected[mask].max() < -0.5  # the control


@pytest.mark.parametrize("name", slow_but(["trimmed-mean"], RULES))
@pytest.mark.slow
def test_a_simulation_in_groups_is_single_clients(small, name):
    """SCAFFOLD, whose variates go through the rule too; -10 times the move of a client."""
    federation = small.federation(server=RULES[name][0], algorithm=Scaffold(), placement="map")
    server, schedule = federated.init_server(federation, small.params), Schedule("pfn", 0.4)
    states, clients = init_client_states(federation, server), padded(small.rows)
    attack = Faults(hostile=(1,))
    after, outcome = simulate_round(
        federation, schedule, small.root, 0, server, states, clients, small.x, small.y, 0.1, faults=attack, group=1
    )
    sent = federated.broadcast(federation, server, schedule, small.root, 0, 0.1)
    fresh = federated.init_client_state(federation, server)
    made = []
    for k, rows in enumerate(small.rows):
        key = stream(small.root, federated.ORDER, 0, k)
        update, _ = federated.train_client(federation, sent, fresh, small.x[rows], small.y[rows], key)
        factor = -10 if k == 1 else 1
        made.append(update._replace(delta=jax.tree.map(lambda d, factor=factor: factor * d, update.delta)))
    sums = aggregate(federation, sent, stack(made), jnp.ones(4, bool))
    expected = federated.server_update(federation, server, sent, sums, stream(small.root, federated.DISTIL, 0))
    assert outcome.accepted == 4
    for a, b in zip(
        *map(jax.tree.leaves, ((after.params, after.extra), (expected.params, expected.extra))), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_rules_say_what_they_take():
    for make, words in (
        (lambda: Krum(share=0.5), r"\[0, 0.5\)"),
        (lambda: Krum(keep=0), "at least 1"),
        (lambda: NormBound(0.0), "above 0"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
    with pytest.raises(ValueError, match="distillation and robust"):
        servers.ServerRule(servers.MEAN.optimizer, servers.Distillation(), robust=Krum())
    assert SERVERS["median"]() == SERVERS["median"]()  # one program for equal rules
    assert aggregation.combines(Federation(lambda p, x: x, 1, 2, server=SERVERS["krum"]()))


@pytest.mark.parametrize("size", [1e19, 3e38])
@pytest.mark.parametrize("keep", [1, 4])
def test_krum_leaves_out_updates_whose_distances_overflow(size, keep):
    """Each is finite, and so accepted; its squared distances to all others are infinite in float32."""
    rows = RNG.normal(0.1, 0.05, (7, 5)).astype(np.float32)
    rows[2], rows[5] = size, -size
    accepted = np.array([True] * 6 + [False])
    chosen = Krum(0.34, keep).combine({"delta": {"w": jnp.asarray(rows)}}, jnp.asarray(accepted))["delta"]["w"]
    honest = rows[[0, 1, 3, 4]]
    near = np.sort(((honest[:, None] - honest[None]) ** 2).sum(2), 1)[:, 1]  # the nearest one: 6 - 3 - 2
    np.testing.assert_allclose(chosen, honest[np.argsort(near)[:keep]].mean(0), atol=1e-6)


def test_krum_of_one_update_and_of_updates_that_all_lie_beyond_float32_keeps_one_that_was_accepted():
    rows = np.array([[9.0, 9.0], [3e38, 3e38], [-3e38, 0], [0, -3e38]], np.float32)
    for accepted in ([False, True, False, False], [False, True, True, True]):
        chosen = Krum().combine({"delta": {"w": jnp.asarray(rows)}}, jnp.asarray(accepted))["delta"]["w"]
        assert np.asarray(chosen).tolist() == rows[1].tolist()


def test_rules_take_a_complex_number_as_its_two_parts():
    """Each rule on complex leaves is that rule on their real and imaginary parts."""
    rows = np.concatenate([RNG.normal(0.1, 0.05, (6, 8)), RNG.normal(-5, 1, (2, 8))]).astype(np.float32)
    accepted = jnp.arange(8) < 7
    for rule in (Krum(0.2, 2), servers.TrimmedMean(0.3), servers.Median()):
        real = rule.combine({"delta": {"w": jnp.asarray(rows)}}, accepted)["delta"]["w"]
        whole = rule.combine({"delta": {"w": jnp.asarray(rows[:, :4] + 1j * rows[:, 4:])}}, accepted)["delta"]["w"]
        np.testing.assert_allclose(np.concatenate([whole.real, whole.imag]), real, atol=1e-6)
    (bounded_one,) = jax.tree.leaves(robust.clipped({"w": jnp.array([3 + 4j, 12j])}, 1.0))
    np.testing.assert_allclose(bounded_one, np.array([3 + 4j, 12j]) / 13, rtol=1e-6)
