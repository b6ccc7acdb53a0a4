"""Replies that are wrong on purpose, step by step through the server's side; no Flower needed."""

import jax
import numpy as np
import pytest

from tests.parameters import slow, slow_but
from tests.tna_jax.flower.tasks import task
from tests.tna_jax.flower.test_server import changed
from tna_jax.federated import Scaffold, Schedule
from tna_jax.flower import client as flower_client
from tna_jax.flower import validate, wire
from tna_jax.flower.protocol import NEVER, Answer
from tna_jax.flower.sanitize import MOST, sanitize
from tna_jax.flower.server import Coordinator
from tna_jax.flower.store import Store
from tna_jax.io.tensor_headers import read_header

N = 80
"""Examples of each client: five steps."""


@pytest.fixture(scope="module", params=[*slow("fedavg"), "scaffold"])
def first(request, tmp_path_factory):
    """A task, the introductions and the answers of its three clients to the first round."""
    job = task(Schedule("pfn"), **({"algorithm": Scaffold()} if request.param == "scaffold" else {}))
    folder, coordinator = tmp_path_factory.mktemp("clients"), Coordinator(job, name="test")
    answers = {k: flower_client.train(job, k, Store(folder, k), coordinator.request(k)) for k in range(3)}
    return job, answers


def introduced(job, **options) -> Coordinator:
    coordinator = Coordinator(job, name="test", **options)
    assert [coordinator.admit(flower_client.introduce(job, k)) for k in range(3)] == [(k, []) for k in range(3)]
    return coordinator


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


KINDS = ["V3", "S3", "U1", "f4,f4", "f4,(", "__dict__", "__path__", "finfo", "", "O", "M8[xx]", "(2,3)f4", "{", "i4,,", "f4\x00",
         "é", "[('a','f4')]", "__builtins__", "float32\n", "a" * 10**6, "\x1b[2J\nINFO: all is well"]  # fmt: skip


@pytest.mark.parametrize("kind", slow_but(["V3", "f4,(", "__builtins__", "a" * 10**6], KINDS), ids=range(len(KINDS)))
def test_a_peers_dtype_is_looked_up_and_never_evaluated(first, kind):
    job, answers = first
    coordinator = introduced(job)
    extra = {**answers[1].arrays, f"delta/{kind}": np.ones(2, np.float32)}
    outcome = coordinator.finish_round({**answers, 1: changed(answers[1], extra)})
    assert outcome.accepted == [0, 2]
    (words,) = outcome.refused[1]
    assert "was not asked for" in words and len(words) < MOST + 60 and words.isprintable()


def test_whatever_an_answer_holds_only_its_client_is_refused(first, monkeypatch):
    job, answers = first
    coordinator = introduced(job)
    broken = Answer({**answers[1].metrics, "steps": object()}, {"delta/float32": None})
    outcome = coordinator.finish_round({**answers, 1: broken})
    assert outcome.accepted == [0, 2] and list(outcome.refused) == [1]
    assert coordinator.identify(Answer({}, {}, None))[0] is None
    unpack_update = validate.unpack_update

    def failing(job, like, params, sent, answer):
        if answer.metrics["client"] == 1:
            raise SyntaxError("'('\nwas never closed")
        return unpack_update(job, like, params, sent, answer)

    monkeypatch.setattr(validate, "unpack_update", failing)
    outcome = introduced(job).finish_round(answers)
    assert outcome.accepted == [0, 2]
    assert outcome.refused[1] == ["its answer cannot be read (SyntaxError: '('\\nwas never closed)"]


NUMBERS = {
    "steps overflow": ({"steps": [2**31 - 1, 0]}, "its steps are [2147483647, 0], expected [5, 0]"),
    "second phase": ({"steps": [5, 5]}, "its steps are [5, 5], expected [5, 0]"),
    "fewer steps": ({"steps": [1, 0]}, "its steps are [1, 0], expected [5, 0]"),
    "many steps": ({"steps": [1] * 10**5}, "its steps are [1, 1, "),
    "client": ({"client": [1] * 10**5}, "its client is [1, 1, "),
    "examples": ({"num-examples": N + 1}, f"it counts {N + 1} examples, it introduced itself with {N}"),
    "no count": ({"count": 0.0}, "its count is 0.0, expected 80"),
    "negative count": ({"count": -80.0}, "its count is -80.0, expected 80"),
    "negative correct": ({"correct": -1.0}, "its correct is -1.0, of 80"),
    "too many correct": ({"correct": 81.0}, "its correct is 81.0, of 80"),
    "negative loss": ({"loss-sum": -5.0}, "its loss-sum is -5.0"),
    "infinite loss": ({"loss-sum": 1e39}, "its loss-sum is 1e+39"),
}  # fmt: skip


