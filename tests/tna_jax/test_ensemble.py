"""Many models, one program: the placements give the same bits as a plain loop, and members do not touch each other."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tna_jax import ensemble, metrics, models, transform
from tna_jax import placement as placement_lib
from tna_jax.ensemble import Trainer

MODEL = models.create("mlp", num_classes=3, depth=2, width=8)
M, N = 5, 50


def apply(params, x):
    return MODEL.apply({"params": params}, x.astype(jnp.float32) / np.float32(16))


def sgd(hyper):
    return optax.sgd(hyper["learning_rate"], momentum=0.9)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    return jax.device_put((rng.integers(0, 17, (N, 6)).astype(np.uint8), rng.integers(0, 3, N).astype(np.int32)))


def start(trainer: Trainer, members: int = M, rate: float = 0.1) -> ensemble.Members:
    """Members that differ in everything: initial value, mask, order, learning rate; drawn by NumPy, which compiles nothing."""
    rng, shapes = np.random.default_rng(0), jax.eval_shape(MODEL.init, jax.random.key(0), jnp.zeros((1, 6)))["params"]
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.4, (members, *leaf.shape)).astype(np.float32), shapes)
    mask = jax.tree.map(lambda leaf: np.stack([rng.random(leaf.shape) >= 0.1 * i for i in range(members)]), shapes)
    hyper = {"learning_rate": np.float32(rate) * (1 + np.arange(members, dtype=np.float32))}
    params, mask, hyper = jax.device_put((params, mask, hyper))
    return ensemble.init_ensemble(trainer, params, jax.random.split(jax.random.key(1), members), mask, hyper)


def same_bits(a, b) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


def trained(placement: str, data, epochs: int = 3, batch_size: int = 16):
    trainer = Trainer(apply, sgd, batch_size, placement)
    return ensemble.train_ensemble(trainer, start(trainer), *data, epochs)


def python_reference(data, epochs: int, batch_size: int):
    """No ensemble: for each model, for each epoch, for each batch, one step of optax; the last batch is simply shorter."""
    inputs, labels = data
    trainer = Trainer(apply, sgd, batch_size, "loop")
    everyone, results = start(trainer), []

    @jax.jit
    def step(params, state, mask, rate, x, y, weight):
        def loss(p):
            found = metrics.classification(apply(p, x), y, weight)
            return found.loss_sum / jnp.maximum(found.count, np.float32(1))

        optimizer = transform.anchored(optax.sgd(rate, momentum=0.9))
        updates, state = optimizer.update(jax.grad(loss)(params), state, params, mask=mask)
        return transform.apply_updates(params, updates, mask), state

    for i in range(M):
        member = ensemble.member(everyone, i)
        params, state = member.params, member.opt_state
        for epoch in range(epochs):
            order = np.asarray(jax.random.permutation(jax.random.fold_in(member.data_keys, epoch), N))
            for first in range(0, N, batch_size):
                chosen = order[first : first + batch_size]
                filler = batch_size - len(chosen)
                index = np.concatenate([chosen, np.zeros(filler, int)])
                weight = np.concatenate([np.ones(len(chosen)), np.zeros(filler)]).astype(np.float32)
                rate = member.hyper["learning_rate"]
                params, state = step(params, state, member.mask, rate, inputs[index], labels[index], weight)
        results.append(params)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)


@pytest.mark.optimized
def test_map_loop_and_a_plain_python_loop_give_the_same_bits_and_vmap_the_same_numbers(data):
    results = {placement: trained(placement, data) for placement in ("map", "vmap", "loop")}
    reference = python_reference(data, epochs=3, batch_size=16)
    for placement in ("map", "loop"):
        members, history = results[placement]
        assert same_bits(members.params, reference), placement
        assert same_bits(results["map"][1], history), placement
    for a, b in zip(*(jax.tree.leaves(results[placement][0].params) for placement in ("map", "vmap")), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)  # XLA compiles the batched arithmetic in another order
    started = start(Trainer(apply, sgd, 16)).params
    assert not same_bits(started, reference)  # the control: something was trained


def test_anchors_never_move_and_the_rest_does(data):
    before = start(Trainer(apply, sgd, 16))
    after, _ = trained("map", data)
    for m, old, new in zip(*map(jax.tree.leaves, (before.mask, before.params, after.params)), strict=True):
        frozen = ~np.asarray(m)
        assert np.asarray(old)[frozen].tobytes() == np.asarray(new)[frozen].tobytes()
        assert np.mean(np.asarray(old)[~frozen] != np.asarray(new)[~frozen]) > 0.4


@pytest.mark.optimized
@pytest.mark.cpu_only("needs several devices")
@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2, 3])
def test_any_number_of_devices_gives_the_same_bits(data, devices, monkeypatch):
    expected, history = trained("map", data)
    mesh = placement_lib.mesh(jax.devices()[:devices])
    monkeypatch.setattr(placement_lib, "mesh", lambda chosen=None: mesh)
    members, again = trained("map", data)
    assert same_bits(members.params, expected.params)
    assert same_bits(again, history)


@pytest.mark.slow
def test_the_compiled_epoch_has_no_collective(data):
    trainer, mesh = Trainer(apply, sgd, 16, "map"), placement_lib.mesh()
    members = placement_lib.shard(placement_lib.pad(start(trainer), mesh.size), mesh)
    program = ensemble.epoch_program(trainer, "map", mesh, False)
    text = program.lower(members, *placement_lib.replicate(data, mesh), jnp.int32(0)).compile().as_text()
    assert "while" in text
    for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert word not in text


def test_a_member_that_diverges_is_seen_and_disturbs_no_other(data):
    trainer = Trainer(apply, sgd, 16, "vmap")
    healthy = start(trainer)
    sick = healthy._replace(hyper={"learning_rate": healthy.hyper["learning_rate"].at[2].set(1e30)})
    expected, _ = ensemble.train_ensemble(trainer, healthy, *data, 2)
    found, history = ensemble.train_ensemble(trainer, sick, *data, 2)
    assert np.isfinite(history[-1].loss_sum).tolist() == [True, True, False, True, True]
    others = np.array([0, 1, 3, 4])
    assert same_bits(*(jax.tree.map(lambda x: np.asarray(x)[others], tree.params) for tree in (expected, found)))
    for m, old, new in zip(*map(jax.tree.leaves, (sick.mask, sick.params, found.params)), strict=True):
        frozen = ~np.asarray(m)[2]  # also the anchors of the sick one stay
        assert np.asarray(old)[2][frozen].tobytes() == np.asarray(new)[2][frozen].tobytes()


def test_every_example_counts_once_an_epoch(data):
    indices, weights = ensemble.batch_indices(jax.random.key(0), jnp.int32(4), N, 16)
    assert indices.shape == weights.shape == (4, 16)
    assert sorted(np.asarray(indices)[np.asarray(weights) > 0].tolist()) == list(range(N))
    other, _ = ensemble.batch_indices(jax.random.key(0), jnp.int32(5), N, 16)
    assert not np.array_equal(indices, other)
    _, history = trained("map", data)
    assert np.asarray(history[0].count).tolist() == [N] * M


def test_what_is_under_the_padding_does_not_matter():
    logits = jnp.array([[2.0, 0.0], [jnp.nan, 1.0], [0.0, 3.0]])
    classification = jax.jit(metrics.classification)
    found = classification(logits, jnp.array([0, 1, 1]), jnp.array([1.0, 0.0, 1.0]))
    expected = classification(np.asarray(logits)[[0, 2]], jnp.array([0, 1]), jnp.ones(2))
    assert [float(x) for x in found] == [float(x) for x in expected]
    assert found.count == 2 and found.correct == 2


def test_training_can_stop_and_go_on_to_the_same_bits(data):
    trainer = Trainer(apply, sgd, 16, "map")
    whole, _ = ensemble.train_ensemble(trainer, start(trainer), *data, 4)
    half, _ = ensemble.train_ensemble(trainer, start(trainer), *data, 2)
    rest, history = ensemble.train_ensemble(trainer, half, *data, 4, start=2)
    assert same_bits(whole.params, rest.params) and same_bits(whole.opt_state, rest.opt_state) and len(history) == 2
    again, _ = ensemble.train_ensemble(trainer, half, *data, 4, start=0)
    assert not same_bits(whole.params, again.params)


def test_members_are_copied_into_given_arrays_without_the_padding(data):
    trainer, seen = Trainer(apply, sgd, 16), []
    room = jax.tree.map(lambda x: np.full(x.shape, 7, x.dtype), tuple(start(trainer)[i] for i in (0, 2, 5)))

    def on_epoch(epoch, members, found):
        seen.append((members(), members(room)))

    ensemble.train_ensemble(trainer, start(trainer), *data, 1, on_epoch=on_epoch)
    ((fresh, copied),) = seen
    assert same_bits(fresh.params, copied.params) and same_bits(fresh.opt_state, copied.opt_state)
    assert same_bits(copied.params, room[0]) and not same_bits(room[0], start(trainer).params)


@pytest.mark.slow
def test_one_program_for_all_epochs(data):
    traces = []

    def counted(params, x):
        traces.append(1)
        return apply(params, x)

    trainer = Trainer(counted, optax.adam(optax.cosine_decay_schedule(0.1, 10)), 16, "map")
    members = start(trainer)
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules mix integers and floats
        ensemble.train_ensemble(trainer, members, *data, 1)
        first = len(traces)
        ensemble.train_ensemble(trainer, members, *data, 4)
    assert len(traces) == first


def test_the_callers_members_survive_training(data):
    trainer = Trainer(apply, sgd, 16, "map")
    members = start(trainer)
    copy = jax.tree.map(np.array, members.params)
    ensemble.train_ensemble(trainer, members, *data, 1)
    assert same_bits(members.params, copy)


@pytest.mark.cpu_only("the placement of CPUs")
@pytest.mark.parametrize("placement", ["auto", "map"])
def test_auto_takes_map_for_an_mlp_on_the_cpu(placement):
    one = jax.eval_shape(lambda: MODEL.init(jax.random.key(0), jnp.zeros((1, 6)))["params"])
    assert placement_lib.resolve(placement, apply, one, jnp.zeros((1, 6))) == "map"


@pytest.mark.cpu_only("the placement of CPUs")
def test_auto_takes_the_loop_for_convolutions_on_the_cpu():
    def convolve(w, x):
        return jax.lax.conv(x, w, (1, 1), "SAME")

    assert placement_lib.resolve("auto", convolve, jnp.zeros((2, 1, 3, 3)), jnp.zeros((1, 1, 8, 8))) == "loop"


def test_bad_input_is_refused_before_training(data):
    trainer = Trainer(apply, sgd, 64, "map")
    with pytest.raises(ValueError, match="a batch of 64 examples needs as many, but the data has 50"):
        ensemble.train_ensemble(trainer, start(trainer), *data, 1)
    with pytest.raises(ValueError, match="50 inputs but labels of shape"):
        ensemble.train_ensemble(trainer, start(trainer), data[0], data[1][:40], 1)
    members = start(trainer)
    with pytest.raises(ValueError, match=r"5 data keys.*params\['Dense_0'\]\['bias'\] \(4, 8\)"):
        ensemble.init_ensemble(trainer, jax.tree.map(lambda x: x[:4], members.params), members.data_keys)
    one_by_one = list(members.data_keys)
    with pytest.raises(ValueError, match=r"of keys one by one jnp.stack\(keys\); got list"):
        ensemble.init_ensemble(trainer, members.params, one_by_one)
    with pytest.raises(ValueError, match="batch_size is a whole number"):
        ensemble.train_ensemble(Trainer(apply, sgd, 2.0), members, *data, 1)
    for first, epochs in ((0, -1), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match=f"from epoch {first} to {epochs} there is nothing to train"):
            ensemble.train_ensemble(trainer, members, *data, epochs, start=first)
    for epoch in (-1, 1.5, True):
        with pytest.raises(ValueError, match=f"an epoch has a whole number, 0 or more; got {epoch}"):
            ensemble.train_epoch(trainer, members, *data, epoch)
    with pytest.raises(ValueError, match="unknown placement 'warp'"):
        ensemble.train_ensemble(Trainer(apply, sgd, 16, "warp"), members, *data, 1)


def test_a_member_that_is_not_there_is_refused():
    """JAX would take the nearest one; NumPy's arrays raise by themselves."""
    for stacked in (np.arange(6).reshape(3, 2), jnp.arange(6).reshape(3, 2)):
        assert ensemble.member({"w": stacked}, -1)["w"].tolist() == [4, 5]
        for index in (3, -4, np.int64(7)):
            with pytest.raises(IndexError, match=f"there are 3 members, 0 to 2; got {index}"):
                ensemble.member({"w": stacked}, index)
