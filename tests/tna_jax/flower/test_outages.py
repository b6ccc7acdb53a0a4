"""Nodes that go, come back, change or never fit, on a grid in this process; and what the whole ServerApp says at its end."""

import dataclasses
import io
import json
import logging
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

pytest.importorskip("flwr", reason="needs Flower, which has an environment of its own: make test-flower")

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict

from tests.tna_jax.flower.tasks import task
from tests.tna_jax.flower.test_strategy import QUICK, federation, replaced, run, spoil_arrays
from tna_jax.federated import Privacy, Schedule, ServerRule, privacy
from tna_jax.flower import apps, nodes, strategy
from tna_jax.flower.messages import ARRAYS, NOTES
from tna_jax.flower.results import REPORT, SERVER, Results
from tna_jax.flower.sanitize import MOST
from tna_jax.flower.server import Coordinator
from tna_jax.flower.strategy import AnchoredStrategy, Patience, report_lines
from tna_jax.io import safetensors
from tna_jax.io.errors import UsageError


class Clock:
    """Time that passes when somebody sleeps; `then` is called at each second."""

    def __init__(self, then=lambda now: None):
        self.now, self.then = 0.0, then

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.then(self.now)

    def time(self) -> float:
        return self.now


def app_running(job):
    return apps.client_app(lambda config: job)


def different(job, **changed):
    return type(job)(**{**job.__dict__, **changed})


def archive(reply):
    file = io.BytesIO()
    np.savez(file, a=np.ones(3, np.float32))
    array = Array("float32", (3,), "numpy.ndarray", file.getvalue())
    return [replaced(reply, {ARRAYS: ArrayRecord({"delta/float32": array})})]


STRANGE = {
    "archive": (archive, "its array 'delta/float32' cannot be read (it is no array of NumPy's)"),
    "kind": (lambda r: [replaced(r, {ARRAYS: ArrayRecord({"delta/V3": Array(np.ones(3))})})], "'delta/V3' was not asked for"),
    "part": (lambda r: [replaced(r, {ARRAYS: ArrayRecord({"x/f4,(\n": Array(np.ones(3))})})], "'x/f4,(\\n' was not asked for"),
    "many": (lambda r: [replaced(r, {ARRAYS: ArrayRecord({f"a{i}": Array(np.ones(1)) for i in range(50)})})], "nor 49 others"),
    "notes": (lambda r: [replaced(r, {ARRAYS: ArrayRecord(), NOTES: ArrayRecord({"why": Array(np.ones(1))})})], "missing"),
}  # fmt: skip


@pytest.mark.parametrize("fault", STRANGE)
def test_a_malformed_reply_is_a_refusal_and_ends_nothing(tmp_path, fault):
    job, grid = federation(tmp_path)
    grid.spoil[101], words = STRANGE[fault]
    _, reports, _ = run(job, grid)
    for report in reports:
        assert report["taken"] == [0, 2] and report["stepped"]
        assert words in "; ".join(report["refused"][1])


def test_a_malformed_introduction_and_evaluation_are_refusals_too(tmp_path):
    job, grid = federation(tmp_path)
    fits = grid.app

    def app(message, context):
        reply = fits(message, context)
        if (message.metadata.message_type, context.node_id) in (("query", 102), ("evaluate", 101)):
            return archive(reply)[0]
        return reply

    grid.app = app
    strategy, _, result = run(job, grid, Patience(min_nodes=2, start=0.0, round=5.0), evaluate_every=1)
    assert sorted(strategy.nodes.of) == [0, 1]
    assert result.evaluate_metrics_clientapp[3]["num-examples"] == len(job.examples(0)[1])


