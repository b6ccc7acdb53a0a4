"""What was anchored for a whole round does not move, bit for bit, under any algorithm, server and mask schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tna_jax import masks
from tna_jax.federated import (
    ALGORITHMS,
    DISTIL,
    ORDER,
    SERVERS,
    FedSam,
    Scaffold,
    Schedule,
    close,
    gather,
    init_own,
    init_server,
    of_round,
    send,
    stack,
    stream,
    train_client,
)
from tna_jax.federated.algorithm import gradient_weight
from tna_jax.federated.servers import keep_anchored

CASES = {
    "pfn": (Schedule("pfn", 0.5), {}),
    "pnu-rounds": (Schedule("pnu-rounds", 0.5), {}),
    "pnu, one step": (Schedule("pnu", 0.5), {"epochs": 1, "batch_size": 16}),
}
"""A client with one step has no second phase: under pnu the complement of its mask is anchored for the whole round."""


def one_round(small, federation, schedule, server, owns, number):
    sent = send(federation, server, schedule, small.root, number, 0.1)
    replies = []
    for k, rows in enumerate(small.rows):
        key = stream(small.root, ORDER, number, k)
        reply, owns[k] = train_client(federation, sent, owns[k], small.x[rows], small.y[rows], key)
        replies.append(reply)
    proxy = jnp.asarray(small.x[:6])
    found = gather(federation, sent, stack(replies), jnp.ones(4, bool), proxy)
    return close(federation, server, sent, found, stream(small.root, DISTIL, number), proxy), replies


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
        changed.append((old[m] != new[m]).mean())
    return np.mean(changed)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.usefixtures("lenient")
def test_an_entry_anchored_for_a_round_is_as_it_was(small, algorithm, case):
    """The round before gave all entries momentum and variates that are not 0: the third round of each pair is looked at."""
    schedule, options = CASES[case]
    for name, make in SERVERS.items():
        what = f"{algorithm}, {name}, {case}"
        federation = small.federation(algorithm=ALGORITHMS[algorithm](), server=make(), **options)
        server = init_server(federation, small.params)
        owns = {k: init_own(federation, server) for k in range(4)}
        for number in range(2):
            server, _ = one_round(small, federation, Schedule(), server, owns, number)
        before, owned = server, dict(owns)
        live = of_round(schedule, small.root, small.params, 2).mask
        assert 0.1 < float(masks.anchored_ratio(live)) < 0.9
        server, replies = one_round(small, federation, schedule, server, owns, 2)
        assert assert_kept(live, before.params, server.params, what) > 0.8
        pairs = zip(parameter_like(before[2:], small.params), parameter_like(server[2:], small.params), strict=True)
        for old, new in pairs:
            assert assert_kept(live, old, new, what) > 0.8
        for k in range(4):
            assert assert_kept(live, small.params, jax.tree.map(jnp.add, small.params, replies[k].delta), what) > 0.5
            for old, new in zip(
                parameter_like(owned[k], small.params), parameter_like(owns[k], small.params), strict=True
            ):
                if algorithm == "moon":  # keeps the whole local model: its anchored entries are the server's
                    old = before.params
                assert assert_kept(live, old, new, what) > 0.5


@pytest.mark.usefixtures("lenient")
def test_without_the_rule_momentum_and_h_would_move_anchors(small):
    """The control: plain optax on the same direction moves what was anchored."""
    federation = small.federation(algorithm=ALGORITHMS["feddyn"](), server=SERVERS["fedavgm"]())
    server = init_server(federation, small.params)
    owns = {k: init_own(federation, server) for k in range(4)}
    for number in range(2):
        server, _ = one_round(small, federation, Schedule(), server, owns, number)
    zero = jax.tree.map(jnp.zeros_like, small.params)
    moved = federation.server.optimizer.update(zero, server.opt_state, server.params)[0]
    assert all(np.abs(leaf).min() > 0 for leaf in jax.tree.leaves(moved))
    assert all(np.abs(leaf).min() > 0 for leaf in jax.tree.leaves(server.extra))


def test_pnu_moves_every_entry_and_only_in_its_phase(small):
    """Four steps, the first under the mask: entries of the mask count 1 step, the others 3."""
    federation = small.federation(algorithm=Scaffold(), epochs=4, batch_size=16)
    server = init_server(federation, small.params)
    sent = send(federation, server, Schedule("pnu", 0.5, split=0.25), small.root, 0, 0.1)
    key = stream(small.root, ORDER, 0, 1)
    rows = small.rows[1]
    reply, own = train_client(federation, sent, init_own(federation, server), small.x[rows], small.y[rows], key)
    assert reply.steps.tolist() == [1, 3]
    for m, delta, variate in zip(*map(jax.tree.leaves, (sent.mask, reply.delta, own.memory)), strict=True):
        assert (np.asarray(delta) != 0).all()
        steps = np.where(np.asarray(m), 1, 3)
        np.testing.assert_allclose(variate, -np.asarray(delta) / (steps * 0.1), rtol=1e-5)
    alone = small.federation(epochs=1, batch_size=16)
    first = train_client(
        alone, sent._replace(split=jnp.float32(1)), init_own(alone, server), small.x[rows], small.y[rows], key
    )[0]
    for m, both, one in zip(*map(jax.tree.leaves, (sent.mask, reply.delta, first.delta)), strict=True):
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
        np.testing.assert_allclose(moved, expected, rtol=1e-6)


def test_an_optimizers_state_is_kept_entry_by_entry(small):
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9))
    old = optimizer.init(small.params)
    new = optimizer.update(jax.tree.map(jnp.ones_like, small.params), old, small.params)[1]
    live = {"w": jnp.ones((), bool), "b": jnp.zeros((), bool)}
    kept = parameter_like(keep_anchored(optimizer, live, new, old), small.params)[0]
    assert (np.asarray(kept["w"]) != 0).all()
    assert (np.asarray(kept["b"]) == 0).all()
