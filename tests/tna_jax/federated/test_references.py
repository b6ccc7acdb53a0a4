"""Every algorithm against itself written out in NumPy, float64, client by client and step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.parameters import slow
from tna_jax import federated
from tna_jax.federated import (
    DISTIL,
    ORDER,
    SERVERS,
    FedAvg,
    FedDyn,
    FedNova,
    FedProx,
    Scaffold,
    Schedule,
    ServerRule,
    aggregate,
    init_client_state,
    init_server,
    server_update,
    servers,
    stack,
    stream,
    train_client,
)
from tna_jax.federated import client as client_lib

RATE = 0.1


def gradient(p, x, y):
    """Of the mean cross-entropy of a softmax regression."""
    logits = x @ p["w"] + p["b"]
    q = np.exp(logits - logits.max(1, keepdims=True))
    q /= q.sum(1, keepdims=True)
    q[np.arange(len(y)), y] -= 1
    return {"w": x.T @ q / len(y), "b": q.mean(0)}


def tree(function, *trees):
    return {name: function(*(t[name] for t in trees)) for name in trees[0]}


def batches(small, federation, client, number):
    """The batches that a client sees in a round, in order."""
    rows, key = small.rows[client], stream(small.root, ORDER, number, client)
    for epoch in range(federation.epochs):
        order = np.asarray(client_lib.order(jax.random.fold_in(key, epoch), len(rows), len(rows)))
        for first in range(0, len(rows), federation.batch_size):
            own = rows[order[first : first + federation.batch_size]]
            yield small.x[own].astype(np.float64), small.y[own]


def descend(small, federation, client, number, w_g, term=lambda w: 0.0):
    """Local SGD with momentum and weight decay; `term(w)` is added to the gradient. Returns w and the number of steps."""
    w, velocity, steps = w_g, tree(np.zeros_like, w_g), 0
    for x, y in batches(small, federation, client, number):
        more = term(w)
        g = gradient(w, x, y)
        g = {n: g[n] + federation.weight_decay * w[n] + (more[n] if isinstance(more, dict) else 0) for n in w}
        velocity = tree(lambda v, g: federation.momentum * v + g, velocity, g)
        w, steps = tree(lambda w, v: w - RATE * v, w, velocity), steps + 1
    return w, steps


def ours(small, federation, rounds, kind="none", clients=range(4)):
    """The library, one client after the other; returns the servers after each round and what clients keep."""
    server = init_server(federation, small.params)
    client_states = {client: init_client_state(federation, server) for client in clients}
    for number in range(rounds):
        broadcast = federated.broadcast(federation, server, Schedule(kind), small.root, number, RATE)
        updates = []
        for client in clients:
            rows = small.rows[client]
            key = stream(small.root, ORDER, number, client)
            update, client_states[client] = train_client(
                federation, broadcast, client_states[client], small.x[rows], small.y[rows], key
            )
            updates.append(update)
        found = aggregate(federation, broadcast, stack(updates), jnp.ones(len(updates), bool))
        server = server_update(federation, server, broadcast, found, stream(small.root, DISTIL, number))
    return server, client_states


def start(small):
    return tree(lambda p: np.asarray(p, np.float64), small.params)


def assert_close(found, expected):
    for name in expected:
        np.testing.assert_allclose(np.asarray(found[name]), expected[name], rtol=0, atol=3e-6)


@pytest.mark.parametrize(("momentum", "decay"), [(0.9, 0.01), pytest.param(0.0, 0.0, marks=pytest.mark.slow)])
def test_fedavg_is_the_plain_average(small, momentum, decay):
    federation = small.federation(momentum=momentum, weight_decay=decay)
    server, _ = ours(small, federation, 3)
    w, total = start(small), sum(map(len, small.rows))
    for number in range(3):
        locals_ = [descend(small, federation, k, number, w)[0] for k in range(4)]
        w = tree(lambda *ws: sum(len(r) / total * v for r, v in zip(small.rows, ws, strict=True)), *locals_)
    assert_close(server.params, w)
    unweighted = tree(lambda *ws: np.mean(ws, axis=0), *locals_)
    assert np.abs(np.asarray(server.params["w"]) - unweighted["w"]).max() > 1e-4  # the control: sizes count


@pytest.mark.slow
def test_fedprox_adds_its_term_and_is_fedavg_without_it(small):
    federation = small.federation(algorithm=FedProx(mu=0.5))
    server, _ = ours(small, federation, 2)
    w, total = start(small), sum(map(len, small.rows))
    for number in range(2):
        locals_ = [
            descend(small, federation, k, number, w, lambda v, w=w: tree(lambda a, b: 0.5 * (a - b), v, w))[0]
            for k in range(4)
        ]
        w = tree(lambda *ws: sum(len(r) / total * v for r, v in zip(small.rows, ws, strict=True)), *locals_)
    assert_close(server.params, w)
    plain, _ = ours(small, small.federation(algorithm=FedProx(mu=0.0)), 2)
    assert_close(plain.params, ours(small, small.federation(algorithm=FedAvg()), 2)[0].params)


def test_scaffold_two_clients_two_steps_two_rounds(small):
    """Full batches, E = 2: two steps each. N = 4 clients, of which 0 and 1 take part."""
    federation = small.federation(algorithm=Scaffold(), batch_size=16)
    server, client_states = ours(small, federation, 2, clients=(0, 1))
    x, c = start(small), tree(np.zeros_like, start(small))
    own = {0: c, 1: c}
    for _ in range(2):
        delta, change = [], []
        for k in (0, 1):
            data = small.x[small.rows[k]].astype(np.float64), small.y[small.rows[k]]
            y1 = tree(lambda w, g, ck, c: w - RATE * (g - ck + c), x, gradient(x, *data), own[k], c)
            y2 = tree(lambda w, g, ck, c: w - RATE * (g - ck + c), y1, gradient(y1, *data), own[k], c)
            new = tree(lambda ck, c, x, y: ck - c + (x - y) / (2 * RATE), own[k], c, x, y2)
            delta.append(tree(np.subtract, y2, x))
            change.append(tree(np.subtract, new, own[k]))
            own[k] = new
        x = tree(lambda x, a, b: x + (a + b) / 2, x, *delta)
        c = tree(lambda c, a, b: c + 2 / 4 * (a + b) / 2, c, *change)
    assert_close(server.params, x)
    assert_close(server.extra, c)
    assert_close(client_states[1].memory, own[1])
    assert np.abs(c["w"]).max() > 1e-2


def test_feddyn_two_clients_two_steps_two_rounds(small):
    a = 0.3
    federation = small.federation(algorithm=FedDyn(alpha=a), batch_size=16)
    server, client_states = ours(small, federation, 2, clients=(0, 1))
    theta, h = start(small), tree(np.zeros_like, start(small))
    own = {0: h, 1: h}
    for _ in range(2):
        found = []
        for k in (0, 1):
            data = small.x[small.rows[k]].astype(np.float64), small.y[small.rows[k]]
            w = theta
            for _ in range(2):
                w = tree(lambda w, g, hk, t: w - RATE * (g - hk + a * (w - t)), w, gradient(w, *data), own[k], theta)
            own[k] = tree(lambda hk, w, t: hk - a * (w - t), own[k], w, theta)
            found.append(w)
        h = tree(lambda h, w0, w1, t: h - a * (2 / 4) * ((w0 - t) + (w1 - t)) / 2, h, *found, theta)
        theta = tree(lambda w0, w1, h: (w0 + w1) / 2 - h / a, *found, h)
    assert_close(server.params, theta)
    assert_close(server.extra, h)
    assert_close(client_states[0].memory, own[0])


@pytest.mark.slow
@pytest.mark.parametrize("momentum", [0.0, *slow(0.9)])
def test_fednova_two_clients_of_unlike_steps(small, momentum):
    """Client 1 has 12 examples and makes 6 steps, client 2 has 3 and makes 2."""
    federation = small.federation(algorithm=FedNova(), momentum=momentum)
    server, _ = ours(small, federation, 1, clients=(1, 2))
    w, p, normalised, weights = start(small), (12 / 15, 3 / 15), [], []
    for k, steps in ((1, 6), (2, 2)):
        y, made = descend(small, federation, k, 0, w)
        assert made == steps
        weights.append(
            sum(sum(momentum**j for j in range(steps - i)) for i in range(steps))
        )  # ||a_k||_1, gradient by gradient
        normalised.append(tree(lambda y, x, a=weights[-1]: (y - x) / a, y, w))
    effective = p[0] * weights[0] + p[1] * weights[1]
    w = tree(lambda x, a, b: x + effective * (p[0] * a + p[1] * b), w, *normalised)
    assert_close(server.params, w)
    plain, _ = ours(small, small.federation(momentum=momentum), 1, clients=(1, 2))
    assert np.abs(np.asarray(plain.params["w"]) - w["w"]).max() > 1e-3


def test_fednova_counts_for_an_entry_the_clients_in_whose_steps_it_was_live(small):
    """Client 1 makes 2 steps, one in each phase; client 2 one step, in the first: for the second phase client 1 is alone."""
    federation = small.federation(algorithm=FedNova(), epochs=1, batch_size=8)
    server = init_server(federation, small.params)
    broadcast = federated.broadcast(federation, server, Schedule("pnu", 0.5), small.root, 0, RATE)
    updates = []
    for k in (1, 2):
        rows, key = small.rows[k], stream(small.root, ORDER, 0, k)
        updates.append(
            train_client(
                federation, broadcast, init_client_state(federation, server), small.x[rows], small.y[rows], key
            )[0]
        )
    assert [update.steps.tolist() for update in updates] == [[1, 1], [1, 0]]
    after = server_update(
        federation, server, broadcast, aggregate(federation, broadcast, stack(updates), jnp.ones(2, bool)), small.root
    )
    for m, old, new, one, two in zip(
        *map(jax.tree.leaves, (broadcast.mask, server.params, after.params, updates[0].delta, updates[1].delta)),
        strict=True,
    ):
        expected = np.where(np.asarray(m), 12 / 15 * one + 3 / 15 * two, 12 / 15 * np.asarray(one))
        np.testing.assert_allclose(np.asarray(new) - np.asarray(old), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["pnu", "pnu-rounds"])
def test_decay_reaches_live_entries_alone_and_so_does_its_momentum(small, kind):
    """Written out step by step: an entry's momentum starts when it comes to life."""
    federation = small.federation(momentum=0.9, weight_decay=0.3)
    server = init_server(federation, small.params)
    broadcast = federated.broadcast(federation, server, Schedule(kind, 0.5), small.root, 0, RATE)
    rows, key = small.rows[1], stream(small.root, ORDER, 0, 1)
    update, _ = train_client(
        federation, broadcast, init_client_state(federation, server), small.x[rows], small.y[rows], key
    )
    w, mask = start(small), {name: np.asarray(m) for name, m in broadcast.mask.items()}
    velocity, (first, second) = tree(np.zeros_like, w), update.steps.tolist()
    assert first and bool(second) == (kind == "pnu")
    for number, (x, y) in enumerate(batches(small, federation, 1, 0)):
        live = tree(lambda m, n=number: m ^ (n >= first), mask)
        g = tree(lambda g, w, m: m * (g + 0.3 * w), gradient(w, x, y), w, live)
        velocity = tree(lambda v, g: 0.9 * v + g, velocity, g)
        w = tree(lambda w, v, m: w - RATE * m * v, w, velocity, live)
    assert_close(tree(np.add, start(small), tree(np.asarray, update.delta)), w)


