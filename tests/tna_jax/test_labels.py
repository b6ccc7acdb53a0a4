"""Labels and losses: any integer type gives the same numbers, everything else is refused by name, logits may be -inf."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tna_jax.federated as F
from tests.parameters import slow_but
from tna_jax import evaluate_paths, finetuning, metrics, objectives, pairs
from tna_jax.connectivity import grid
from tna_jax.ensemble import Trainer, init_ensemble, train_ensemble
from tna_jax.federated import evaluation, partition, simulation
from tna_jax.objectives import Objective

CLASSES = 300
X = np.asarray(jax.random.normal(jax.random.key(0), (8, 4)))
Y = np.arange(8) % 4


def network(params, x):
    return x @ params["w"]


def members(classes=CLASSES):
    return {"w": jax.random.normal(jax.random.key(1), (2, 4, classes))}


def train(labels, classes=4, loss=None, **options):
    trainer = Trainer(network, optax.sgd(0.1), 4, "map", loss=loss, **options)
    start = init_ensemble(trainer, members(classes), jax.random.split(jax.random.key(2), 2))
    return train_ensemble(trainer, start, X, labels, 1)[1]


def path(labels, classes=4):
    return evaluate_paths(network, members(classes), pairs(2), grid(3), {"t": (X, labels)}, placement="map")["t"]


def federation_of(classes):
    federation = F.Federation(network, 2, classes, batch_size=4, placement="map")
    return federation, F.init_server(federation, {"w": members(classes)["w"][0]})


def client(labels, classes=4):
    federation, server = federation_of(classes)
    sent = F.broadcast(federation, server, F.Schedule(), jax.random.key(0), 0, 0.1)
    return F.train_client(federation, sent, F.init_client_state(federation, server), X, labels, jax.random.key(1))


def simulated(labels, classes=4):
    federation, server = federation_of(classes)
    clients = partition.padded(partition.partition("iid", jax.random.key(0), Y, 2))
    states = simulation.init_client_states(federation, server)
    return simulation.simulate_round(
        federation, F.Schedule(), jax.random.key(0), 0, server, states, clients, X, labels, 0.1
    )


def on_test_set(labels, classes=4):
    federation, server = federation_of(classes)
    return evaluation.evaluate(federation, server, None, evaluation.TestSet(X, labels))


def dealt(labels):
    return partition.partition("dirichlet", jax.random.key(0), labels, 2)


USES = {"ensemble": train, "path": path, "client": client, "round": simulated, "test set": on_test_set}
WRONG = {
    "column": (Y[:, None], r"of a column take labels\[..., 0\]"),
    "one-hot": (np.eye(4, dtype=np.int32)[Y], r"one-hot rows take labels.argmax\(-1\)"),
    "unlabeled": (Y - 1, "2 labels below 0"),
    "words": (np.array(["cat", "dog"])[Y % 2], "return_inverse"),
    "fractions": (Y / 2, "labels of type float64"),
    "too many": (Y * 2, "labels up to 6, but there are 4 classes"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("use", USES)
def test_what_is_no_label_is_refused_by_name(use, wrong):
    labels, message = WRONG[wrong]
    with pytest.raises(ValueError, match=message):
        USES[use](labels)


@pytest.mark.parametrize("dtype", slow_but(["uint8"], ["uint8", "int8", "uint16", "int64", "uint32"]))
@pytest.mark.parametrize("use", slow_but(["ensemble"], USES))
def test_any_integer_type_gives_the_numbers_of_int32(use, dtype):
    """One byte counts to 255: a comparison with 300 classes must not happen in it."""
    expected, found = (jax.tree.leaves(USES[use](Y.astype(t), CLASSES)) for t in ("int32", dtype))
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("kind", ["dirichlet", "shard"])
def test_partitions_take_words_and_numbers_below_zero_as_classes(kind):
    words = np.array(["car", "cat", "dog", "ship"])[Y]
    for labels in (words, Y - 1, Y.astype(np.uint8)):
        parts = partition.partition(kind, jax.random.key(0), labels, 2)
        assert sorted(np.concatenate(parts)) == list(range(8))
    for a, b in zip(dealt(words), dealt(Y), strict=True):
        assert a.tolist() == b.tolist()
    for wrong in ("column", "one-hot", "fractions"):
        with pytest.raises(ValueError, match=WRONG[wrong][1]):
            partition.partition(kind, jax.random.key(0), WRONG[wrong][0], 2)


def test_a_label_outside_is_not_a_number_where_values_cannot_be_seen():
    losses = jax.jit(metrics.cross_entropy)(jnp.zeros((3, 4)), jnp.array([-1, 0, 4]))
    assert np.isnan(losses).tolist() == [True, False, True]


def test_a_logit_of_minus_infinity_is_a_class_that_cannot_occur():
    logits = jnp.array([[0.5, 1.0, -jnp.inf]])
    label = jnp.array([1])
    expected = jax.jit(metrics.cross_entropy)(logits[:, :2], label)
    for loss in (metrics.cross_entropy, lambda z, y: finetuning.smoothed(z, y, {"label_smoothing": jnp.float32(0)})):
        value, slope = jax.jit(jax.value_and_grad(lambda z: loss(z, label).sum()))(logits)  # noqa: B023
        assert value == expected[0] and np.isfinite(slope).all()
    both = jax.jit(objectives.multi_label().sums)(logits, jnp.array([[1.0, 1.0, 0.0]]), jnp.ones(1))
    assert np.isfinite(both.loss) and both["exact_match"] == 1


@pytest.mark.parametrize("shape", [(4, 1), (), (1,)])
def test_a_loss_of_another_shape_is_refused_not_broadcast(shape):
    def loss(outputs, targets, hyper=None):
        return jnp.broadcast_to(outputs.mean(), shape)

    with pytest.raises(ValueError, match="have the shape"):
        train(Y, loss=loss)
    with pytest.raises(ValueError, match="have the shape"):
        train(Y, objective=Objective("mine", loss))


def test_classification_with_another_loss_says_what_to_use():
    with pytest.raises(ValueError, match='Objective\\("name"'):
        objectives.Classification(loss=lambda z, y: z.sum(-1))
