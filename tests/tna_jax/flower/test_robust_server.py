"""The deployed server's median and private mean: the simulation's rule, on what came over the wire."""

import jax
import numpy as np
import optax
import pytest

from tests.tna_jax.flower.tasks import task
from tna_jax.federated import SERVERS, Privacy, Schedule, ServerRule
from tna_jax.flower import client as flower_client
from tna_jax.flower.server import Coordinator
from tna_jax.flower.store import Store


def rounds(job, folder, count=2, wanted=lambda coordinator, answers: answers):
    coordinator = Coordinator(job)
    clients = range(job.federation.clients)
    for client in clients:
        assert coordinator.admit(flower_client.introduce(job, client)) == (client, [])
    for _ in range(count):
        answers = {k: flower_client.train(job, k, Store(folder, k), coordinator.request(k)) for k in clients}
        yield (
            coordinator,
            coordinator.server,
            coordinator.broadcast,
            coordinator.finish_round(wanted(coordinator, answers)),
        )


def with_server(rule):
    return task(Schedule("pfn", 0.4), server=rule)


@pytest.mark.slow
def test_the_median_is_that_of_the_moves_and_bears_a_client_that_is_missing(tmp_path):
    job = with_server(SERVERS["median"]())
    clients = job.federation.clients
    for coordinator, before, sent, outcome in rounds(job, tmp_path):
        assert outcome.accepted == list(range(clients)) and outcome.stepped
        for live, a, b in zip(
            *map(jax.tree.leaves, (sent.mask, before.params, coordinator.server.params)), strict=True
        ):
            assert np.asarray(a)[~np.asarray(live)].tobytes() == np.asarray(b)[~np.asarray(live)].tobytes()
    missing = with_server(SERVERS["median"]())
    drop = lambda coordinator, answers: {**answers, 0: "gone"}  # noqa: E731
    (_, _, _, outcome), *_ = rounds(missing, tmp_path / "other", 1, drop)
    assert outcome.accepted == list(range(1, clients)) and outcome.stepped


def test_a_private_server_makes_a_step_of_noise_where_no_client_was_drawn_or_none_is_accepted():
    """Else the model tells that nobody took part."""
    job = with_server(ServerRule(optax.sgd(1.0), privacy=Privacy(clip=0.1, noise=1.0, expected=2)))
    for answers in ({}, {0: "gone"}):
        coordinator = Coordinator(job, min_replies=2)
        before, sent = coordinator.server, coordinator.broadcast
        outcome = coordinator.finish_round(answers)
        assert outcome.stepped and not outcome.accepted and coordinator.phases.tolist() == [True, False]
        for live, a, b in zip(
            *map(jax.tree.leaves, (sent.mask, before.params, coordinator.server.params)), strict=True
        ):
            np.testing.assert_array_equal(np.asarray(a) != np.asarray(b), np.asarray(live))


@pytest.mark.slow
def test_the_noise_of_a_private_server_does_not_follow_from_the_seed(tmp_path):
    after = []
    for name in ("one", "two"):
        private = Privacy(clip=0.1, noise=1.0, expected=2)
        job = with_server(ServerRule(optax.sgd(1.0), privacy=private))
        (coordinator, before, sent, outcome), *_ = rounds(job, tmp_path / name, 1)
        assert outcome.stepped
        after.append(coordinator.server.params)
    for live, start, a, b in zip(*map(jax.tree.leaves, (sent.mask, before.params, *after)), strict=True):
        live = np.asarray(live)
        assert (np.asarray(a) != np.asarray(b))[live].all()
        assert np.asarray(a)[~live].tobytes() == np.asarray(start)[~live].tobytes()
