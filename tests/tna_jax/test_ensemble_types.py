"""Types in training: sums in float32, half precision with hyper-parameters of a member's own, one compilation, memory given twice."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import meta

from tests.parameters import slow_but
from tna_jax import evaluate_paths, masks, networks, pairs, repair
from tna_jax.connectivity import grid
from tna_jax.ensemble import Trainer, init_ensemble, train_ensemble, train_epoch
from tna_jax.objectives import Objective

X = np.asarray(jax.random.normal(jax.random.key(0), (64, 4)))
Y = (X[:, 0] > 0).astype(np.int32) + (X[:, 1] > 1)
BF16 = jnp.bfloat16


@pytest.fixture
def as_users_have_it():
    """optax's Adam raises a number of Python to an integer power, which strict promotion refuses."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def network(params, x):
    return x.astype(params["w"].dtype) @ params["w"]


def keys(count=2):
    return jax.random.split(jax.random.key(1), count)


@pytest.mark.slow
def test_gradients_of_parts_are_summed_in_float32():
    steps = {}
    for parts in (1, 64):
        trainer = Trainer(network, optax.sgd(1.0), 64, "map", accumulate=parts)
        members = init_ensemble(trainer, {"w": jnp.zeros((1, 4, 3), BF16)}, keys(1))
        steps[parts] = np.asarray(train_ensemble(trainer, members, X, Y, 1)[0].params["w"], np.float32)
    # A part's gradient has 8 digits, and so has the sum; sums in bfloat16 were off by a tenth.
    assert np.abs(steps[64] - steps[1]).max() <= 2**-7 * np.abs(steps[1]).max()