@pytest.mark.parametrize("case", NUMBERS)
def test_the_server_knows_how_much_work_a_client_has(first, case):
    job, answers = first
    numbers, words = NUMBERS[case]
    spoilt = answers[1]._replace(metrics={**answers[1].metrics, **numbers})
    coordinator, without = introduced(job), introduced(job)
    outcome = coordinator.finish_round({**answers, 1: spoilt})
    without.finish_round({0: answers[0], 2: answers[2]})
    assert outcome.accepted == [0, 2] and outcome.refused[1][0].startswith(words)
    assert len(outcome.refused[1][0]) < 2 * MOST and same(coordinator.server, without.server)


def test_no_anchored_weight_moves_by_phases_that_are_not(first):
    job, answers = first
    size = sum(leaf.size for leaf in jax.tree.leaves(job.model_shapes()["params"]))
    everything = {name: np.ones(size, np.float32) for name in answers[1].arrays}
    coordinator = introduced(job)
    live, before = coordinator.live, coordinator.model["params"]
    assert coordinator.finish_round({**answers, 1: changed(answers[1], everything, steps=[5, 5])}).accepted == [0, 2]
    for mask, a, b in zip(*map(jax.tree.leaves, (live, before, coordinator.model["params"])), strict=True):
        assert np.array_equal(a[~np.asarray(mask)], b[~np.asarray(mask)])


STEPS = [(80, 16, 1, 1.0, [5, 0]), (81, 16, 2, 0.5, [6, 6]), (48, 16, 1, 0.5, [2, 1]), (1, 16, 1, 0.5, [1, 0]), (1, 16, 1, 0.0, [0, 1])]  # fmt: skip


@pytest.mark.parametrize(("examples", "batch", "epochs", "split", "steps"), STEPS)
def test_the_steps_of_a_client_are_known(examples, batch, epochs, split, steps):
    federation = task(Schedule("pnu"), batch_size=batch, epochs=epochs).federation
    assert validate.num_steps(federation, np.float32(split), examples) == steps


def huge(answer: Answer, value: float = 3e37) -> Answer:
    return changed(answer, {name: np.full_like(array, value) for name, array in answer.arrays.items()})


@pytest.mark.slow
@pytest.mark.parametrize("first", ["fedavg"], indirect=True)  # whose sums are weighted by examples
def test_an_update_that_makes_the_sum_overflow_is_refused_and_the_round_goes_on(first):
    job, answers = first
    coordinator, without = introduced(job), introduced(job)
    outcome = coordinator.finish_round({**answers, 1: huge(answers[1])})
    without.finish_round({0: answers[0], 2: answers[2]})
    assert outcome.stepped and outcome.accepted == [0, 2]
    assert "overflow" in outcome.refused[1][0] and "is the largest" in outcome.refused[1][0]
    assert same(coordinator.server, without.server)
    assert coordinator.ledger.last_accepted(1) == NEVER and coordinator.ledger.last_accepted(0) == 0
    two = introduced(job)
    outcome = two.finish_round({0: huge(answers[0], 2e37), 1: huge(answers[1]), 2: answers[2]})
    assert outcome.accepted == [2] and sorted(outcome.refused) == [0, 1]


@pytest.mark.parametrize("first", ["fedavg"], indirect=True)
def test_a_state_that_is_not_finite_is_never_taken(first):
    job, answers = first
    for options, spoilt in (
        ({"min_replies": 3}, {**answers, 1: huge(answers[1])}), ({}, {k: huge(a) for k, a in answers.items()}),
    ):  # fmt: skip
        coordinator = introduced(job, **options)
        before = coordinator.server
        outcome = coordinator.finish_round(spoilt)
        assert not outcome.stepped and outcome.refused and coordinator.number == 1
        assert same(coordinator.server, before) and not coordinator.phases.any()
        assert coordinator.ledger.accepted == {}