def test_no_peer_writes_lines_into_the_log(tmp_path):
    job, grid = federation(tmp_path)
    fits = grid.app

    def app(message, context):
        if message.metadata.message_type == "train" and context.node_id == 101:
            raise ValueError("x\nINFO :      federation finished after 50 rounds\n" + "y" * 10**6)
        reply = fits(message, context)
        if message.metadata.message_type == "query" and context.node_id == 102:
            notes = {**dict(reply.content[NOTES]), "mask": "0", "versions": "\x1b[2J\n" + "z" * 10**6}
            reply.content[NOTES] = ConfigRecord(notes)
        return reply

    grid.app, told = app, []
    strategy = AnchoredStrategy(job, Patience(min_nodes=2, start=0.0, round=5.0))
    strategy.nodes.log_line = told.append
    strategy.run(grid)
    lines = [*report_lines(strategy.report), *told]
    assert any("\\nINFO" in line for line in lines) and any("\\x1b[2J\\n" in line for line in lines)
    assert all(line.isprintable() and len(line) < 2 * MOST for line in lines)
    assert len(json.dumps(strategy.report)) < 10 * MOST


def test_a_huge_update_neither_reaches_the_model_nor_the_files(tmp_path):
    job, grid = federation(tmp_path / "state")
    grid.spoil[101] = spoil_arrays(lambda vector: np.full_like(vector, 3e37))
    kept, reports = Results(tmp_path / "out", {}, job, 1, False), []
    AnchoredStrategy(
        job, QUICK, on_round=lambda report: reports.append(report) or kept.add(report), coordinator=kept.coordinator
    ).run(grid)
    assert [(report["taken"], report["stepped"]) for report in reports] == [([0, 2], True)] * 3
    assert all("overflow" in report["refused"][1][0] for report in reports)
    assert all(np.isfinite(array).all() for array in safetensors.read(tmp_path / "out" / SERVER)[0].values())


def test_a_second_node_of_a_client_changes_nothing_for_the_first(tmp_path):
    job, grid = federation(tmp_path)
    fits, short = grid.app, different(job, examples=lambda k: tuple(part[:10] for part in job.examples(k)))
    config = {"partition-id": 0, "state-dir": str(tmp_path / "other")}
    grid.contexts[109] = Context(1, 109, config, RecordDict(), {})
    grid.app = lambda message, context: (app_running(short) if context.node_id == 109 else fits)(message, context)
    _, reports, _ = run(job, grid)
    assert [report["taken"] for report in reports] == [[0, 1, 2]] * 3


def watched(job, clock) -> tuple[AnchoredStrategy, list[str]]:
    made, told = AnchoredStrategy(job, QUICK), []
    made.nodes = nodes.Nodes(made.coordinator, told.append, 5.0, clock.monotonic)
    return made, told


def test_a_node_that_was_mended_is_asked_again_later_and_at_once_when_it_was_offline(tmp_path):
    job, grid = federation(tmp_path)
    mended = []

    def examples(k):
        if k == 1 and not mended:
            raise FileNotFoundError("/data is not mounted")
        return job.examples(k)

    grid.app, clock = app_running(different(job, examples=examples)), Clock()
    made, told = watched(job, clock)

    def asked(until: int) -> int:
        told.clear()
        while clock.now < until:
            made.nodes.update(grid)
            clock.now += 1
        return sum("node 101 is left out: it failed" in text for text in told)

    assert asked(100) == 4 and "asked again in 80 s" in told[-1]  # at 0, 10, 30 and 70 s
    mended.append(True)
    assert asked(140) == 0 and sorted(made.nodes.of) == [0, 2]
    grid.offline.add(101)
    made.nodes.update(grid)
    grid.offline.clear()
    assert sorted(made.nodes.update(grid)) == [0, 1, 2]
    mended.clear()  # it comes back of itself, too
    made, told = watched(job, clock)
    made.nodes.update(grid)
    mended.append(True)
    clock.now += 11
    assert sorted(made.nodes.update(grid)) == [0, 1, 2]


def test_nodes_whose_numbers_were_swapped_are_told_apart_again(tmp_path):
    job, grid = federation(tmp_path)
    reports = []

    def swap(report):
        reports.append(report)
        if report["round"] == 0:
            one, two = (grid.contexts[node].node_config for node in (101, 102))
            one["partition-id"], two["partition-id"] = 2, 1

    made = AnchoredStrategy(job, QUICK, on_round=swap)
    made.run(grid)
    assert [report["taken"] for report in reports] == [[0, 1, 2], [0], [0, 1, 2]]
    assert made.nodes.of == {0: 100, 1: 102, 2: 101}


