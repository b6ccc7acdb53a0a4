"""A simulated round is its clients' rounds, whatever the placement, the groups and the number of devices."""

import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import slow
from tna_jax import federated, networks
from tna_jax import placement as placement_lib
from tna_jax.federated import (
    DISTIL,
    ORDER,
    SERVERS,
    FedDyn,
    Scaffold,
    Schedule,
    aggregate,
    aggregation,
    client_groups,
    init_client_state,
    init_server,
    server_update,
    stack,
    stream,
    train_client,
)
from tna_jax.federated import client as client_lib
from tna_jax.federated.evaluation import TestSet, evaluate
from tna_jax.federated.faults import Faults, sample_clients
from tna_jax.federated.federation import Federation
from tna_jax.federated.partition import padded
from tna_jax.federated.simulation import init_client_states, simulate_round

SCHEDULE = Schedule("pnu", 0.5)


def simulated(small, federation, rounds=2, **options):
    server = init_server(federation, small.params)
    client_states, clients = init_client_states(federation, server), padded(small.rows)
    for number in range(rounds):
        server, outcome = simulate_round(
            federation, SCHEDULE, small.root, number, server, client_states, clients, small.x, small.y, 0.1,
            proxy=jnp.asarray(small.x[:6]), **options,
        )  # fmt: skip
    return server, client_states, outcome


def reference(small, federation, rounds=2):
    """Each client by itself, on its own data without padding."""
    server = init_server(federation, small.params)
    client_states = [init_client_state(federation, server) for _ in small.rows]
    proxy = jnp.asarray(small.x[:6])
    for number in range(rounds):
        broadcast = federated.broadcast(federation, server, SCHEDULE, small.root, number, 0.1)
        updates = []
        for k, rows in enumerate(small.rows):
            key = stream(small.root, ORDER, number, k)
            update, client_states[k] = train_client(
                federation, broadcast, client_states[k], small.x[rows], small.y[rows], key
            )
            updates.append(update)
        sums = aggregate(federation, broadcast, stack(updates), jnp.ones(4, bool), proxy)
        server = server_update(federation, server, broadcast, sums, stream(small.root, DISTIL, number), proxy)
    return server, jax.tree.map(lambda *x: np.stack(x), *client_states)


def assert_close(a, b, atol=2e-6):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=atol)


@pytest.mark.parametrize("placement", ["map", *slow("vmap", "loop")])
def test_a_placement_and_single_clients_agree(small, placement):
    options = {"algorithm": Scaffold(), "momentum": 0.5}
    server, client_states = reference(small, small.federation(**options))
    outcome = simulated(small, small.federation(placement=placement, **options))
    assert_close(outcome[0], server)
    assert_close(outcome[1], client_states, atol=2e-5)
    assert np.abs(np.asarray(server.params["w"]) - np.asarray(small.params["w"])).max() > 0.05  # the control


@pytest.mark.slow
@pytest.mark.usefixtures("lenient")
def test_groups_and_devices_change_nothing(small, monkeypatch):
    federation = small.federation(server=SERVERS["feddf"](steps=3))
    expected = simulated(small, federation)
    assert_close(reference(small, federation)[0], expected[0])
    mesh = placement_lib.mesh(jax.devices()[:1])
    monkeypatch.setattr(placement_lib, "mesh", lambda devices=None: mesh)
    for group in (None, 1, 3):
        assert_close(simulated(small, federation, group=group)[0], expected[0])


def test_every_example_counts_once_in_a_pass(small):
    _, _, outcome = simulated(small, small.federation(epochs=3), rounds=1)
    assert float(outcome.metrics.count) == 3 * sum(map(len, small.rows))
    assert outcome.accepted == 4


def test_the_order_of_a_client_does_not_depend_on_padding():
    key = jax.random.key(3)
    orders = [np.asarray(client_lib.order(key, size, jnp.int32(11))) for size in (11, 16, 64)]
    for order in orders:
        assert order[:11].tolist() == orders[0].tolist()
        assert sorted(order.tolist()) == list(range(len(order)))
    assert orders[0].tolist() != list(range(11))


