"""What was anchored for a whole round does not move, bit for bit, under any algorithm, server and mask schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.parameters import slow, slow_but
from tna_jax import federated, masks
from tna_jax.federated import (
    ALGORITHMS,
    ORDER,
    SERVERS,
    FedSam,
    Scaffold,
    Schedule,
    aggregate,
    init_client_state,
    init_server,
    of_round,
    server_update,
    servers,
    stack,
    stream,
    train_client,
)
from tna_jax.federated.algorithm import gradient_weight
from tna_jax.federated.servers import keep_anchored
from tna_jax.programs.cli.choices import OPTIMIZERS

SCHEDULES = {"pfn": 1.0, "pnu-rounds": 1.0, "pnu": 0.01}
"""The share of its steps that every client makes: one step under pnu, which then has no second phase, so that the complement of
the mask is anchored for the whole round."""


def noise(tree, seed=0):
    """A tree of the same form, its floats drawn anew: momentum and variates as after many rounds."""
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(seed)
    drawn = [
        jnp.asarray(np.abs(rng.normal(size=x.shape)) + 0.1, x.dtype) if x.dtype == jnp.float32 else x for x in leaves
    ]
    return jax.tree.unflatten(structure, drawn)


def updates_under(small, federation, server, client_states, schedule, share=1.0, number=2):
    broadcast = federated.broadcast(federation, server, schedule, small.root, number, 0.1)
    updates, new_states = [], []
    for k, rows in enumerate(small.rows):
        key = stream(small.root, ORDER, number, k)
        update, own = train_client(federation, broadcast, client_states[k], small.x[rows], small.y[rows], key, share)
        updates.append(update)
        new_states.append(own)
    return broadcast, updates, new_states


def parameter_like(tree, params):
    """Every part of a tree that has the form of the parameters."""
    structure = jax.tree.structure(params)
    found = []
    jax.tree.map(lambda part: found.append(part) if jax.tree.structure(part) == structure else None, tree,
                 is_leaf=lambda part: jax.tree.structure(part) == structure)  # fmt: skip
    return found


def assert_kept(live, before, after, what):
    """Anchored entries have their bits; returns the share of live ones that changed."""
    changed = []
    for m, old, new in zip(*map(jax.tree.leaves, (live, before, after)), strict=True):
        m, old, new = (np.asarray(x) for x in (m, old, new))
        assert old[~m].tobytes() == new[~m].tobytes(), what
        changed += [(old[m] != new[m])]
    return np.concatenate(changed).mean()


RULES = {name: make() for name, make in SERVERS.items()}


@pytest.mark.parametrize(
    ("algorithm", "rules"), [("scaffold", ["fedavgm", "fedadam"]), *slow(*((name, list(RULES)) for name in ALGORITHMS))]
)
@pytest.mark.usefixtures("lenient")
def test_an_entry_anchored_for_a_round_is_as_it_was(small, algorithm, rules):
    """Servers and every mask schedule with this algorithm; all momentum and variates are far from 0 before the round."""
    made = ALGORITHMS[algorithm]()
    plain = small.federation(algorithm=made)
    begun = init_server(plain, small.params)
    begun = begun._replace(extra=noise(begun.extra))
    client_states = [noise(init_client_state(plain, begun), k) for k in range(4)]
    for kind, share in SCHEDULES.items():
        schedule = Schedule(kind, 0.5)
        live = of_round(schedule, small.root, small.params, 2).mask
        assert 0.1 < float(masks.anchored_ratio(live)) < 0.9
        broadcast, updates, new_states = updates_under(small, plain, begun, client_states, schedule, share)
        for k in range(4):
            moved = jax.tree.map(jnp.add, small.params, updates[k].delta)
            assert assert_kept(live, small.params, moved, (algorithm, kind)) > 0.2
            for old, new in zip(
                parameter_like(client_states[k], small.params), parameter_like(new_states[k], small.params), strict=True
            ):
                if algorithm == "moon":  # keeps the whole local model: its anchored entries are the server's
                    old = small.params
                assert assert_kept(live, old, new, (algorithm, kind)) > 0.2
        for name, rule in ((name, RULES[name]) for name in rules):
            what, proxy = (algorithm, name, kind), jnp.asarray(small.x[:6])
            federation = small.federation(algorithm=made, server=rule)
            server = init_server(federation, small.params)._replace(extra=begun.extra)
            server = server._replace(opt_state=noise(server.opt_state))
            found = aggregate(federation, broadcast, stack(updates), jnp.ones(4, bool), proxy)
            after = server_update(federation, server, broadcast, found, small.root, proxy)
            assert assert_kept(live, server.params, after.params, what) > 0.8
            for old, new in zip(*(parameter_like(s[2:], small.params) for s in (server, after)), strict=True):
                assert assert_kept(live, old, new, what) > 0.6


@pytest.mark.parametrize("name", slow_but(["adam", "rmsprop"], OPTIMIZERS))
@pytest.mark.usefixtures("lenient")
def test_any_optax_optimizer_serves(small, name):
    optimizer = getattr(optax, name)(0.1)
    live = masks.exact(jax.random.key(0), small.params, 0.5)
    params, state = small.params, noise(optimizer.init(small.params))
    moved, after = servers.step(optimizer, params, state, jax.tree.map(jnp.negative, noise(params, 1)), live)
    assert assert_kept(live, params, moved, name) > 0.9
    for old, new in zip(parameter_like(state, params), parameter_like(after, params), strict=True):
        if [leaf.shape for leaf in jax.tree.leaves(new)] == [leaf.shape for leaf in jax.tree.leaves(params)]:
            assert_kept(live, old, new, name)


@pytest.mark.usefixtures("lenient")
def test_without_the_rule_momentum_and_h_would_move_anchors(small):
    """The control: plain optax on a direction of zeros moves what was anchored, and so does FedDyn's `- h / a`."""
    for name in ("fedavgm", "fedadam", "fedyogi"):
        optimizer = RULES[name].optimizer
        zero = jax.tree.map(jnp.zeros_like, small.params)
        moved = optimizer.update(zero, noise(optimizer.init(small.params)), small.params)[0]
        assert all(np.abs(leaf).min() > 0 for leaf in jax.tree.leaves(moved)), name
    zero = {"delta": jax.tree.map(jnp.zeros_like, small.params)}
    live = jax.tree.map(lambda p: jnp.zeros(p.shape, bool), small.params)
    direction, _ = ALGORITHMS["feddyn"]().direction(zero, noise(small.params), live, jnp.float32(1))
    assert all(np.abs(leaf).min() > 0 for leaf in jax.tree.leaves(direction))