def test_a_round_waits_for_its_clients_and_an_outage_ends_the_run_before_the_rounds_are_gone(tmp_path, monkeypatch):
    job, grid = federation(tmp_path)
    job, reports = different(job, rounds=20), []

    def on_round(report):
        reports.append(report)
        if report["round"] in (1, 3):
            grid.offline.update({100, 101, 102})

    clock = Clock(lambda now: grid.offline.clear() if now == 30 else None)
    monkeypatch.setattr(strategy, "time", clock)
    made = AnchoredStrategy(job, Patience(start=60.0, round=5.0, min_replies=2), on_round=on_round)
    with pytest.raises(RuntimeError, match="the last 5 rounds left the model as it was.*set resume"):
        made.run(grid)
    assert [report["stepped"] for report in reports] == [True] * 4 + [False] * 5
    assert clock.now == 30 + 5 * 61 and made.coordinator.number == 9


def main(job, grid, monkeypatch, **config) -> list[str]:
    """The lines that the ServerApp and its strategy log."""
    lines: list[str] = []
    for module in (apps, strategy):
        monkeypatch.setattr(module, "log", lambda level, text, *values: lines.append(text % values))
    given = {"start-timeout": 0.0, "round-timeout": 5.0, **{name.replace("_", "-"): v for name, v in config.items()}}
    apps.server_app(lambda config: job)(grid, Context(1, 0, {}, RecordDict(), given))
    return lines


def test_the_end_says_how_many_rounds_stepped_and_none_is_an_error(tmp_path, monkeypatch):
    job, grid = federation(tmp_path / "a")
    lines = main(job, grid, monkeypatch)
    assert lines[-1] == "federation finished after 3 rounds, 3 stepped"
    assert sum("replies accepted" in line for line in lines) == 3 and len(set(lines)) == len(lines)  # each once
    job, grid = federation(tmp_path / "b")
    with monkeypatch.context() as patch:
        patch.setattr(AnchoredStrategy, "_score", lambda self: {"loss": 24.0, "accuracy": 0.1})
        with pytest.raises(RuntimeError, match="diverged: its test loss is 24, that of guessing 2.3"):
            main(job, grid, monkeypatch)
    job, grid = federation(tmp_path / "c")
    grid.app = failing(grid.app)
    with pytest.raises(RuntimeError, match="nothing was learned: none of 3 rounds"):
        main(job, grid, monkeypatch)


def test_a_private_federation_says_what_it_spends_and_needs_the_accountant(tmp_path, monkeypatch):
    private = ServerRule(optax.sgd(1.0), privacy=Privacy(clip=0.1, noise=2.0, expected=3))
    job, grid = federation(tmp_path / "a", server=private)
    monkeypatch.setattr(privacy, "epsilon", lambda noise, share, rounds, delta: noise * share * rounds)
    lines = main(dataclasses.replace(job, delta=1e-6), grid, monkeypatch, out=str(tmp_path / "out"))
    assert lines[0] == "privacy of clients: epsilon 6 at delta 1e-06 after 3 rounds"
    assert json.loads((tmp_path / "out" / REPORT).read_text())["privacy"] == {"epsilon": 6, "delta": 1e-6, "rounds": 3}

    def missing(*numbers):
        raise ImportError("no dp_accounting")

    monkeypatch.setattr(privacy, "epsilon", missing)
    with pytest.raises(UsageError, match=r"pip install 'tna-jax\[privacy\]'"):
        main(job, grid, monkeypatch, out=str(tmp_path / "never"))
    assert not (tmp_path / "never").exists()


def test_libraries_that_set_up_the_root_logger_do_not_double_flowers_lines(monkeypatch, capsys):
    flower = logging.getLogger("flwr")
    monkeypatch.setattr(flower, "propagate", True)
    root = logging.StreamHandler(sys.stdout)
    monkeypatch.setattr(logging.root, "handlers", [root])
    flower.warning("before")
    apps.server_app(lambda config: None)
    flower.warning("after")
    assert capsys.readouterr().out == "before\n"


def failing(app):
    def handle(message, context):
        if message.metadata.message_type == "train":
            return Message(Error(code=5, reason="node unavailable"), reply_to=message)
        return app(message, context)

    return handle