def test_examples_are_compared_as_integers(first):
    """float32 has no 2^24 + 1."""
    job, answers = first
    coordinator, n = introduced(job), 2**24 + 1
    introduction = flower_client.introduce(job, 1)
    assert coordinator.admit(introduction._replace(metrics={**introduction.metrics, "num-examples": n})) == (1, [])
    steps = validate.num_steps(job.federation, coordinator.broadcast.split, n)
    numbers = {"num-examples": n, "steps": steps, "count": float(2**24)}
    many = answers[1]._replace(metrics={**answers[1].metrics, **numbers})
    assert coordinator.finish_round({**answers, 1: many}).accepted == [0, 1, 2]
    assert coordinator.admit(introduction._replace(metrics={**introduction.metrics, "num-examples": 2**52}))[0] is None


def test_an_introduction_counts_when_it_is_admitted_only(first):
    job, _ = first
    coordinator, introduction = introduced(job), flower_client.introduce(job, 1)
    other = introduction._replace(metrics={**introduction.metrics, "num-examples": 10})
    assert coordinator.identify(other) == (1, []) and coordinator.examples[1] == N
    assert coordinator.admit(other) == (1, []) and coordinator.examples[1] == 10


def test_evaluations_count_the_examples_of_the_introduction(first, tmp_path):
    job, _ = first
    coordinator = introduced(job)
    answers = {
        k: flower_client.evaluate(job, k, Store(tmp_path, k), coordinator.request(k, evaluating=True)) for k in range(3)
    }
    good, refused = coordinator.finish_evaluation(answers)
    assert not refused and good.count == 3 * N
    for numbers, words in (
        ({"num-examples": 2**52}, "it counts 4503599627370496 examples"), ({"correct": -1e20}, "its correct is -1e+20"),
        ({"loss-sum": -5.0}, "its loss-sum is -5.0"), ({"correct": 81.0}, "its correct is 81.0, of 80"),
    ):  # fmt: skip
        spoilt = answers[1]._replace(metrics={**answers[1].metrics, **numbers})
        found, refused = coordinator.finish_evaluation({**answers, 1: spoilt})
        assert found.count == 2 * N and refused[1][0].startswith(words)


@pytest.mark.slow
def test_damaged_memory_is_told_from_a_damaged_model(tmp_path):
    job = task(Schedule("pfn"), algorithm=Scaffold())
    coordinator = introduced(job)

    def a_round():
        return coordinator.finish_round(
            {k: flower_client.train(job, k, Store(tmp_path, k), coordinator.request(k)) for k in range(3)}
        )

    a_round()
    a_round()
    file = Store(tmp_path, 1).file
    data, (tensors, _) = bytearray(file.read_bytes()), read_header(file)
    at = next(tensor for name, tensor in tensors.items() if name.startswith("own/1/"))
    data[at.start : at.start + 4] = np.float32(5).tobytes()
    file.write_bytes(data)
    outcome = a_round()
    assert outcome.accepted == [0, 1, 2]
    assert outcome.remarks == {1: ["it had lost its memory (SCAFFOLD), which starts anew"]}
    assert a_round().remarks == {}


def test_what_a_peer_says_is_shown_on_one_line_and_cut():
    assert sanitize("it is 3 µm") == "it is 3 µm" and sanitize(3.5) == "3.5" and sanitize([1, 2]) == "[1, 2]"
    assert sanitize("x\nINFO: \x1b[31m\u202e\ud800") == "x\\nINFO: \\x1b[31m\\u202e\\ud800"
    assert sanitize("a" * MOST) == "a" * MOST and sanitize("a" * (MOST + 1)) == "a" * MOST + "..."
    assert len(sanitize("\u202e" * 10**6)) == MOST + 3 and len(sanitize([1] * 10**6)) == MOST + 3


def test_files_are_for_their_owner_alone(first, tmp_path):
    job, _ = first
    flower_client.train(job, 0, Store(tmp_path / "state", 0), introduced(job).request(0))
    assert Store(tmp_path / "state", 0).file.stat().st_mode & 0o777 == 0o600


def test_only_the_arrays_of_a_reply_are_named():
    names = validate.array_names(introduced(task(Schedule("pfn"), algorithm=Scaffold())).update_shapes)
    assert names == {"delta/float32", "extra/float32"}
    assert wire.array_names({"delta": {"a": np.ones(2, np.float16)}, "state": ()}) == {"delta/float16"}
