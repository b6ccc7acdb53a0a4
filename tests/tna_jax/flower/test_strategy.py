"""The strategy and the ClientApp on a grid in this process: what is sent, what is refused, by name."""

import json
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

pytest.importorskip("flwr", reason="needs Flower, which has an environment of its own: make test-flower")

from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord

from tests.tna_jax.flower.grids import FakeGrid
from tests.tna_jax.flower.tasks import examples, simulated, task
from tna_jax.federated import Privacy, Schedule, ServerRule
from tna_jax.flower import apps
from tna_jax.flower import client as flower_client
from tna_jax.flower.messages import ARRAYS, METRICS
from tna_jax.flower.protocol import NEVER
from tna_jax.flower.results import Results
from tna_jax.flower.strategy import AnchoredStrategy, Patience, report_lines
from tna_jax.io.errors import UsageError

CLIENTS = 3
QUICK = Patience(start=0.0, round=5.0)


def federation(tmp_path, clients=CLIENTS, **options):
    job = task(Schedule("pfn"), clients=clients, **options)
    configs = {100 + k: {"partition-id": k, "state-dir": str(tmp_path)} for k in range(clients)}
    return job, FakeGrid(apps.client_app(lambda config: job), configs)


def run(job, grid, patience=QUICK, **options):
    reports = []
    strategy = AnchoredStrategy(job, patience, on_round=reports.append, **options)
    result = strategy.run(grid)
    return strategy, reports, result


def assert_close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-6), a, b)


def test_three_rounds_are_the_simulated_ones_and_only_live_entries_travel(tmp_path):
    job, grid = federation(tmp_path)
    strategy, reports, result = run(job, grid)
    servers, _ = simulated(job)
    assert_close(strategy.coordinator.server.params, servers[-1].params)
    assert [report["taken"] for report in reports] == [[0, 1, 2]] * 3
    assert [set(report["sent"].values()) for report in reports] == [{"whole"}, {"live"}, {"live"}]
    whole = reports[0]["bytes_down"][0]
    for report in reports:
        assert all(n / whole == pytest.approx(0.6, abs=0.04) for n in report["bytes_up"].values())
    assert all(n / whole == pytest.approx(0.6, abs=0.04) for n in reports[1]["bytes_down"].values())
    assert sorted(result.evaluate_metrics_serverapp) == [0, 1, 2, 3]
    assert result.evaluate_metrics_serverapp[3]["accuracy"] == pytest.approx(reports[2]["test_accuracy"])
    assert 0 < reports[2]["train_loss"] < reports[0]["train_loss"]


def test_a_private_federation_waits_for_nobody_where_nobody_is_drawn(tmp_path):
    """Clients are drawn each by itself, so none may be: such a round is noise alone, and no outage."""
    private = ServerRule(optax.sgd(1.0), privacy=Privacy(clip=0.1, noise=1.0, expected=0.01))
    job, grid = federation(tmp_path, participation=1e-6, server=private)
    began = time.monotonic()
    _, reports, _ = run(job, grid, Patience(start=300.0, round=5.0, fruitless=1))
    assert time.monotonic() - began < 100
    assert [(report["sampled"], report["stepped"]) for report in reports] == [([], True)] * 3
    assert report_lines(reports[0]) == ["round 0: 0 of 0 replies accepted; a step of noise alone"]


def replaced(reply: Message, records: dict) -> Message:
    for name, record in records.items():
        reply.content[name] = record
    return reply


def spoil_arrays(change):
    def spoil(reply):
        (name, array), *rest = reply.content[ARRAYS].items()
        return [replaced(reply, {ARRAYS: ArrayRecord({name: Array(change(array.numpy().copy())), **dict(rest)})})]

    return spoil


def with_nan(vector):
    vector[3] = np.nan
    return vector


def with_numbers(**numbers):
    return lambda reply: [replaced(reply, {METRICS: MetricRecord({**dict(reply.content[METRICS]), **numbers})})]


def unreadable(reply):
    (name, array), *_ = reply.content[ARRAYS].items()
    broken = Array(array.dtype, array.shape, array.stype, array.data[:200] if len(array.data) > 400 else b"")
    return [replaced(reply, {ARRAYS: ArrayRecord({name: broken})})]


def empty(reply):
    del reply.content[ARRAYS]
    return [reply]