def test_bad_replies_are_named_and_the_rest_goes_on(small):
    clean, _, _ = simulated(small, small.federation())
    server, client_states, outcome = simulated(small, small.federation(), faults=Faults(nan=(0,), wrong_shape=(3,)))
    assert sorted(outcome.refused) == [0, 3]
    assert outcome.refused[0] == ["delta/b holds 1 numbers that are not finite"]
    assert outcome.refused[3] == ["delta/w is float32 [13], expected float32 [4, 3]"]
    assert outcome.accepted == 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((server, client_states)))
    assert np.abs(np.asarray(server.params["w"]) - np.asarray(clean.params["w"])).max() > 1e-3
    untouched, _, outcome = simulated(small, small.federation(), faults=Faults(nan=(0, 1, 2, 3)))
    assert outcome.accepted == 0
    assert_close(untouched.params, small.params, atol=0)


@pytest.mark.parametrize("algorithm", [*slow(FedDyn(alpha=0.3)), Scaffold()])
def test_refused_replies_leave_the_variates_of_server_and_clients_in_step(small, algorithm):
    """With all clients asked, h is the mean of the h_k and c that of the c_k, whatever was refused."""
    federation, faults = small.federation(algorithm=algorithm), Faults(drop=0.3, nan=(1,), wrong_shape=(3,))
    server, client_states, _ = simulated(small, federation, rounds=4, faults=faults)
    for mine, theirs in zip(*map(jax.tree.leaves, (server.extra, client_states.memory)), strict=True):
        assert np.abs(np.asarray(mine)).max() > 1e-3
        np.testing.assert_allclose(mine, theirs.mean(0), atol=1e-6)
        assert not theirs[1].any() and not theirs[3].any()


def test_what_cannot_distil_is_refused(small):
    federation = small.federation(server=SERVERS["feddf"](steps=3))
    server = init_server(federation, small.params)
    data = (init_client_states(federation, server), padded(small.rows), small.x, small.y)
    with pytest.raises(ValueError, match="FedDF distils on unlabeled inputs: give them as proxy="):
        simulate_round(federation, SCHEDULE, small.root, 0, server, *data, 0.1)
    net, _ = networks.linen(Normed(), (4,))
    with pytest.raises(ValueError, match="use norm 'shared'"):
        Federation(net, 2, 3, norm="local", server=SERVERS["feddf"]())


def test_a_client_that_diverges_is_refused_and_keeps_what_it_had(small):
    federation = small.federation(algorithm=Scaffold())
    server = init_server(federation, small.params)
    client_states, x = init_client_states(federation, server), small.x.copy()
    x[small.rows[2]] = 1e38
    _, outcome = simulate_round(
        federation, SCHEDULE, small.root, 0, server, client_states, padded(small.rows), x, small.y, 0.1
    )
    assert list(outcome.refused) == [2]
    assert outcome.accepted == 3
    assert not any(np.any(leaf[2]) for leaf in jax.tree.leaves(client_states))
    assert all(np.any(leaf[1]) for leaf in jax.tree.leaves(client_states))


def test_a_round_whose_sum_overflows_leaves_server_and_clients_as_they_were(small):
    """Each reply is finite, and what the server makes of them is not."""
    federation = small.federation(algorithm=FedDyn(), server=SERVERS["fedavgm"](1e36))
    server = init_server(federation, small.params)
    client_states, before = init_client_states(federation, server), init_client_states(federation, server)
    one = (federation, SCHEDULE, small.root, 0, server, client_states, padded(small.rows), small.x, small.y)
    after, outcome = simulate_round(*one, 1e6)
    assert not outcome.stepped and outcome.accepted == 4 and not outcome.refused
    assert_close((after, client_states), (server, before), atol=0)
    after, outcome = simulate_round(*one, 0.1)  # the control
    assert outcome.stepped and any(np.any(leaf) for leaf in jax.tree.leaves(client_states))
    assert aggregation.is_finite(after) and not aggregation.is_finite(
        after._replace(extra={"h": jnp.array([0, jnp.inf])})
    )
    assert aggregation.is_finite(after._replace(extra=(jnp.arange(3), jax.random.key(0))))


def test_counters_are_averaged_to_the_nearest_integer():
    below = np.nextafter(np.float32(4), np.float32(0))  # what rounding leaves of the average of fours
    assert aggregation._in_type(jnp.float32(below), jnp.int32) == 4
    assert aggregation._in_type(jnp.float32(below), jnp.float32) == below