SECOND = {
    "fedadam": lambda v, g: 0.99 * v + 0.01 * g * g,
    "fedyogi": lambda v, g: v - 0.01 * g * g * np.sign(v - g * g),
    "fedadagrad": lambda v, g: v + g * g,
}


@pytest.mark.parametrize("name", SECOND)
def test_adaptive_servers_are_the_papers(name):
    """Changes of the size that a round's have: far below 1, around tau, and zero."""
    rule, rate, b1 = SERVERS[name](), *((0.03, 0.0) if name == "fedadagrad" else (0.01, 0.9))
    params = {"w": jnp.zeros(4)}
    state, w, m, v = rule.optimizer.init(params), np.zeros(4), np.zeros(4), np.full(4, 1e-6)
    everything = {"w": jnp.ones((), bool)}
    for delta in ([1.1e-3, 1e-2, 1e-1, 0.0], [2e-3, -1e-2, 0.0, 0.0], [0.0, 3e-2, 1.1e-3, 0.0]):
        delta = np.array(delta)
        m, v = b1 * m + (1 - b1) * delta, SECOND[name](v, delta)
        w = w + rate * m / (np.sqrt(v) + 1e-3)
        params, state = servers.step(rule.optimizer, params, state, {"w": jnp.asarray(delta, jnp.float32)}, everything)
        np.testing.assert_allclose(params["w"], w, rtol=1e-4, atol=1e-9)
    assert params["w"][3] == 0  # where no client moves the server does not either


