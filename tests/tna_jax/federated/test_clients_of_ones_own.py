"""A client in one's own loop: one program for all sizes, any optimizer, K steps, plain Flax modules, 16-bit parameters."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.parameters import slow, slow_but
from tests.tna_jax.federated.conftest import CLASSES, INPUTS, linear
from tests.xla_flags import require
from tna_jax import federated, networks, objectives
from tna_jax.federated import (
    ALGORITHMS,
    ORDER,
    SERVERS,
    Federation,
    Scaffold,
    Schedule,
    init_client_state,
    moon,
    stream,
)
from tna_jax.federated import client as client_lib
from tna_jax.federated.algorithm import ClientUpdate
from tna_jax.federated.fedsam import FedSam
from tna_jax.federated.partition import padded
from tna_jax.federated.simulation import init_client_states, simulate_round
from tna_jax.metrics import zero

RNG = np.random.default_rng(1)


def data(size):
    return RNG.normal(size=(size, INPUTS)).astype(np.float32), RNG.integers(0, CLASSES, size).astype(np.int32)


def rounds_of(federation, params, clients, number=0, schedule=Schedule("pfn", 0.4), rate=0.1):  # noqa: B008
    root, server = jax.random.key(7), federated.init_server(federation, params)
    sent = federated.broadcast(federation, server, schedule, root, number, rate)
    return sent, [
        federated.train_client(federation, sent, init_client_state(federation, server), x, y, stream(root, ORDER, number, k))
        for k, (x, y) in enumerate(clients)
    ]  # fmt: skip


def test_clients_of_all_sizes_share_one_program(small):
    traced = []

    def network(params, x):
        traced.append(x.shape)
        return linear(params, x)

    federation = Federation(network, 9, CLASSES, batch_size=8, placement="map")
    rounds_of(federation, small.params, [data(1)])
    once = len(traced)
    rounds_of(federation, small.params, [data(size) for size in (5, 8, 20, 33, 90, 300)])
    assert len(traced) == once > 0


def test_padding_is_bounded():
    assert client_lib.num_padded(5, np.zeros((5, 4), np.float32)) == 1024
    assert client_lib.num_padded(1025, np.zeros((1025, 4), np.float32)) == 4096
    assert client_lib.num_padded(20, np.zeros((20, 224, 224, 3), np.float32)) == 32


@pytest.mark.parametrize("size", [3, 10])
def test_steps_instead_of_epochs_are_as_many_for_every_client(small, size):
    """K steps of full passes one after the other, each in an order of its own; against plain NumPy."""
    federation = Federation(linear, 2, CLASSES, batch_size=4, steps=7, placement="map")
    x, y = data(size)
    _, ((update, _),) = rounds_of(federation, small.params, [(x, y)], schedule=Schedule())
    w, key = (
        {name: np.asarray(p, np.float64) for name, p in small.params.items()},
        stream(jax.random.key(7), ORDER, 0, 0),
    )
    per_pass = -(-size // 4)
    for step in range(7):
        order = np.asarray(client_lib.order(jax.random.fold_in(key, step // per_pass), size, size))
        rows = order[step % per_pass * 4 :][:4]
        q = np.exp(x[rows] @ w["w"] + w["b"])
        q = q / q.sum(1, keepdims=True) - np.eye(CLASSES)[y[rows]]
        w = {"w": w["w"] - 0.1 * x[rows].T @ q / len(rows), "b": w["b"] - 0.1 * q.mean(0)}
    for name in w:
        np.testing.assert_allclose(update.delta[name], w[name] - np.asarray(small.params[name]), atol=2e-6)
    assert update.steps.tolist() == [7, 0]
    assert int(update.metrics.count) == federation.num_seen(size)


@pytest.mark.usefixtures("lenient")
def test_an_optimizer_of_ones_own_trains_and_moves_no_anchor(small):
    """Clipping at a norm that nothing reaches is plain SGD; Adam moves every live entry by its rate, and no other one."""
    clients = [data(4)]
    options = {"clients": 1, "num_classes": CLASSES, "batch_size": 4, "placement": "map"}
    plain = rounds_of(Federation(linear, **options), small.params, clients)[1][0][0]
    clipped = Federation(
        linear, **options, optimizer=lambda rate: optax.chain(optax.clip_by_global_norm(1e6), optax.sgd(rate))
    )
    for a, b in zip(
        *map(jax.tree.leaves, (plain.delta, rounds_of(clipped, small.params, clients)[1][0][0].delta)), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-7)
    sent, ((update, _),) = rounds_of(Federation(linear, **options, optimizer=optax.adam), small.params, clients)
    for live, moved in zip(*map(jax.tree.leaves, (sent.mask, update.delta)), strict=True):
        np.testing.assert_allclose(np.abs(moved), 0.1 * np.asarray(live), atol=1e-4)
        assert not np.asarray(moved)[~np.asarray(live)].any()
    with pytest.raises(ValueError, match="momentum is of the SGD"):
        Federation(linear, **options, optimizer=optax.adam, momentum=0.9)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        Federation(linear, **options, steps=0)


class Plain(nn.Module):
    """BatchNorm and dropout as a Flax user writes them: no argument for padding."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.Dense(6)(x))
        return nn.Dense(CLASSES)(nn.Dropout(0.2, deterministic=not train)(nn.relu(x)))


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["shared", "local"])
def test_a_plain_module_with_batch_norm_and_dropout_federates(norm):
    """Clients of 1, 2 and 90 examples; a client's padded batch leaves the statistics of its real examples."""
    net, init = networks.linen(Plain(), (INPUTS,))
    federation = Federation(net, 3, CLASSES, norm=norm, batch_size=4, placement="map")
    x, y = data(93)
    params, state = init(jax.random.key(0))
    server = federated.init_server(federation, params, state)
    states, clients = init_client_states(federation, server), padded([np.arange(1), np.arange(1, 3), np.arange(3, 93)])
    for number in range(2):
        server, outcome = simulate_round(
            federation, Schedule("pfn", 0.4), jax.random.key(1), number, server, states, clients, x, y, 0.1
        )
        assert (outcome.accepted, outcome.refused) == (3, {})
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((server, states)))
    moved = jax.tree.leaves(server.state if norm == "shared" else states.state)
    assert any(np.abs(np.asarray(leaf)).max() > 0.1 for leaf in moved)