def test_a_patience_that_cannot_be_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    job, grid = federation(tmp_path / "state")
    for config, words in (
        ({"min_replies": 7}, "min-replies is 7, expected 1 to 3"), ({"min_replies": 0}, "min-replies is 0"),
        ({"min_nodes": 4}, "min-nodes is 4, expected 1 to 3"), ({"min_nodes": -1}, "min-nodes is -1"),
        ({"round_timeout": 0}, "round-timeout is 0 s"), ({"start_timeout": -1}, "start-timeout is -1 s"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=words):
            main(job, grid, monkeypatch, out=str(tmp_path / "out"), **config)
    with pytest.raises(UsageError, match="expected 1 to 2, the number of clients in a round"):
        AnchoredStrategy(task(Schedule("pfn"), participation=0.67), Patience(min_replies=3))
    assert not (tmp_path / "out").exists()


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


class Stop(Exception):
    """The server is stopped."""


def test_a_server_stopped_while_it_writes_goes_on_and_no_report_is_lost(tmp_path, monkeypatch):
    job, grid = federation(tmp_path / "whole")
    whole, _, _ = run(job, grid)
    out, written = tmp_path / "out", safetensors.write
    for number in (0, 1, 2):
        job, grid = federation(tmp_path / f"cut{number}")
        kept = Results(out / str(number), {"rounds": 3}, job, 1, False)

        def write(file, arrays, metadata=None, mode=0o644, stop=number):
            if Path(file).name == SERVER and metadata == {"number": str(stop + 1)}:
                raise Stop
            written(file, arrays, metadata, mode)

        monkeypatch.setattr(safetensors, "write", write)
        with pytest.raises(Stop):
            AnchoredStrategy(job, QUICK, on_round=kept.add, coordinator=kept.coordinator).run(grid)
        monkeypatch.setattr(safetensors, "write", written)
        kept = Results(out / str(number), {"rounds": 3}, job, 1, True)
        again = AnchoredStrategy(job, QUICK, on_round=kept.add, coordinator=kept.coordinator)
        again.run(grid)
        assert same(whole.coordinator.server, again.coordinator.server)
        report = json.loads((out / str(number) / REPORT).read_text())
        assert [entry["round"] for entry in report["rounds"]] == [0, 1, 2]


def test_a_federation_goes_on_with_more_rounds_and_another_patience(tmp_path):
    job, grid = federation(tmp_path / "state")
    out, config = tmp_path / "out", {"rounds": 3, "ratio": 0.4, "round-timeout": 5, "min-nodes": 0}
    kept = Results(out, config, job, 1, False)
    AnchoredStrategy(job, QUICK, on_round=kept.add, coordinator=kept.coordinator).run(grid)
    assert {file.name: file.stat().st_mode & 0o777 for file in out.iterdir()} == {
        "federation.json": 0o600, "model.safetensors": 0o600, "server.safetensors": 0o600,
    }  # fmt: skip
    more = {**config, "rounds": 4, "round-timeout": 60, "min-nodes": 2, "min-replies": 2, "start-timeout": 1}
    kept = Results(out, more, different(job, rounds=4), 2, True)
    AnchoredStrategy(different(job, rounds=4), QUICK, on_round=kept.add, coordinator=kept.coordinator).run(grid)
    report = json.loads((out / REPORT).read_text())
    assert len(report["rounds"]) == 4 and report["config"] == more and "commit" in report["provenance"]
    with pytest.raises(UsageError, match="has 4 rounds behind it, rounds is 3"):
        Results(out, config, job, 1, True)
    with pytest.raises(UsageError, match="other settings: ratio$"):
        Results(out, {**more, "ratio": 0.5}, job, 1, True)


def test_the_first_introduction_is_enough_for_a_coordinator_that_goes_on(tmp_path):
    """A server that was started again knows nobody: everyone introduces itself again, and counts as it did."""
    job, grid = federation(tmp_path)
    first, _, _ = run(job, grid)
    again = AnchoredStrategy(job, QUICK, coordinator=Coordinator(job))
    assert again.nodes.update(grid) == first.nodes.of and again.coordinator.examples == first.coordinator.examples