def test_pnu_moves_every_entry_and_only_in_its_phase(small):
    """Four steps, the first under the mask: entries of the mask count 1 step, the others 3."""
    federation = small.federation(algorithm=Scaffold(), epochs=4, batch_size=16)
    server = init_server(federation, small.params)
    broadcast = federated.broadcast(federation, server, Schedule("pnu", 0.5, split=0.25), small.root, 0, 0.1)
    key = stream(small.root, ORDER, 0, 1)
    rows = small.rows[1]
    update, own = train_client(
        federation, broadcast, init_client_state(federation, server), small.x[rows], small.y[rows], key
    )
    assert update.steps.tolist() == [1, 3]
    for m, delta, variate in zip(*map(jax.tree.leaves, (broadcast.mask, update.delta, own.memory)), strict=True):
        assert (np.asarray(delta) != 0).all()
        steps = np.where(np.asarray(m), 1, 3)
        np.testing.assert_allclose(variate, -np.asarray(delta) / (steps * 0.1), rtol=1e-5)
    alone = small.federation(epochs=1, batch_size=16)
    first = train_client(
        alone,
        broadcast._replace(split=jnp.float32(1)),
        init_client_state(alone, server),
        small.x[rows],
        small.y[rows],
        key,
    )[0]
    for m, both, one in zip(*map(jax.tree.leaves, (broadcast.mask, update.delta, first.delta)), strict=True):
        m = np.asarray(m)
        assert np.asarray(both)[m].tobytes() == np.asarray(one)[m].tobytes()  # after the first step they stay


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_gradient_weight_counts_gradients(momentum):
    for steps in range(6):
        expected = sum(sum(momentum**j for j in range(steps - i)) for i in range(steps))
        assert float(gradient_weight(jnp.int32(steps), momentum)) == pytest.approx(expected, abs=1e-5)