def half(dtype):
    return lambda params, x: x.astype(dtype) @ params["w"] + params["b"][None]


CASES = [("scaffold", "mean"), ("feddyn", "mean"), ("fednova", "mean"), ("fedavg", "fedavgm"), ("fedavg", "fedadam"),
         ("fedprox", "mean"), ("fedsam", "mean"), ("fedlc", "mean"), ("fedavg", "mean")]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "server"), slow_but([CASES[0]], CASES))
@pytest.mark.parametrize("dtype", slow_but(["bfloat16"], ["bfloat16", "float16"]))
@pytest.mark.usefixtures("lenient")
def test_parameters_of_16_bits_federate_and_keep_their_types(small, algorithm, server, dtype):
    """Variates and the server's moments add up over rounds: they are float32, and nothing changes its type."""
    require(dtype)
    params = jax.tree.map(lambda p: p.astype(dtype), small.params)
    federation = Federation(
        half(dtype), 4, CLASSES, ALGORITHMS[algorithm](), SERVERS[server](), batch_size=8, placement="map"
    )
    state = federated.init_server(federation, params)
    states, clients = init_client_states(federation, state), padded(small.rows)
    types = jax.tree.map(lambda x: str(x.dtype), (state, states))
    schedule, before = Schedule("pfn", 0.4), jax.tree.map(np.asarray, params)
    for number in range(2):
        masked = federated.broadcast(federation, state, schedule, small.root, number, 0.1).mask
        old = state.params
        state, outcome = simulate_round(
            federation, schedule, small.root, number, state, states, clients, small.x, small.y, 0.1
        )
        assert outcome.accepted == 4
        for live, a, b in zip(*map(jax.tree.leaves, (masked, old, state.params)), strict=True):
            assert np.asarray(a)[~np.asarray(live)].tobytes() == np.asarray(b)[~np.asarray(live)].tobytes()
    assert jax.tree.map(lambda x: str(x.dtype), (state, states)) == types
    assert any((np.asarray(a) != b).any() for a, b in zip(*map(jax.tree.leaves, (state.params, before)), strict=True))
    if algorithm == "scaffold":  # c is the mean of the c_k: no rounding to 16 bits in between
        for c, c_k in zip(*map(jax.tree.leaves, (state.extra, states.memory)), strict=True):
            assert c.dtype == np.float32
            np.testing.assert_allclose(c, c_k.mean(0), atol=1e-5)


