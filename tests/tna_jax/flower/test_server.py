"""What the server refuses, and what a client does with a request that it cannot use; no Flower needed."""

import jax
import ml_dtypes
import numpy as np
import pytest

from tests.parameters import slow_but
from tests.tna_jax.flower.tasks import task
from tna_jax.federated import Schedule, packing
from tna_jax.flower import client as flower_client
from tna_jax.flower import protocol, wire
from tna_jax.flower.ledger import Ledger
from tna_jax.flower.protocol import NEVER, Answer
from tna_jax.flower.server import Coordinator
from tna_jax.flower.store import Store
from tna_jax.io.errors import UsageError
from tna_jax.programs.federate.flower_settings import build, options


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A task, and the answers of its three clients to the first round."""
    job, folder = task(Schedule("pfn")), tmp_path_factory.mktemp("clients")
    coordinator = Coordinator(job, name="test")
    requests = {client: coordinator.request(client) for client in range(3)}
    answers = {client: flower_client.train(job, client, Store(folder, client), requests[client]) for client in requests}
    return job, requests, answers


def changed(answer: Answer, arrays=None, **numbers) -> Answer:
    numbers = {name.replace("_", "-"): value for name, value in numbers.items()}
    return answer._replace(metrics={**answer.metrics, **numbers}, arrays=answer.arrays if arrays is None else arrays)


def vector(change):
    return lambda answer: changed(answer, {name: change(array.copy()) for name, array in answer.arrays.items()})


def spoilt(value):
    def change(array):
        array[5] = value
        return array

    return change


CASES = {
    "nan": (vector(spoilt(np.nan)), "numbers that are not finite"),
    "infinity": (vector(spoilt(-np.inf)), "holds 1 numbers that are not finite"),
    "shorter": (vector(lambda v: v[1:]), "delta: float32: float32 of shape"),
    "dtype": (vector(lambda v: v.astype(np.float16)), "delta/float32 has the type float16, expected float32"),
    "nothing": (lambda a: changed(a, {}), "delta: float32: missing"),
    "more": (
        lambda a: changed(a, {**a.arrays, "extra/float32": np.ones(2, np.float32)}),
        "extra: float32: not expected",
    ),
    "no dtype": (lambda a: changed(a, {**a.arrays, "delta/float99": np.ones(2)}), "'delta/float99' was not asked for"),
    "zero weight": (lambda a: changed(a, num_examples=0), "it counts 0 examples"),
    "negative weight": (lambda a: changed(a, num_examples=-3), "it counts -3 examples"),
    "no weight": (lambda a: changed(a, num_examples=None), "its num-examples is None"),
    "steps": (lambda a: changed(a, steps=[0, 0]), "its steps are [0, 0]"),
    "phases": (lambda a: changed(a, steps=[0, 5]), "its steps are [0, 5], expected [5, 0]"),
    "loss": (lambda a: changed(a, loss_sum=float("nan")), "its loss-sum is nan"),
    "count": (lambda a: changed(a, count=[1, 2]), "its count is [1, 2], expected 80"),
    "huge": (lambda a: changed(a, num_examples=10**300), "examples"),
    "huge correct": (lambda a: changed(a, correct=1e300), "its correct is 1e+300, of 80"),
    "round": (lambda a: changed(a, round=4), "it answers round 4, this is round 0"),
    "client": (lambda a: changed(a, client=2), "it says that it is client 2"),
    "silent": (lambda a: "it did not reply within 5 s", "it did not reply"),
    "lost": (
        lambda a: Answer({"client": 1, "round": 0, "model-lost": 1}, {}, {"why": "no file"}),
        "it has lost its model (no file)",
    ),
}


@pytest.mark.parametrize("case", slow_but(["nan", "dtype", "client", "more"], CASES))
def test_a_bad_reply_is_refused_by_name_and_the_others_count(first, case):
    job, _, answers = first
    spoil, words = CASES[case]
    coordinator, without = Coordinator(job, name="test"), Coordinator(job, name="test")
    outcome = coordinator.finish_round({**answers, 1: spoil(answers[1])})
    without.finish_round({0: answers[0], 2: answers[2]})
    assert outcome.accepted == [0, 2] and list(outcome.refused) == [1]
    assert words in "; ".join(outcome.refused[1])
    assert all(
        np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (coordinator.server, without.server)), strict=True)
    )
    assert coordinator.ledger.last_accepted(1) == NEVER and coordinator.ledger.last_accepted(0) == 0
    everyone = Coordinator(job, name="test")  # the control: with the sound reply the model is another
    assert everyone.finish_round(answers).accepted == [0, 1, 2]
    assert not np.array_equal(jax.tree.leaves(everyone.server.params)[0], jax.tree.leaves(coordinator.server.params)[0])


def test_a_round_of_bad_replies_only_changes_nothing(first):
    job, _, answers = first
    coordinator = Coordinator(job, name="test")
    before = jax.tree.map(np.asarray, coordinator.server)
    outcome = coordinator.finish_round({client: vector(spoilt(np.nan))(answer) for client, answer in answers.items()})
    assert not outcome.stepped and not outcome.accepted and coordinator.number == 1
    assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (before, coordinator.server)), strict=True))
    assert coordinator.request(0).config["model"] == "live" and coordinator.request(0).arrays == {}


def test_introductions_that_do_not_fit_are_told_apart(first):
    job, _, _ = first
    coordinator = Coordinator(job)
    good = flower_client.introduce(job, 1)
    assert coordinator.admit(good) == (1, [])
    other = flower_client.introduce(task(Schedule("pfn"), width=8), 1)
    masks = flower_client.introduce(task(Schedule("pfn", 0.5)), 1)
    cases = [
        ("it failed", "it failed"), (other, "its network has other parameters"), (masks, "it draws other masks"),
        (changed(good, client=3), "its partition-id is 3, expected 0 to 2"), (changed(good, protocol=2), "it speaks protocol 2"),
        (changed(good, num_examples=0), "it has 0 examples"),
    ]  # fmt: skip
    for answer, words in cases:
        client, problems = coordinator.admit(answer)
        assert client is None and any(words in problem for problem in problems), problems


def test_a_client_refuses_what_it_does_not_understand(first, tmp_path):
    job, requests, _ = first
    request = requests[0]

    def with_config(**config):
        return request._replace(config={**request.config, **config})

    for bad, words in (
        (with_config(protocol=2), "the server speaks protocol 2"), (with_config(model="half"), "protocol"),
        (request._replace(arrays={}), "the server's model does not fit: float32: missing"),
        (with_config(mask="0" * 32), "the mask of round 0 is not the server's"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            flower_client.train(job, 0, Store(tmp_path, 0), bad)
    lost = flower_client.train(job, 0, Store(tmp_path, 0), with_config(digest="0" * 32))
    assert lost.metrics["model-lost"] == 1 and lost.arrays == {} and "is not the server's" in lost.notes["why"]
    assert not Store(tmp_path, 0).file.exists()


def test_the_book_on_clients():
    ledger = Ledger()
    assert ledger.delivery(0, 0) == "whole" and ledger.last_accepted(0) == NEVER
    ledger.holds(0, 4)
    assert [ledger.delivery(0, version) for version in (4, 5, 6)] == ["same", "live", "whole"]
    ledger.lost(0)
    ledger.lost(0)
    assert ledger.delivery(0, 4) == "whole"


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16, ml_dtypes.float8_e4m3fn, np.int32])
def test_arrays_of_every_dtype_keep_their_bits_on_the_wire(dtype, tmp_path):
    bits = np.dtype(f"u{np.dtype(dtype).itemsize}")
    vector = np.arange(0, 200, dtype=np.uint8).astype(bits).view(dtype)
    arrays = wire.to_wire({"delta": {np.dtype(dtype).name: vector}})
    for name, array in arrays.items():  # as Flower does it
        np.save(tmp_path / "a.npy", array, allow_pickle=False)
        arrays[name] = np.load(tmp_path / "a.npy", allow_pickle=False)
    found, problems = wire.from_wire(arrays, ("delta",))
    assert not problems
    (back,) = found["delta"].values()
    assert back.dtype == dtype and np.array_equal(back.view(bits), vector.view(bits))


def test_a_digest_sees_every_bit_name_and_shape():
    tree = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(3, bool)}
    others = [
        {**tree, "a": np.array([[0, 0, 0], [0, 0, -0.0]], np.float32)}, {**tree, "a": np.zeros((3, 2), np.float32)},
        {**tree, "a": np.zeros((2, 3), np.int32)}, {"c": tree["a"], "b": tree["b"]}, {**tree, "b": np.array([0, 0, 1], bool)},
    ]  # fmt: skip
    assert len({wire.digest(t) for t in [tree, *others]}) == 6
    assert wire.digest(dict(reversed(tree.items()))) == wire.digest(tree)
    assert wire.shape_digest(tree) == wire.shape_digest(others[0]) != wire.shape_digest(others[1])


@pytest.mark.slow
def test_settings_are_the_options_of_the_program():
    config = {
        "dataset": "digits",
        "anchors": "pnu",
        "ratio": 0.3,
        "seed": 4,
        "clients": 3,
        "rounds": 2,
        "out": "x",
        "width": "",
    }
    found = options(config)
    assert (found.anchors, found.ratio, found.first_seed, found.clients, found.width) == (("pnu",), 0.3, 4, 3, 200)
    job = build(config)
    assert job.schedule.kind == "pnu" and job.seed == 4 and job.learning_rate(2) == pytest.approx(0.05 * 0.99**2)
    assert sum(len(job.examples(client)[1]) for client in range(3)) == 1437
    for bad, words in (
        ({"widht": 3}, "'width'"),
        ({"drop": 0.2}, "only a simulation"),
        ({"ratio": "much"}, "ratio"),
        ({"dataset": "auto"}, "dataset"),
    ):
        with pytest.raises(UsageError, match=words):
            options({**config, **bad})


def test_what_may_move_covers_what_did():
    job = task(Schedule("pnu", 0.4))
    params = job.model_shapes()["params"]
    assert packing.lengths(params, protocol.may_move(job, params, 0)) == packing.lengths(params)
    first_only = protocol.round_mask(job, params, 0, [True, False])
    second_only = protocol.round_mask(job, params, 0, [False, True])
    assert (
        sum(packing.lengths(params, m)["float32"] for m in (first_only, second_only))
        == packing.lengths(params)["float32"]
    )