OPTIMIZERS = {
    "clipping": lambda h: optax.chain(optax.clip_by_global_norm(h["h"]), optax.adam(0.1)),
    "rate": lambda h: optax.adam(h["h"]),
    "momentum": lambda h: optax.sgd(0.1, momentum=h["h"]),
    "decay": lambda h: optax.chain(optax.add_decayed_weights(h["h"]), optax.sgd(0.1, momentum=0.9)),
    "b1": lambda h: optax.adam(0.1, b1=h["h"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("placement", slow_but(["map"], ["map", "loop"]))
@pytest.mark.parametrize("name", slow_but(["decay"], OPTIMIZERS))
def test_half_precision_with_hyper_parameters_is_training_with_numbers_of_python(name, placement, as_users_have_it):
    params = {"w": jnp.full((1, 4, 3), 0.1, BF16)}
    found = []
    for optimizer, hyper in ((OPTIMIZERS[name], {"h": [0.2]}), (OPTIMIZERS[name]({"h": 0.2}), None)):
        trainer = Trainer(network, optimizer, 32, placement)
        members = init_ensemble(trainer, params, keys(1), hyper=hyper)
        found.append(train_ensemble(trainer, members, X, Y, 1)[0])
    np.testing.assert_array_equal(*(np.asarray(m.params["w"], np.float32) for m in found))
    assert found[0].params["w"].dtype == BF16


def test_an_optimizer_that_makes_float32_of_half_precision_has_it_from_the_start(as_users_have_it):
    optimizer = optax.chain(optax.add_decayed_weights(jnp.float32(0.1)), optax.sgd(0.1, momentum=0.9))
    trainer = Trainer(network, optimizer, 32, "map")
    members = init_ensemble(trainer, {"w": jnp.full((1, 4, 3), 0.1, BF16)}, keys(1))
    done, history = train_ensemble(trainer, members, X, Y, 1)
    assert {x.dtype for x in jax.tree.leaves(done.opt_state)} == {np.dtype("float32")}
    assert done.params["w"].dtype == BF16 and np.isfinite(history[0].loss).all()


def moving(momentum=0.9):
    def train(params, state, x, weight):
        mean = {"mean": state["mean"] * momentum + (1 - momentum) * x.mean(0).astype(state["mean"].dtype)}
        return network(params, x), mean

    return networks.Stateful(train, lambda params, state, x: network(params, x - state["mean"].astype(x.dtype)[None]))


def test_running_statistics_are_float32_whatever_the_types_are():
    x = X + np.float32(100)
    state = {"mean": jnp.zeros((1, 4), BF16)}
    trainer = Trainer(moving(0.999), optax.sgd(0.0), 1, "map")
    members = init_ensemble(trainer, {"w": jnp.zeros((1, 4, 3), BF16)}, keys(1), state=state)
    done, _ = train_ensemble(trainer, members, x, Y, 4)  # 256 steps of 1/1000
    np.testing.assert_allclose(done.state["mean"][0], 100 * (1 - 0.999**256), rtol=2e-2)
    one = {"w": jnp.zeros((4, 3), BF16)}, {"mean": jnp.zeros(4, BF16)}
    reset = repair.reset_batch_stats(moving(), *one, x, batch_size=1)["mean"]
    assert reset.dtype == BF16
    np.testing.assert_allclose(np.asarray(reset, np.float32), x.mean(0), rtol=2**-8)


def compilations(run):
    events = []

    def listen(event, _, **__):
        if "backend_compile" in event:
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        run()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return len(events)


@pytest.mark.parametrize("placement", slow_but(["map"], ["map", "vmap", "loop"]))
def test_the_second_epoch_compiles_nothing_whatever_was_given(placement):
    """A weak type (`jnp.full(shape, 0.1)`), and members that were not placed: what comes out is what went in."""
    trainer = Trainer(network, optax.sgd(0.1, momentum=0.9), 32, placement)
    members = init_ensemble(trainer, {"w": jnp.full((2, 4, 3), 0.1)}, keys())
    members, _ = train_epoch(trainer, members, X, Y, 0)
    assert compilations(lambda: jax.block_until_ready(train_epoch(trainer, members, X, Y, 1))) == 0
    assert not members.params["w"].weak_type


def test_members_do_not_change_with_the_arrays_they_were_made_of():
    """Checkpoints are copied into the arrays that a wave started from: members that shared their memory changed with it."""
    memory = np.ones(2 * 64 * 64 * 4 + 64, np.uint8)
    w = memory[-memory.ctypes.data % 64 :][: 2 * 64 * 64 * 4].view(np.float32).reshape(2, 64, 64)  # as JAX can share it
    w[:] = 1
    members = init_ensemble(Trainer(network, optax.sgd(0.1), 32, "map"), {"w": w}, keys())
    w[:] = 2
    assert (np.asarray(members.params["w"]) == 1).all()


@pytest.mark.slow
def test_one_array_in_two_places_can_be_donated():
    tied, bit = jnp.ones((2, 4, 3)), jnp.ones((2, 4, 3), bool)
    trainer = Trainer(lambda p, x: x @ p["w"] + x @ p["v"], optax.sgd(0.1), 32, "map")
    members = init_ensemble(trainer, {"w": tied, "v": tied}, keys(), {"w": bit, "v": bit})
    expected = train_epoch(trainer, members, X, Y, 0)[0]
    found = train_epoch(trainer, members, X, Y, 0, donate=True)[0]
    np.testing.assert_array_equal(*(np.asarray(m.params["v"]) for m in (expected, found)))


@pytest.mark.slow
def test_parts_that_are_none_or_boxed_train(as_users_have_it):
    boxed = {"w": meta.Partitioned(jnp.ones((2, 4, 3)), names=(None, None, None)), "none": None}
    trainer = Trainer(lambda p, x: x @ p["w"].value, optax.adam(0.1), 32, "map")
    mask = masks.bernoulli(jax.random.key(0), boxed, 0.5)
    done, history = train_ensemble(trainer, init_ensemble(trainer, boxed, keys(), mask), X, Y, 1)
    kept = np.asarray(done.params["w"].value) == 1
    assert kept[~np.asarray(mask["w"].value)].all() and not kept.all() and np.isfinite(history[0].loss).all()


@pytest.mark.parametrize("placement", ["map", "loop", pytest.param("vmap", marks=pytest.mark.slow)])
def test_a_run_of_one_model_has_no_pairs_and_empty_paths(placement):
    found = evaluate_paths(network, {"w": jnp.ones((1, 4, 3))}, pairs(1), grid(3), {"t": (X, Y)}, placement=placement)
    assert found["t"].loss.shape == found["t"].accuracy.shape == (0, 3)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_complex_parameters_descend_in_both_parts(accumulate):
    """Steps of SGD on a quadratic loss, by NumPy; anchors stay, bit for bit."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 3)).astype(np.float32)
    y = (x @ np.array([[1 + 2j], [-1j], [0.5]])).astype(np.complex64)
    objective = Objective("complex", lambda out, t: jnp.sum(jnp.square(jnp.abs(out - t)), -1))
    network = lambda p, x: x.astype(p["w"].dtype) @ p["w"]  # noqa: E731
    start, mask = np.full((1, 3, 1), 0.3 - 0.2j, np.complex64), np.array([True, True, False])[None, :, None]
    trainer = Trainer(network, optax.sgd(0.1), 8, objective=objective, accumulate=accumulate)
    members = init_ensemble(trainer, {"w": start}, jax.random.split(jax.random.key(0), 1), {"w": mask})
    found, _ = train_ensemble(trainer, members, x, y, 5)
    expected = start[0].astype(np.complex128)
    for _ in range(5):
        expected = expected - 0.1 * mask[0] * 2 * x.T @ (x @ expected - y) / 8
    np.testing.assert_allclose(found.params["w"][0], expected, atol=2e-6)
    assert np.asarray(found.params["w"])[0, 2].tobytes() == start[0, 2].tobytes()


def test_parameters_that_are_no_floats_are_named_unless_they_are_frozen():
    start = {"w": np.zeros((2, 4, 3), np.float32), "table": {"rows": np.zeros((2, 3), np.int32)}}
    keys = jax.random.split(jax.random.key(0), 2)
    with pytest.raises(TypeError, match=r"not: table/rows \(int32\)"):
        init_ensemble(Trainer(network, optax.sgd(0.1), 8), start, keys)
    frozen = Trainer(network, optax.sgd(0.1), 8, freeze="table")
    found, _ = train_ensemble(frozen, init_ensemble(frozen, start, keys), X, Y, 1)
    assert found.params["table"]["rows"].dtype == np.int32 and np.any(found.params["w"])