def test_stragglers_make_a_share_of_their_steps_and_dropped_clients_none(small):
    faults = Faults(straggle=1.0, straggler_share=0.5)
    _, _, outcome = simulated(small, small.federation(epochs=2, batch_size=16), rounds=1, faults=faults)
    assert float(outcome.metrics.count) == sum(map(len, small.rows))  # one of two full batches
    assert outcome.turnout.stragglers == [0, 1, 2, 3]
    server, client_states, outcome = simulated(small, small.federation(algorithm=Scaffold()), faults=Faults(drop=1.0))
    assert (outcome.accepted, outcome.turnout.dropped) == (0, [0, 1, 2, 3])
    assert_close(server.params, small.params, atol=0)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(client_states))


def test_drop_outs_compile_nothing_anew(small, monkeypatch):
    mesh = placement_lib.mesh(jax.devices()[:1])
    monkeypatch.setattr(placement_lib, "mesh", lambda devices=None: mesh)
    federation = small.federation(epochs=4)
    turnouts = set()
    for drop in (0.0, 0.3, 0.6):
        _, _, outcome = simulated(small, federation, rounds=3, faults=Faults(drop=drop))
        turnouts.add(len(outcome.turnout.dropped))
    assert len(turnouts) > 1  # the control: rounds differed in their numbers of clients
    assert client_groups._group_program(federation.of_clients(), "map", mesh)._cache_size() == 1


def test_turnout_depends_on_the_seed_and_the_round_alone():
    root, faults = jax.random.key(5), Faults(drop=0.3, straggle=0.3)
    first = sample_clients(root, 3, 50, 0.4, faults)
    again = sample_clients(root, 3, 50, 0.4, faults)
    assert first.sampled == again.sampled and first.dropped == again.dropped
    assert (len(first.sampled), len(set(first.sampled))) == (20, 20)
    assert set(first.dropped) < set(first.sampled)
    assert not set(first.dropped) & set(first.stragglers)
    assert sample_clients(root, 4, 50, 0.4, faults).sampled != first.sampled
    dropped = sum(len(sample_clients(root, r, 50, 1.0, faults).dropped) for r in range(40))
    assert 0.25 < dropped / 2000 < 0.35


class Normed(nn.Module):
    """A dense layer, BatchNorm, a dense layer."""

    @nn.compact
    def __call__(self, x, train=False, weight=None):
        mask = None if weight is None else weight.astype(bool)[:, None]
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.Dense(6)(x), mask=mask)
        return nn.Dense(3)(nn.relu(x))


@pytest.mark.parametrize("policy", [*slow("shared"), "local"])
@pytest.mark.slow
def test_running_statistics_follow_their_policy(policy):
    net, init = networks.linen(Normed(), (4,))
    rng = np.random.default_rng(1)
    x = rng.normal(size=(24, 4)).astype(np.float32) + np.repeat([0, 3], 12)[:, None].astype(np.float32)
    y = rng.integers(0, 3, 24).astype(np.int32)
    with pytest.raises(ValueError, match="'shared' or 'local'"):
        Federation(net, 2, 3)
    federation = Federation(net, 2, 3, batch_size=12, norm=policy)
    server = init_server(federation, *jax.jit(init)(jax.random.key(0)))
    client_states, clients = init_client_states(federation, server), padded([np.arange(12), np.arange(12, 24)])
    after, _ = simulate_round(federation, Schedule(), jax.random.key(0), 0, server, client_states, clients, x, y, 0.01)
    means = {"shared": after.state, "local": client_states.state}[policy]["BatchNorm_0"]["mean"]
    start = np.asarray(server.state["BatchNorm_0"]["mean"])
    assert np.abs(np.asarray(means) - start).max() > 1e-3
    if policy == "local":
        assert np.abs(means[0] - means[1]).max() > 1e-2  # clients' own
        assert_close(after.state, server.state, atol=0)
    else:
        assert client_states.state == ()
    metrics = evaluate(federation, after, client_states, TestSet(x, y))
    assert float(metrics.count) == {"shared": 24, "local": 48}[policy]


def test_a_policy_for_statistics_that_do_not_exist_is_refused(small):
    with pytest.raises(ValueError, match="no running statistics"):
        small.federation(norm="shared")
    with pytest.raises(ValueError, match=r"epochs must be at least 1.*momentum must lie"):
        small.federation(epochs=0, momentum=1.0)


