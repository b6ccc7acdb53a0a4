"""Federations of an objective other than classification; what needs classes refuses them by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import slow
from tna_jax import federated, objectives
from tna_jax.federated import ORDER, Federation, FedLC, Schedule, stream
from tna_jax.federated.evaluation import TestSet, evaluate
from tna_jax.federated.servers import feddf

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 3)).astype(np.float32)
DATA = {"x": X}, X.sum(1)


def network(params, inputs):
    return (inputs["x"] @ params["w"])[:, 0]


@pytest.mark.parametrize("placement", [*slow("map"), "loop"])
def test_a_client_of_a_regression_makes_plain_gradient_steps(placement):
    objective = objectives.regression()
    federation = Federation(network, 2, batch_size=12, epochs=3, objective=objective, placement=placement)
    params, root = {"w": jnp.zeros((3, 1))}, jax.random.key(0)
    server = federated.init_server(federation, params)
    sent = federated.broadcast(federation, server, Schedule(), root, 0, 0.1)
    state = federated.init_client_state(federation, server)
    update, _ = federated.train_client(federation, sent, state, *DATA, stream(root, ORDER, 0, 0))
    w = np.zeros((3, 1))
    for _ in range(3):
        w -= 0.1 * 2 * X.T @ (X @ w - DATA[1][:, None]) / 12
    np.testing.assert_allclose(update.delta["w"], w, rtol=1e-5)
    assert float(update.metrics.count) == 36
    accepted = jnp.array([True])
    aggregate = federated.aggregate(federation, sent, federated.stack([update]), accepted)
    server = federated.server_update(federation, server, sent, aggregate, stream(root, federated.DISTIL, 0))
    found = evaluate(federation, server, state, TestSet(*DATA, batch_size=5))
    np.testing.assert_allclose(found.value("absolute_error"), np.abs(X @ w - DATA[1][:, None]).mean(), rtol=1e-5)


def test_a_clients_step_follows_the_weighted_mean_however_small_the_weights():
    weight = np.full((12, 1), 2.0**-10, np.float32)
    objective = objectives.Objective(
        "weighted", lambda out, t: jnp.square(out - t["y"])[:, None], counted=lambda t: t["weight"]
    )
    federation = Federation(network, 1, batch_size=12, objective=objective)
    server = federated.init_server(federation, {"w": jnp.zeros((3, 1))})
    sent = federated.broadcast(federation, server, Schedule(), jax.random.key(0), 0, 0.1)
    state = federated.init_client_state(federation, server)
    targets = {"y": DATA[1], "weight": weight}
    update, _ = federated.train_client(federation, sent, state, DATA[0], targets, jax.random.key(1))
    np.testing.assert_allclose(update.delta["w"], 0.1 * 2 * X.T @ DATA[1][:, None] / 12, rtol=1e-5)


def test_what_needs_classes_refuses_other_objectives_by_name():
    with pytest.raises(
        ValueError, match="FedLC and FedDF is defined for classification only, the objective is regression"
    ):
        Federation(network, 2, algorithm=FedLC(), server=feddf(), objective=objectives.regression())
    with pytest.raises(ValueError, match="num_classes must be at least 1"):
        Federation(network, 2)
