"""The path in one pass against a plain loop, and the five barriers against hand-written numbers."""

import functools
import itertools
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import slow, slow_but
from tna_jax import barrier, connectivity, evaluate_paths, line, objectives, pairs
from tna_jax import placement as placement_lib
from tna_jax.barriers import BarrierKind
from tna_jax.connectivity import Path
from tna_jax.connectivity.inputs import stacked_models
from tna_jax.metrics import Metrics

SIZES = (6, 7, 3)


def apply(params, x):
    x = x.astype(jnp.float32) / np.float32(16)
    return jax.nn.relu(x @ params["u"]) @ params["v"]


@pytest.fixture(scope="module")
def members():
    keys = jax.random.split(jax.random.key(0), 2)
    return {"u": jax.random.normal(keys[0], (4, *SIZES[:2])), "v": jax.random.normal(keys[1], (4, *SIZES[1:]))}


@pytest.fixture(scope="module")
def data():
    keys = jax.random.split(jax.random.key(1), 4)
    return {
        "train": (
            jax.random.randint(keys[0], (53, 6), 0, 17).astype(jnp.uint8),
            jax.random.randint(keys[1], (53,), 0, 3),
        ),
        "test": (
            jax.random.randint(keys[2], (11, 6), 0, 17).astype(jnp.uint8),
            jax.random.randint(keys[3], (11,), 0, 3),
        ),
    }


def plain_loop(members, chosen, alphas, inputs, labels):
    """NumPy, float64, one example at a time: what the pass must compute."""
    loss, correct = np.zeros((len(chosen), len(alphas))), np.zeros((len(chosen), len(alphas)))
    for p, (i, j) in enumerate(chosen):
        for k, alpha in enumerate(alphas):
            a, b = ({name: np.asarray(leaf[m], np.float64) for name, leaf in members.items()} for m in (i, j))
            u, v = ((1 - alpha) * a[name] + alpha * b[name] for name in ("u", "v"))
            for x, y in zip(np.asarray(inputs), np.asarray(labels), strict=True):
                logits = np.maximum(x / 16 @ u, 0) @ v
                loss[p, k] += np.log(np.exp(logits).sum()) - logits[y]
                correct[p, k] += logits.argmax() == y
    return loss, correct


@pytest.mark.parametrize(
    ("batch_size", "placement"),
    slow_but([(10, "map")], itertools.product([1000, 10], ["map", "vmap", "loop"])),
)
def test_the_pass_equals_a_plain_loop(members, data, placement, batch_size):
    alphas, chosen = connectivity.grid(5), pairs(3)
    found = evaluate_paths(apply, members, chosen, alphas, data, batch_size=batch_size, placement=placement)
    for split, (inputs, labels) in data.items():
        loss, correct = plain_loop(members, chosen, alphas, inputs, labels)
        np.testing.assert_allclose(found[split].metrics.loss_sum, loss, rtol=2e-6)
        np.testing.assert_array_equal(found[split].metrics.correct, correct)
        np.testing.assert_array_equal(found[split].metrics.count, np.full((3, 5), len(labels)))


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["map", *slow("vmap", "loop")])
def test_the_ends_equal_the_stand_alone_evaluation(members, data, placement):
    """Bit for bit where models are evaluated one after the other; `vmap` of 12 points and of 6 models are two programs, and
    some CPUs round their batched softmax differently."""
    loss_equal = (
        functools.partial(np.testing.assert_allclose, rtol=1e-6)
        if placement == "vmap"
        else np.testing.assert_array_equal
    )
    chosen = pairs(4)
    path = evaluate_paths(apply, members, chosen, connectivity.grid(3), data, batch_size=10, placement=placement)
    alone = connectivity.evaluate(apply, members, data, batch_size=10, placement=placement)
    for split in data:
        for end, column in ((0, 0), (-1, 1)):
            on_path, on_its_own = path[split].metrics, alone[split]
            loss_equal(on_path.loss_sum[:, end], np.asarray(on_its_own.loss_sum)[chosen[:, column]])
            for which in ("correct", "count"):
                found, expected = getattr(on_path, which)[:, end], np.asarray(getattr(on_its_own, which))
                np.testing.assert_array_equal(found, expected[chosen[:, column]])
        assert not np.array_equal(path[split].metrics.loss_sum[:, 1], np.asarray(alone[split].loss_sum)[chosen[:, 0]])