def test_the_evaluation_counts_every_example_once(small):
    federation = small.federation()
    server = init_server(federation, small.params)
    metrics = evaluate(
        federation, server, init_client_states(federation, server), TestSet(small.x, small.y, batch_size=3)
    )
    logits = small.x @ np.asarray(small.params["w"])
    assert float(metrics.count) == len(small.y)
    assert float(metrics.correct) == (logits.argmax(1) == small.y).sum()


class Convolutional(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(32, (3, 3))(x))
        return nn.Dense(3)(nn.relu(nn.Conv(32, (3, 3))(x)).mean((1, 2)))


@pytest.mark.slow
def test_a_round_with_convolutions_takes_as_long_as_its_clients():
    """Inside control flow XLA's CPU backend computes them tens of times slower."""
    clients, size = 8, 48
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(clients * size, 16, 16, 8)), jnp.float32)
    y = jnp.asarray(rng.integers(0, 3, clients * size), jnp.int32)
    params = Convolutional().init(jax.random.key(0), x[:1])["params"]
    federation = Federation(lambda p, x: Convolutional().apply({"params": p}, x), clients, 3, batch_size=16)
    parts = np.split(np.arange(clients * size, dtype=np.int32), clients)
    server, root = init_server(federation, params), jax.random.key(1)
    client_states, rows = init_client_states(federation, server), padded(parts)
    broadcast = federated.broadcast(federation, server, SCHEDULE, root, 0, 0.1)

    def together():
        done, _ = simulate_round(federation, SCHEDULE, root, 0, server, client_states, rows, x, y, 0.1)
        jax.block_until_ready(done.params)

    def one_by_one():
        for number, part in enumerate(parts):
            own, key = init_client_state(federation, server), stream(root, ORDER, 0, number)
            jax.block_until_ready(train_client(federation, broadcast, own, x[part], y[part], key))

    assert client_groups.resolve(federation, params, (), x) == "loop"
    seconds = {}
    for run in (together, one_by_one):
        run()
        start = time.perf_counter()
        run()
        seconds[run] = time.perf_counter() - start
    assert seconds[together] < 5 * seconds[one_by_one]


def test_groups_of_none_and_updates_that_are_not_said_to_be_accepted_are_refused(small):
    federation = small.federation()
    server = init_server(federation, small.params)
    states, clients = init_client_states(federation, server), padded(small.rows)
    for group in (0, -1):  # -1 was a round of nobody
        with pytest.raises(ValueError, match=f"a group has 1 or more clients, got {group}"):
            simulate_round(
                federation, Schedule(), small.root, 0, server, states, clients, small.x, small.y, 0.1, group=group
            )
    sent = federated.broadcast(federation, server, Schedule(), small.root, 0, 0.1)
    shapes = federated.update_shapes(federation, sent, federated.init_client_state(federation, server))
    update = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), shapes)
    for accepted in (jnp.ones(3, bool), jnp.array([2, 0])):  # 3 accepted of 2, and one of them twice
        with pytest.raises(ValueError, match=r"accepted says True or False of each update, bool \(2,\)"):
            aggregate(federation, sent, stack([update, update]), accepted)
    with pytest.raises(ValueError, match="no updates to stack"):
        stack([])


def test_a_schedule_of_soft_masks_and_rounds_that_are_no_whole_numbers_are_refused(small):
    soft = Schedule("pfn", draw=lambda key, params, ratio: jax.tree.map(lambda p: jnp.full(p.shape, 0.5), params))
    federation = small.federation()
    server = init_server(federation, small.params)
    with pytest.raises(TypeError, match=r"not: b \(float32\), w \(float32\)"):
        federated.broadcast(federation, server, soft, small.root, 0, 0.1)
    with pytest.raises(TypeError, match="whole numbers, got 1.5"):
        federated.broadcast(federation, server, Schedule("pfn"), small.root, 1.5, 0.1)


def test_faults_of_clients_that_do_not_exist_are_refused(small):
    federation = small.federation()
    server = init_server(federation, small.params)
    states, clients = init_client_states(federation, server), padded(small.rows)
    faults = Faults(hostile=(1, 9), nan=(-1,))
    with pytest.raises(ValueError, match="do not exist, of 4: nan: -1; hostile: 9"):
        simulate_round(
            federation, Schedule(), small.root, 0, server, states, clients, small.x, small.y, 0.1, faults=faults
        )