def test_what_jax_would_make_up_is_refused(small):
    """Logits of classes that the network has not, rows that the data has not, clients that are left out, steps beyond a round."""

    def simulated(federation, rows, x=small.x, states_of=None):
        server = federated.init_server(federation, small.params)
        states = init_client_states(states_of or federation, server)
        simulate_round(federation, Schedule(), small.root, 0, server, states, padded(rows), x, small.y[: len(x)], 0.1)

    federation = small.federation(placement="map")
    with pytest.raises(ValueError, match="the partition or their states are of 3"):
        simulated(federation, small.rows[:3])
    scaffold = dataclasses.replace(federation, algorithm=Scaffold())
    with pytest.raises(ValueError, match="the federation has 4 clients, the partition or their states are of 6"):
        simulated(scaffold, small.rows, states_of=dataclasses.replace(scaffold, clients=6))
    with pytest.raises(ValueError, match=f"rows up to {len(small.x) - 1}, but there are 9 examples"):
        simulated(federation, small.rows, small.x[:9])
    five = dataclasses.replace(federation, num_classes=5)
    with pytest.raises(ValueError, match="for 5 classes"):
        simulated(five, small.rows)
    with pytest.raises(ValueError, match="for 5 classes"):
        rounds_of(five, small.params, [data(4)])
    server = federated.init_server(federation, small.params)
    sent = federated.broadcast(federation, server, Schedule(), small.root, 0, 0.1)
    for share in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"must lie in \(0, 1\]"):
            federated.train_client(federation, sent, init_client_state(federation, server), *data(4), small.root, share)


@dataclasses.dataclass(frozen=True)
class FedRS(federated.Algorithm):
    """Restricted softmax: logits of classes that a client does not have are scaled down (Li and Zhan, KDD 2021)."""

    title: ClassVar[str] = "FedRS"
    alpha: float = 0.5

    def logits(self, logits, context):
        return logits * jnp.where(context.class_counts > 0, 1.0, self.alpha)[None]


def test_a_new_algorithm_is_six_lines_in_all_schedules_and_simulations(small):
    """The one that docs/federated.md shows, against its gradient in NumPy; `alpha=1` is FedAvg."""
    x, y = data(4)[0], np.array([0, 1, 1, 0], np.int32)  # the client does not have class 2
    options = {"clients": 1, "num_classes": CLASSES, "batch_size": 4, "placement": "map"}
    update = rounds_of(
        Federation(linear, algorithm=FedRS(alpha=0.5), **options), small.params, [(x, y)], schedule=Schedule()
    )[1][0][0]
    scale = np.array([1, 1, 0.5])
    z = (x @ np.asarray(small.params["w"])) * scale
    q = np.exp(z) / np.exp(z).sum(1, keepdims=True) - np.eye(CLASSES)[y]
    np.testing.assert_allclose(update.delta["w"], -0.1 * x.T @ (q * scale) / 4, atol=1e-6)
    federation = small.federation(algorithm=FedRS(), placement="map")
    server = federated.init_server(federation, small.params)
    state = init_client_states(federation, server)
    _, outcome = simulate_round(
        federation, Schedule("pfn", 0.4), small.root, 0, server, state, padded(small.rows), small.x, small.y, 0.1
    )
    assert outcome.accepted == 4 and outcome.live < 1
    assert Scaffold().title != FedRS().title


@pytest.mark.parametrize("dtype", [jnp.bfloat16, *slow(jnp.float16)])
def test_sam_keeps_the_types_of_16_bit_parameters_and_steps_as_far_as_in_float32(lenient, dtype):
    """With momentum, whose state a compiled loop carries; gradients near 1e-4, whose squares are 0 in float16."""
    if dtype == jnp.float16:
        require("float16")
    x, y = data(16)

    def network(params, x):
        return 1e-3 * x.astype(params["w"].dtype) @ params["w"]

    moved = {}
    for name, rho in (("sam", 1.0), ("avg", 0.0)):
        for kind in (jnp.float32, dtype):
            federation = Federation(network, 1, CLASSES, FedSam(rho=rho), batch_size=16, momentum=0.9, epochs=3)
            params = {"w": jnp.zeros((INPUTS, CLASSES), kind)}
            ((update, _),) = rounds_of(federation, params, [(x, y)], schedule=Schedule(), rate=1e3)[1]
            assert update.delta["w"].dtype == kind
            moved[name, kind] = np.asarray(update.delta["w"], np.float32)
    np.testing.assert_allclose(
        moved["sam", dtype], moved["sam", jnp.float32], atol=0.02 * np.abs(moved["sam", jnp.float32]).max()
    )