def test_a_path_from_a_model_to_itself_is_flat_and_a_reversed_path_has_the_same_barriers(members, data):
    found = evaluate_paths(apply, members, np.array([[1, 1], [0, 2], [2, 0]]), connectivity.grid(5), data)["train"]
    for metric in ("accuracy", "loss"):
        for kind in ("linear", "relative", "midpoint", "ends"):
            values = np.asarray(barrier(found, kind, metric))
            assert values[0] == 0, (kind, metric)
            np.testing.assert_allclose(values[1], values[2], rtol=1e-5, atol=1e-7)
    assert (
        abs(np.asarray(barrier(found, "midpoint", "loss"))[1]) > 0.01
    )  # the control: two different models are not flat


@pytest.mark.cpu_only("needs eight devices")
def test_number_of_devices_changes_nothing(members, data, monkeypatch):
    every = evaluate_paths(apply, members, pairs(3), connectivity.grid(5), data)["train"]
    assert jax.device_count() == 8
    one_device = placement_lib.mesh(jax.devices()[:1])
    monkeypatch.setattr(placement_lib, "mesh", lambda devices=None: one_device)
    alone = evaluate_paths(apply, members, pairs(3), connectivity.grid(5), data)["train"]
    for a, b in zip(every.metrics, alone.metrics, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_second_call_compiles_nothing(members, data):
    traces = []

    def counted(params, x):
        traces.append(1)
        return apply(params, x)

    evaluate_paths(counted, members, pairs(3), connectivity.grid(5), data, placement="map")
    first = len(traces)
    evaluate_paths(counted, members, pairs(3), np.array([0, 0.2, 0.5, 0.9, 1]), data, placement="map")
    assert len(traces) == first


def path(loss=None, correct=None, alphas=(0, 0.25, 0.5, 0.75, 1)) -> Path:
    loss = np.zeros(len(alphas)) if loss is None else np.array(loss, float)
    correct = np.zeros(len(alphas)) if correct is None else np.array(correct, float)
    return Path(np.array(alphas), Metrics(loss, correct, np.ones(len(alphas))))


@pytest.mark.parametrize(
    ("kind", "metric", "values", "expected"),
    [
        ("linear", "loss", [1, 4, 5, 6, 5], 2.0),  # line 1 2 3 4 5, gaps 0 2 2 2 0
        ("midpoint", "loss", [1, 4, 3, 6, 5], 0.0),
        ("ends", "loss", [1, 4, 5, 6, 5], 3.0),  # 6 - (1 + 5) / 2
        ("worst", "loss", [1, 4, 5, 6, 5], 6.0),
        ("relative", "loss", [1, 4, 5, 6, 5], 1.0),  # gap 2 over line 2
        ("linear", "accuracy", [0.5, 0.25, 0.5, 0.875, 1.0], 0.375),  # line .5 .625 .75 .875 1
        ("relative", "accuracy", [0.5, 0.25, 0.5, 0.875, 1.0], 0.6),  # .375 / .625
        ("midpoint", "accuracy", [0.5, 0.25, 0.5, 0.875, 1.0], 0.25),
        ("ends", "accuracy", [0.5, 0.25, 0.5, 0.875, 1.0], 0.5),  # .75 - .25
        ("worst", "accuracy", [0.5, 0.25, 0.5, 0.875, 1.0], 0.75),
        ("linear", "accuracy", [0.5, 0.75, 0.875, 0.9375, 1.0], 0.0),  # above the line: no barrier, never negative
    ],
)
def test_barriers_by_hand(kind, metric, values, expected):
    assert barrier(path(**{"loss" if metric == "loss" else "correct": values}), kind, metric) == expected


@pytest.mark.parametrize(
    ("alphas", "message"),
    [((0, 0.25, 1), "1/2"), ((0.1, 0.5, 1), "missing: 0"), ((0, 0.5, 0.9), "missing: 1"), ((0, 1, 0.5), "increasing")],
)
def test_grids_without_the_ends_or_the_middle_are_refused(alphas, message, members, data):
    with pytest.raises(ValueError, match=message):
        evaluate_paths(apply, members, pairs(2), np.array(alphas), data)


def test_other_bad_input_is_refused(members, data):
    with pytest.raises(ValueError, match="odd number"):
        connectivity.grid(4)
    with pytest.raises(ValueError, match="indices of 4 members"):
        evaluate_paths(apply, members, np.array([[0, 4]]), connectivity.grid(3), data)
    for odd in ([(0.5, 1.7)], np.array([[True, False]])):
        with pytest.raises(ValueError, match="indices of 4 members"):
            evaluate_paths(apply, members, odd, 3, data)
    with pytest.raises(ValueError, match="split 'train' has 53 inputs but labels of shape"):
        evaluate_paths(apply, members, pairs(2), connectivity.grid(3), {"train": (data["train"][0], data["test"][1])})
    with pytest.raises(ValueError, match="unknown barrier"):
        barrier(path(), "median")
    with pytest.raises(ValueError, match="no metric 'f1': it has loss, accuracy"):
        barrier(path(), metric="f1")
    with pytest.raises(TypeError, match=r"barrier\(paths\['test'\]\)"):
        barrier({"test": path()})
    with pytest.raises(TypeError, match="a mapping of names"):
        evaluate_paths(apply, members, pairs(4), 3, data["test"])
    with pytest.raises(ValueError, match="data holds no split"):
        evaluate_paths(apply, members, pairs(4), 3, {})
    with pytest.raises(ValueError, match="increasing list"):
        evaluate_paths(apply, members, pairs(4), [0, 0.5, np.nan, 1], data)
    for size in (0, -4, 2.5):
        with pytest.raises(ValueError, match="batch_size is a whole number of examples, at least 1"):
            evaluate_paths(apply, members, pairs(4), 3, data, batch_size=size)
    inputs, labels = data["test"]
    with pytest.raises(ValueError, match=r"split 't' has inputs or targets of type str: give arrays"):
        evaluate_paths(apply, members, pairs(4), 3, {"t": ("texts", labels)})
    with pytest.raises(ValueError, match=r"^inputs or targets of type generator: give arrays"):
        objectives.refuse_lists((x for x in inputs), labels)
    with pytest.raises(ValueError, match="inputs of type <U1: a network takes numbers"):
        evaluate_paths(apply, members, pairs(4), 3, {"t": (np.full(np.shape(inputs), "a"), labels)})


@pytest.mark.parametrize("kind", get_args(BarrierKind))
@pytest.mark.parametrize("end", [0, -1])
def test_beside_a_diverged_model_there_is_no_barrier(kind, end):
    """Its accuracy is a number, 0, so that half of the other's would pass for a barrier; an infinite loss is one, and not it."""
    losses, correct = np.full((2, 3), 8, np.float32), np.full((2, 3), 4, np.float32)
    losses[0, end], correct[0, end] = np.nan, 0
    losses[1, end] = np.inf
    for array in (np.asarray, jnp.asarray):
        found = barrier(
            Path(np.linspace(0, 1, 3), Metrics(*map(array, (losses, correct, np.full((2, 3), 8, np.float32))))), kind
        )
        assert np.isnan(found).tolist() == [True, False]


def test_models_one_by_one_are_walked_as_stacked_ones(members, data):
    models = [jax.tree.map(lambda x, i=i: x[i], members) for i in range(4)]
    stacked, _ = stacked_models(apply, models, (), data)
    jax.tree.map(np.testing.assert_array_equal, stacked, members)
    layers = [{"w": jnp.ones((3, 2, 2))}, {"w": jnp.ones((3, 2, 2))}]  # three models of two layers

    def deep(params, inputs):
        first, second = params
        return jnp.ones((inputs.shape[0], 2)) @ first["w"] @ second["w"]

    assert stacked_models(deep, layers, (), data)[0] is layers


@pytest.mark.slow
def test_line_is_what_the_path_walks(members, data):
    inputs, labels = data["test"]
    params = line(*(jax.tree.map(lambda x, i=i: x[i], members) for i in (0, 3)), 0.25)
    hits = int(jnp.sum(jnp.argmax(apply(params, inputs), -1) == labels))
    found = evaluate_paths(apply, members, np.array([[0, 3]]), connectivity.grid(5), data)["test"]
    assert int(found.metrics.correct[0, 1]) == hits
