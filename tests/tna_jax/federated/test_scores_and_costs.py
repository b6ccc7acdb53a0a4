"""Clients' scores, fine-tuned models, and what a federation costs, each against a few lines of NumPy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tna_jax.federated.conftest import CLASSES, INPUTS, linear
from tna_jax import federated, networks
from tna_jax.federated import ORDER, Schedule, costs, evaluation, personalization, stream
from tna_jax.federated.evaluation import TestSet, by_client, evaluate, evaluate_examples
from tna_jax.federated.partition import dealt_like, padded
from tna_jax.federated.simulation import init_client_states


def test_each_client_is_scored_on_its_own_examples():
    hits = np.array([True, False, True, True, False, True])
    scores = by_client(hits, np.array([0, 0, 1, 1, 1, -1]), 4)
    assert scores.accuracy[:2].tolist() == [0.5, pytest.approx(2 / 3)] and np.isnan(scores.accuracy[2:]).all()
    assert scores.mean == pytest.approx(7 / 12) and scores.worst == 0.5
    assert scores.std == pytest.approx(np.std([0.5, 2 / 3], ddof=1))
    assert np.isnan(by_client(hits, np.full(6, -1), 4).mean)
    many = by_client(np.arange(40) >= 6, np.arange(40), 40)  # the worst tenth are 4 of the 6 that fail
    assert (many.mean, many.worst) == (0.85, 0.0)


def test_what_is_right_is_known_example_by_example(small):
    federation = small.federation()
    server = federated.init_server(federation, small.params)
    states = init_client_states(federation, server)
    test = TestSet(small.x, small.y, batch_size=2)
    sums, hits = evaluate_examples(federation, server, states, test)
    assert (hits == (np.asarray(linear(small.params, small.x)).argmax(-1) == small.y)).all()
    assert float(sums.correct) == hits.sum() and float(
        evaluate(federation, server, states, test).accuracy
    ) == pytest.approx(hits.mean())


class Two(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(CLASSES, name="last")(nn.relu(nn.Dense(5, name="first")(x)))


@pytest.mark.slow
def test_a_fine_tuned_head_moves_the_last_layer_alone_and_is_a_clients_round(small):
    net, init = networks.linen(Two(), (INPUTS,))
    params = init(jax.random.key(0))[0]
    live = personalization.head(Two(), params, (), jax.ShapeDtypeStruct((1, INPUTS), jnp.float32))
    assert jax.tree.map(bool, live) == {
        "first": {"bias": False, "kernel": False},
        "last": {"bias": True, "kernel": True},
    }
    federation = federated.Federation(net, 4, CLASSES, federated.Scaffold(), batch_size=4, placement="map")
    server = federated.init_server(federation, params)
    states = init_client_states(federation, server)
    models = {}
    tuned = personalization.fine_tune(
        federation, server, states, padded(small.rows), small.x, small.y, small.root, 7, 0.1, live=live, group=8
    )
    for clients, stacked, _ in tuned:
        models |= {int(k): jax.tree.map(lambda x, i=i: x[i], stacked) for i, k in enumerate(clients)}
    assert sorted(models) == [0, 1, 2, 3]
    plain = federated.Federation(net, 4, CLASSES, batch_size=4, placement="map")
    sent = federated.broadcast(plain, federated.init_server(plain, params), Schedule(), small.root, 0, 0.1)._replace(
        mask=live
    )
    key = stream(small.root, ORDER, 7, 1)
    state = federated.init_client_state(plain, server)
    update, _ = federated.train_client(plain, sent, state, small.x[small.rows[1]], small.y[small.rows[1]], key)
    for name in ("first", "last"):
        for leaf in params[name]:
            np.testing.assert_allclose(
                models[1][name][leaf], np.asarray(params[name][leaf] + update.delta[name][leaf]), atol=1e-6
            )
    assert (models[1]["first"]["kernel"] == np.asarray(params["first"]["kernel"])).all()
    assert (models[1]["last"]["kernel"] != np.asarray(params["last"]["kernel"])).any()
    with pytest.raises(ValueError, match="runs no dense layer"):
        personalization.head(
            nn.Conv(1, (1,)), {"kernel": np.zeros((1, 1, 1)), "bias": np.zeros(1)}, (), np.zeros((1, 4, 1), np.float32)
        )


def test_bytes_are_those_of_the_wire():
    """Two clients, four rounds; 100 bytes up and down, a message of 10, state of 1."""
    asked = np.array([[1, 1], [1, 0], [1, 1], [1, 1]], bool)
    answered = np.array([[1, 1], [1, 0], [1, 0], [1, 1]], bool)
    live = np.array([0.6, 0.5, 1.0, 0.6])
    found = costs.of_rounds(costs.Payload(110, 100, 10, 1), live, asked, answered, np.full((4, 2), 3))
    np.testing.assert_allclose(found.up, [2 * (66 + 1), 55 + 1, 110 + 1, 2 * (66 + 1)])
    first = 2 * (1 + 100 + 6)  # nobody has the model yet
    second = 1 + 60 + 5  # what was live in the first round
    third = (1 + 50 + 10) + (1 + 100 + 10)  # the other client has missed a round
    fourth = (1 + 100 + 6) + (1 + 100 + 6)  # all was live; it has not answered
    np.testing.assert_allclose(found.down, [first, second, third, fourth])
    assert found.steps.tolist() == [6, 3, 3, 6]
    assert (
        costs.first_round(np.array([0.1, 0.5, 0.4, 0.6]), 0.5) == 1 and costs.first_round(np.array([0.1]), 0.5) is None
    )


def test_a_test_set_that_does_not_fit_is_refused(small):
    short = jnp.asarray(small.x[:-3])  # of these JAX would take the last row again
    for inputs, labels, batch, message in (
        (short, small.y, 500, "inputs but targets of shape"),
        (small.x, small.y[:-3], 500, "inputs but targets of shape"),
        (small.x[:0], small.y[:0], 500, "no examples"),
        (small.x, small.y, 0, "batch_size"),
        (small.x.tolist(), small.y, 500, "lists of numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            TestSet(inputs, labels, batch)


def test_held_out_labels_that_are_none_are_refused():
    counts = np.array([[5, 0], [1, 3]])
    for labels, message in (
        ([0, 2], "2 classes"),
        ([-1, 0], "below 0"),
        ([[0], [1]], "labels of shape"),
        ([0.5], "int"),
    ):
        with pytest.raises(ValueError, match=message):
            dealt_like(jax.random.key(0), counts, np.array(labels))


def test_fine_tuning_refuses_what_a_round_refuses(small):
    """JAX would take the last row for one that is not there."""
    federation = small.federation()
    server = federated.init_server(federation, small.params)
    states, clients = init_client_states(federation, server), padded(small.rows)
    beyond = clients._replace(indices=clients.indices + 9)
    fewer = clients._replace(indices=clients.indices[:3], count=clients.count[:3])
    for dealt, labels, options, message in (
        (beyond, small.y, {}, "was it made for other data"),
        (fewer, small.y, {}, "the federation has 4 clients, the partition or their states are of 3"),
        (clients, small.y[:-2], {}, "inputs but labels of shape"),
        (clients, small.y + 1, {}, "there are 3 classes"),
        (clients, small.y, {"group": 0}, "a group has 1 or more clients, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            list(
                personalization.fine_tune(
                    federation, server, states, dealt, small.x, labels, small.root, 0, 0.1, **options
                )
            )


def test_scores_of_labels_and_owners_that_do_not_fit_are_refused(small):
    """A column of labels was compared with every prediction, an owner beyond the clients made one client more."""
    federation, x, y = small.federation(), small.x[:6], small.y[:6]
    alone = evaluation.accuracy_of(federation, small.params, (), x, y, 8)
    assert alone == pytest.approx(np.mean(np.argmax(linear(small.params, x), 1) == y))
    for labels, rows, message in (
        (y[:, None], 8, "labels of shape"),
        (y - 9, 8, "below 0"),
        (y, 4, "do not fit into 4 rows"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluation.accuracy_of(federation, small.params, (), x, labels, rows)
    for owners in ([0, 2], [0, 1, 1]):
        with pytest.raises(ValueError, match="an owner below 2 for each of 2 examples"):
            by_client(np.array([True, False]), np.array(owners), 2)