def test_a_complex_model_descends_in_both_parts_and_is_averaged_in_both(lenient):
    """Full batches of a quadratic loss, by NumPy; the mean of two clients by numbers of examples."""
    clients = [
        (x, (x @ np.array([[1 + 2j], [-1j], [0.5], [1]])).astype(np.complex64))
        for x in (RNG.normal(size=(n, INPUTS)).astype(np.float32) for n in (8, 24))
    ]
    objective = objectives.Objective("complex", lambda out, t: jnp.sum(jnp.square(jnp.abs(out - t)), -1))
    federation = Federation(
        lambda p, x: x.astype(p["w"].dtype) @ p["w"], 2, batch_size=24, epochs=4, objective=objective
    )
    params = {"w": jnp.full((INPUTS, 1), 0.3 - 0.2j, jnp.complex64)}
    sent, replies = rounds_of(federation, params, clients, schedule=Schedule(), rate=0.05)
    expected = 0
    for x, y in clients:
        w = np.full((INPUTS, 1), 0.3 - 0.2j)
        for _ in range(4):
            w = w - 0.05 * 2 * x.T @ (x @ w - y) / len(x)
        expected = expected + len(x) / 32 * w
    server = federated.init_server(federation, params)
    sums = federated.aggregate(federation, sent, federated.stack([update for update, _ in replies]), jnp.ones(2, bool))
    after = federated.server_update(federation, server, sent, sums, jax.random.key(0))
    np.testing.assert_allclose(after.params["w"], expected, atol=2e-6)


def test_moves_of_64_bits_are_averaged_in_64():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        federation = Federation(linear, 3, CLASSES)
        params = {"w": jnp.zeros((INPUTS, CLASSES)), "b": jnp.zeros(CLASSES)}
        server = federated.init_server(federation, params)
        sent = federated.broadcast(federation, server, Schedule(), jax.random.key(0), 0, 0.1)
        moves = [{name: RNG.normal(size=p.shape) for name, p in params.items()} for _ in range(3)]
        made = [
            ClientUpdate(m, (), (), jnp.array([1, 0], jnp.int32), jnp.float32(n), zero())
            for n, m in enumerate(moves, 1)
        ]
        sums = federated.aggregate(federation, sent, federated.stack(made), jnp.ones(3, bool))
        after = federated.server_update(federation, server, sent, sums, jax.random.key(0))
        for name in params:
            np.testing.assert_allclose(
                after.params[name], sum(n * m[name] for n, m in enumerate(moves, 1)) / 6, atol=1e-14
            )


@pytest.mark.parametrize("scale", [1e-15, 1e-4, 1, 1e12])
def test_moons_similarities_do_not_depend_on_the_size_of_features(scale):
    a, b = RNG.normal(size=(2, 4, 8)).astype(np.float32) * np.float32(scale)
    a[0] = 0
    wide = a.astype(np.float64), b.astype(np.float64)
    norms = [np.linalg.norm(x, axis=1) for x in wide]
    expected = (wide[0] * wide[1]).sum(1) / np.maximum(norms[0] * norms[1], 1e-300)
    np.testing.assert_allclose(moon._cosine(jnp.asarray(a), jnp.asarray(b)), expected, atol=1e-6)
    slope = jax.grad(lambda x: moon._cosine(x, jnp.asarray(b)).sum())(jnp.asarray(a))
    along = expected[:, None] * wide[0] / np.maximum(norms[0], 1e-300)[:, None]
    exact = (wide[1] / norms[1][:, None] - along) / np.maximum(norms[0], 1e-300)[:, None]
    np.testing.assert_allclose(slope[1:], exact[1:], rtol=1e-4, atol=1e-5 * np.abs(exact[1:]).max())


def test_parameters_that_are_no_floats_are_named():
    federation = Federation(linear, 1, CLASSES)
    with pytest.raises(TypeError, match=r"not: layer/steps \(int32\)"):
        federated.init_server(federation, {"layer": {"w": jnp.ones(2), "steps": jnp.arange(2)}})