@pytest.mark.parametrize("make", [
    lambda: optax.sgd(1.0, momentum=0.9), *slow(lambda: optax.adam(0.01, 0.9, 0.99, 1e-3), lambda: optax.yogi(0.01),
    lambda: optax.adagrad(0.03), lambda: optax.lamb(0.01)),
])  # fmt: skip
@pytest.mark.usefixtures("lenient")
@pytest.mark.slow
def test_a_server_is_optax_on_the_pseudo_gradient(small, make):
    optimizer = make()
    server, _ = ours(small, small.federation(server=ServerRule(optimizer)), 3)
    params, state = small.params, optimizer.init(small.params)
    for number in range(3):
        federation = small.federation()
        broadcast = federated.broadcast(
            federation, init_server(federation, params), Schedule(), small.root, number, RATE
        )
        updates = [
            train_client(federation, broadcast, init_client_state(federation, server), small.x[rows], small.y[rows],
                         stream(small.root, ORDER, number, k))[0]
            for k, rows in enumerate(small.rows)
        ]  # fmt: skip
        mean = jax.tree.map(lambda *d: sum(len(r) / 29 * x for r, x in zip(small.rows, d, strict=True)),
                            *(update.delta for update in updates))  # fmt: skip
        updates, state = optimizer.update(jax.tree.map(jnp.negative, mean), state, params)
        params = optax.apply_updates(params, updates)
    assert_close(server.params, tree(np.asarray, params))
    assert_close_trees(server.opt_state, state)


def assert_close_trees(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=3e-6)