FAULTS = {
    "nan": (spoil_arrays(with_nan), "holds 1 numbers that are not finite"),
    "shape": (spoil_arrays(lambda v: v[:-1]), "delta: float32: float32 of shape"),
    "matrix": (spoil_arrays(lambda v: v[None]), "delta: float32: float32 of shape (1, "),
    "dtype": (spoil_arrays(lambda v: v.astype(np.float64)), "delta/float32 has the type float64"),
    "name": (
        lambda r: [replaced(r, {ARRAYS: ArrayRecord({"weights": Array(np.ones(3))})})],
        "'weights' was not asked for",
    ),
    "unreadable": (unreadable, "its array 'delta/float32' cannot be read"),
    "empty": (empty, "lacks its metrics or its arrays"),
    "zero": (with_numbers(**{"num-examples": 0}), "it counts 0 examples"),
    "other-weight": (
        with_numbers(**{"num-examples": 10**6}),
        "it counts 1000000 examples, it introduced itself with 80",
    ),
    "float-weight": (with_numbers(**{"num-examples": 3.5}), "its num-examples is 3.5"),
    "nan-loss": (with_numbers(**{"loss-sum": float("nan")}), "its loss-sum is nan"),
    "stale": (with_numbers(round=7), "it answers round 7"),
    "impostor": (with_numbers(client=0), "it says that it is client 0"),
    "steps": (with_numbers(steps=[-1, 3]), "its steps are [-1, 3]"),
    "silent": (lambda reply: [], "it did not reply within 5 s"),
    "error": (lambda r: [Message(Error(code=5, reason="node unavailable"), reply_to=r)], "it failed"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_reply_is_refused_by_name_and_the_round_goes_on_with_the_rest(tmp_path, fault):
    job, grid = federation(tmp_path)
    spoil, words = FAULTS[fault]
    if fault == "error":  # a reply to the message itself, not to the client's reply
        grid.app = wrap(grid.app, lambda message: Message(Error(code=5, reason="node unavailable"), reply_to=message))
    else:
        grid.spoil[101] = spoil
    strategy, reports, _ = run(job, grid)
    for report in reports:
        assert report["taken"] == [0, 2] and list(report["refused"]) == [1], report
        assert words in "; ".join(report["refused"][1])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(strategy.coordinator.server.params))
    assert strategy.coordinator.ledger.last_accepted(1) == NEVER


def wrap(app, failing):
    def handle(message, context):
        if message.metadata.message_type == "train" and context.node_id == 101:
            return failing(message)
        return app(message, context)

    return handle


def test_what_is_refused_is_as_if_it_had_not_been_there(tmp_path):
    """The other clients' average, to the last bit: a NaN times the weight 0 would be NaN."""
    job, grid = federation(tmp_path / "a")
    grid.spoil[101] = spoil_arrays(with_nan)
    with_bad, _, _ = run(job, grid)
    job, grid = federation(tmp_path / "b")
    grid.spoil[101] = lambda reply: []
    without, _, _ = run(job, grid)
    job, grid = federation(tmp_path / "c")
    everyone, _, _ = run(job, grid)
    a, b, c = (jax.tree.leaves(s.coordinator.server.params) for s in (with_bad, without, everyone))
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert not all(np.allclose(x, y, atol=1e-4) for x, y in zip(a, c, strict=True))


def test_second_replies_and_replies_of_strangers_are_refused_and_the_first_counts(tmp_path):
    job, grid = federation(tmp_path)
    grid.spoil[101] = lambda reply: [reply, reply]
    grid.spoil[102] = lambda reply: [reply, _stranger(reply)]
    _, reports, _ = run(job, grid)
    for report in reports:
        assert report["taken"] == [0, 1, 2] and not report["refused"]
        assert sorted(report["also_refused"]) == [
            "a reply of node 102, which was not asked", "a second reply of client 1",
        ]  # fmt: skip


def _stranger(reply: Message) -> Message:
    from copy import deepcopy

    other = deepcopy(reply)
    other.metadata.__dict__["_reply_to_message_id"] = "no such message"
    return other


def test_too_few_replies_leave_the_model_as_it_is(tmp_path):
    job, grid = federation(tmp_path)
    grid.spoil[101] = grid.spoil[102] = lambda reply: []
    strategy, reports, _ = run(job, grid, Patience(min_replies=2, start=0.0, round=5.0))
    assert [report["stepped"] for report in reports] == [False] * 3
    start = job.init_server().params
    assert all(
        np.array_equal(x, y)
        for x, y in zip(*map(jax.tree.leaves, (start, strategy.coordinator.server.params)), strict=True)
    )


def test_a_client_that_goes_and_comes_back_under_another_number_gets_the_whole_model(tmp_path):
    job, grid = federation(tmp_path)
    strategy = AnchoredStrategy(job, QUICK, on_round=lambda report: reports.append(report) or change(report["round"]))
    reports = []

    def change(number):
        if number == 0:
            grid.offline.add(101)
        if number == 1:
            grid.contexts[201] = grid.contexts[101]

    strategy.run(grid)
    assert reports[1]["taken"] == [0, 2] and reports[1]["refused"] == {1: ["it is not connected"]}
    assert reports[2]["taken"] == [0, 1, 2] and reports[2]["sent"] == {0: "live", 1: "whole", 2: "live"}


def test_nodes_that_do_not_fit_are_left_out_by_name_and_too_few_is_an_error(tmp_path):
    job, grid = federation(tmp_path)
    other = task(Schedule("pfn"), width=8)
    told = []
    grid.contexts[101].node_config["partition-id"] = 0
    grid.contexts[102].node_config["partition-id"] = 9
    for node, config in {103: {"partition-id": 2}, 104: {"partition-id": "one"}, 105: {"partition-id": 2}}.items():
        grid.contexts[node] = type(grid.contexts[100])(1, node, {**config, "state-dir": str(tmp_path)}, None, {})
    fits = grid.app
    grid.app = lambda m, c: (
        apps.client_app(lambda config: other if c.node_id == 103 else job)(m, c) if c.node_id == 103 else fits(m, c)
    )
    strategy = AnchoredStrategy(job, QUICK)
    strategy.nodes.log_line = told.append
    with pytest.raises(RuntimeError, match=r"2 of the 3 clients that must be there have come: \[0, 2\]"):
        strategy.run(grid)
    text = "\n".join(told)
    for words in (
        "node 101 is left out: client 0 is node 100 already",
        "node 102 is left out: its partition-id is 9" if "its partition-id" in text else "node 102 is left out: it failed",
        "node 103 is left out: its network has other parameters",
        "node 104 is left out: it failed", "start the SuperNode with --node-config 'partition-id=0'",
        "client 2 is node 105",
    ):  # fmt: skip
        assert words in text, text


def test_clients_evaluate_the_new_model_without_being_sent_it_twice(tmp_path):
    job, grid = federation(tmp_path)
    strategy, reports, result = run(job, grid, evaluate_every=1)
    assert [set(report["sent"].values()) for report in reports] == [{"whole"}, {"same"}, {"same"}]
    assert reports[1]["bytes_down"] == {0: 0, 1: 0, 2: 0}
    assert_close(strategy.coordinator.server.params, simulated(job)[0][-1].params)
    found = result.evaluate_metrics_clientapp[3]
    server = strategy.coordinator.server
    expected = flower_client.score(job, server.params, server.state, examples())
    assert found["num-examples"] == len(examples()[1])
    assert found["accuracy"] == pytest.approx(float(expected.accuracy)) and found["loss"] == pytest.approx(
        float(expected.loss)
    )


def test_a_stopped_server_goes_on_to_the_same_model(tmp_path):
    job, grid = federation(tmp_path / "whole")
    config = {"rounds": 3, "ratio": 0.4}
    whole, _, _ = run(job, grid)

    class Stop(Exception):
        pass

    def stopping(report):
        kept.add(report)
        if report["round"] == 1:
            raise Stop

    job, grid = federation(tmp_path / "cut")
    kept = Results(tmp_path / "out", config, job, 1, False)
    with pytest.raises(Stop):
        AnchoredStrategy(job, QUICK, on_round=stopping, coordinator=kept.coordinator).run(grid)
    kept = Results(tmp_path / "out", config, job, 1, True)
    assert kept.coordinator.number == 2
    again = AnchoredStrategy(job, QUICK, on_round=kept.add, coordinator=kept.coordinator)
    again.run(grid)
    assert all(np.array_equal(x, y) for x, y in zip(
        *map(jax.tree.leaves, (whole.coordinator.server, again.coordinator.server)), strict=True))  # fmt: skip
    report = json.loads((tmp_path / "out" / "federation.json").read_text())
    assert [entry["round"] for entry in report["rounds"]] == [0, 1, 2] and "commit" in report["provenance"]
    assert (Path(tmp_path) / "out" / "model.safetensors").stat().st_size > 1000
    with pytest.raises(UsageError, match="other settings: ratio"):
        Results(tmp_path / "out", {**config, "ratio": 0.5}, job, 1, True)
    with pytest.raises(UsageError, match="holds a federation"):
        Results(tmp_path / "out", config, job, 1, False)
