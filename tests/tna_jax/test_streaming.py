"""Training on a stream takes the steps of training on arrays; it can stop inside an epoch; nothing depends on the reading."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.parameters import slow
from tna_jax import ensemble, networks, objectives, streaming
from tna_jax.connectivity import evaluate_paths
from tna_jax.ensemble import Trainer
from tna_jax.models.mlp import MLP

EXAMPLES, MEMBERS = 50, 3


class Arrays:
    """A stream of arrays, which counts what is read."""

    def __init__(self, x, y):
        self.x, self.y, self.read = x, y, 0

    def __len__(self):
        return len(self.y)

    def batches(self, rows):
        for row in rows:
            self.read += len(row)
            yield jax.tree.map(lambda leaf, row=row: leaf[row], (self.x, self.y))


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(EXAMPLES, 6)).astype(np.float32), rng.integers(0, 3, EXAMPLES).astype(np.int32)


def setup(placement="map", batch_size=16, keys=(0, 1, 2), **fields):
    network, init = networks.linen(MLP(depth=1, width=5, num_classes=3), (6,))
    trainer = Trainer(network, optax.sgd(0.1, momentum=0.9), batch_size, placement, **fields)
    params, state = jax.vmap(init)(jax.random.split(jax.random.key(0), MEMBERS))
    order = jnp.stack([jax.random.key(key) for key in keys])
    return trainer, ensemble.init_ensemble(trainer, params, order, state=state)


def noise(key, x):
    return x + 0.1 * jax.random.normal(key, x.shape, x.dtype)


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), a, b)


def same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["map", *slow("vmap", "loop")])
def test_a_stream_trains_as_the_arrays_do(placement):
    trainer, members = setup(placement, augment=noise)
    in_memory, history = ensemble.train_ensemble(trainer, members, *data(), 2)
    streamed, sums = streaming.train_stream(trainer, members, Arrays(*data()), 2)
    close(in_memory.params, streamed.params)
    close(in_memory.opt_state, streamed.opt_state)
    for a, b in zip(history, sums, strict=True):
        np.testing.assert_allclose(a.loss_sum, b.loss_sum, rtol=1e-6)
        same((a.correct, a.count), (b.correct, b.count))


@pytest.mark.optimized
@pytest.mark.parametrize("placement", ["map", *slow("vmap", "loop")])
def test_a_stream_gives_the_bits_of_the_arrays(placement):
    trainer, members = setup(placement, augment=noise)
    in_memory, _ = ensemble.train_ensemble(trainer, members, *data(), 2)
    streamed, _ = streaming.train_stream(trainer, members, Arrays(*data()), 2)
    same((in_memory.params, in_memory.opt_state), (streamed.params, streamed.opt_state))


def test_a_training_that_stops_inside_an_epoch_continues_to_the_same_bits():
    trainer, members = setup()
    stream, saved = Arrays(*data()), []

    def on_part(position, now):
        saved.append((position, jax.tree.map(np.copy, ensemble.trained_part(now()))))

    whole, sums = streaming.train_stream(trainer, members, stream, 2, part=1, on_part=on_part)
    position, trained = saved[4]
    assert (position.epoch, position.step) == (1, 2)
    rest, more = streaming.train_stream(
        trainer, ensemble.with_trained(members, trained), stream, 2, start=1, within=position, part=1
    )
    same(whole.params, rest.params)
    same(whole.opt_state, rest.opt_state)
    same(sums[1], more[0])


@pytest.mark.slow
def test_members_with_one_order_share_what_is_read():
    trainer, members = setup(keys=(0, 0, 0))
    stream = Arrays(*data())
    streamed, _ = streaming.train_stream(trainer, members, stream, 1)
    assert stream.read == 1 + 64  # one example to see its form; four batches
    close(ensemble.train_ensemble(trainer, members, *data(), 1)[0].params, streamed.params)


def test_batches_of_members_are_each_in_its_own_order():
    _, members = setup(keys=(4, 7, 4))
    x, y = data()
    seen = list(streaming.member_batches(Arrays(x, y), members.data_keys, 3, 16))
    for m in range(MEMBERS):
        indices, weights = ensemble.batch_indices(members.data_keys[m], 3, EXAMPLES, 16)
        same([batch[0][m] for _, batch, _ in seen], list(x[np.asarray(indices)]))
        same([weight for *_, weight in seen], list(weights))
    rest = list(streaming.member_batches(Arrays(x, y), members.data_keys, 3, 16, done=2))
    assert [number for number, *_ in rest] == [2, 3]
    same([batch for _, batch, _ in rest], [batch for _, batch, _ in seen[2:]])


@pytest.mark.slow
def test_a_path_is_measured_on_a_stream_as_on_the_arrays():
    trainer, members = setup()
    x, y = data()
    splits = {"arrays": (x, y), "stream": Arrays(x, y)}
    paths = evaluate_paths(trainer.network, members.params, [(0, 1), (1, 2)], 3, splits, batch_size=16)
    arrays, stream = paths["arrays"].metrics, paths["stream"].metrics
    same((arrays.correct, arrays.count), (stream.correct, stream.count))
    np.testing.assert_allclose(arrays.loss_sum, stream.loss_sum, rtol=1e-5)
    assert stream.count.dtype == np.float64  # exact beyond 2^24 examples


def test_bad_input_is_refused_before_training():
    trainer, members = setup(batch_size=64)
    with pytest.raises(ValueError, match="a batch of 64 examples needs as many, but the data has 50"):
        streaming.train_stream(trainer, members, Arrays(*data()), 1)
    trainer, members = setup()
    x, y = data()
    with pytest.raises(ValueError, match="labels of shape"):
        streaming.train_stream(trainer, members, Arrays(x, y[:, None]), 1)
    with pytest.raises(ValueError, match="3"):
        streaming.train_stream(trainer, members, Arrays(x, np.full_like(y, 3)), 1)
    own = members._replace(member_data=(np.stack([x] * 3), np.stack([y] * 3)))
    with pytest.raises(ValueError, match="data of their own|their own data"):
        streaming.train_stream(trainer, own, Arrays(x, y), 1)


@pytest.mark.slow
def test_targets_and_inputs_may_be_trees():
    x, _ = data()
    tree = {"a": x[:, :3], "b": x[:, 3:]}

    def network(params, inputs):
        return inputs["a"] @ params["w"] + inputs["b"] @ params["w"]

    trainer = Trainer(network, optax.sgd(0.1), 16, "map", objective=objectives.regression())
    members = ensemble.init_ensemble(trainer, {"w": jnp.ones((2, 3, 1))}, jax.random.split(jax.random.key(0), 2))
    targets = x[:, :1]
    in_memory, _ = ensemble.train_ensemble(trainer, members, tree, targets, 1)
    close(in_memory.params, streaming.train_stream(trainer, members, Arrays(tree, targets), 1)[0].params)


def test_epochs_and_positions_that_are_none_are_refused():
    trainer, members = setup(batch_size=16)  # 4 steps
    position = streaming.Position
    for options, message in (
        ({"start": 3}, "from epoch 3 to 2 there is nothing to train"),
        ({"part": 0}, "1 or more steps, got 0"),
        ({"within": position(1, 2, None)}, "inside epoch start=0, of 4 steps, after one of them; got epoch 1, step 2"),
        ({"within": position(0, 4, None)}, "got epoch 0, step 4"),
    ):
        with pytest.raises(ValueError, match=message):
            streaming.train_stream(trainer, members, Arrays(*data()), 2, **options)