def test_sam_perturbs_live_entries_alone(small):
    seen = []

    def evaluate(params):
        seen.append(params)
        return jax.tree.map(jnp.ones_like, params), "rest"

    mask = masks.exact(jax.random.key(0), small.params, 0.5)
    context = type("Context", (), {"live": mask})()
    _, rest = FedSam(rho=0.3).descend(evaluate, small.params, context)
    assert rest == "rest"
    live = sum(int(np.sum(m)) for m in jax.tree.leaves(mask))
    for m, w, moved in zip(*map(jax.tree.leaves, (mask, seen[0], seen[1])), strict=True):
        expected = np.asarray(w) + np.where(np.asarray(m), 0.3 / np.sqrt(live), 0)
        np.testing.assert_allclose(moved, expected, rtol=1e-5)


@pytest.mark.slow
def test_a_state_that_has_other_shapes_here_and_there_is_kept_where_it_has_those_of_the_parameters():
    """Adafactor's second moments are factored in large matrices alone."""
    params = {"large": jnp.ones((200, 130)), "bias": jnp.ones(7), "small": jnp.ones((130, 10))}
    optimizer = optax.adafactor(0.1)
    old = noise(optimizer.init(params))
    live = masks.exact(jax.random.key(0), params, 0.5)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        _, new = servers.step(optimizer, params, old, noise(params, 1), live)
    (before,), (after,) = ([part for part in parameter_like(state, params) if part["bias"].shape == (7,)]
                           for state in (old, new))  # fmt: skip
    for name in ("bias", "small"):
        m = np.asarray(live[name])
        assert np.asarray(before[name])[~m].tobytes() == np.asarray(after[name])[~m].tobytes()
        assert (np.asarray(before[name])[m] != np.asarray(after[name])[m]).all()


def test_an_optimizers_state_is_kept_entry_by_entry(small):
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9))
    old = optimizer.init(small.params)
    new = optimizer.update(jax.tree.map(jnp.ones_like, small.params), old, small.params)[1]
    live = {"w": jnp.ones((), bool), "b": jnp.zeros((), bool)}
    new_states = parameter_like(keep_anchored(small.params, live, new, old), small.params)[0]
    assert (np.asarray(new_states["w"]) != 0).all()
    assert (np.asarray(new_states["b"]) == 0).all()


@pytest.mark.parametrize("name", ["masked", "partition"])
def test_a_servers_state_of_some_parameters_alone_is_kept_too(small, lenient, name):
    """Momentum of anchored entries stays, under wrappers that take the other parameters out of the tree."""
    momentum = optax.sgd(1.0, momentum=0.9)
    optimizer = {
        "masked": optax.masked(momentum, {"w": True, "b": False}),
        "partition": optax.partition({"x": momentum, "y": optax.adam(0.1)}, {"w": "x", "b": "y"}),
    }[name]
    params = small.params
    state, live = optimizer.init(params), jax.tree.map(lambda p: jnp.ones(p.shape, bool), params)
    direction = jax.tree.map(jnp.ones_like, params)
    _, state = servers.step(optimizer, params, state, direction, live)
    live = {"w": jax.random.bernoulli(jax.random.key(0), 0.5, params["w"].shape), "b": jnp.array([True, False, True])}
    moved, after = servers.step(optimizer, params, state, direction, live)
    compared = 0
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        for kept in live.values():
            if old.shape == kept.shape:
                assert np.array_equal(old[~kept], new[~kept]) and not np.array_equal(old[kept], new[kept])
                compared += 1
    assert compared == {"masked": 1, "partition": 3}[name]
    assert all(np.array_equal(moved[k][~live[k]], params[k][~live[k]]) for k in live)
