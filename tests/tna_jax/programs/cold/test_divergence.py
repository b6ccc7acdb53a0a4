"""What diverges in `tna cold` is named, stands in no average and no mean, and files of before are shown as they were."""

import numpy as np
import pytest

from tests.tna_jax.programs.commands import COLD, read
from tests.tna_jax.programs.conftest import run_as_users_do
from tna_jax.io.errors import UsageError
from tna_jax.programs.cli.main import main
from tna_jax.programs.cold import report
from tna_jax.programs.cold.contributions import Contribution, accepted, average
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.training import backbone


def printed(capsys):
    return " ".join(capsys.readouterr().err.split())


def contribution(task, value, loss=1.0):
    return Contribution(task, {"kernel": np.full(3, value, np.float32)}, {"bias": np.zeros(2, np.float32)}, loss)


def test_a_body_that_is_not_finite_is_not_averaged_unless_it_is_asked_for(capsys):
    sent = [contribution("mr", 1.0), contribution("sst2", np.nan, np.nan), contribution("trec", 3.0)]
    kept = accepted(sent, "ratio 0, seed 0, iteration 1", average_diverged=False)
    assert kept == [0, 2]
    assert average([sent[i].body for i in kept])["kernel"].tolist() == [2.0] * 3
    assert "iteration 1: sst2 diverged: values that are not finite, left out of the average" in printed(capsys)
    assert accepted(sent, "", average_diverged=True) == [0, 1, 2]
    assert accepted(sent[1:2], "all", average_diverged=False) == []
    assert "the body stays as it was" in printed(capsys)
    assert accepted(sent[::2], "", average_diverged=False) == [0, 1] and not printed(capsys)
    alike = [contribution("a.tsv", 1.0), contribution("a.tsv", np.nan)]  # one name, two contributors
    assert accepted(alike, "", average_diverged=False) == [0] and printed(capsys)
    record = sent[1].record({"seed": 0, "ratio": 0.0}, 1)
    assert record == {"seed": 0, "ratio": 0.0, "iteration": 1, "task": "sst2", "loss": None, "diverged": True}
    assert not sent[0].record({}, 1)["diverged"]


def test_a_checkpoint_that_is_not_finite_is_refused_by_its_leaves():
    with pytest.raises(UsageError, match="--checkpoint x holds values that are not finite: norm/scale"):
        backbone.require_finite({"words": np.ones(2), "norm": {"scale": np.array([1, np.inf])}}, "x")


def rows(*losses):
    """Two seeds, two tasks; iteration 1 of the second seed with these losses."""
    return [
        {"seed": seed, "ratio": 0.0, "iteration": i, "kind": "fine-tuning", "seen": True, "task": task,
         "accuracy": 0.5 + 0.1 * i + 0.02 * seed, "loss": loss}
        for seed, i, both in ((0, 0, (1.0, 2.0)), (1, 0, (1.0, 2.0)), (0, 1, (0.5, 1.0)), (1, 1, losses))
        for task, loss in zip(("mr", "trec"), both, strict=True)
    ]  # fmt: skip


def result(rows, **more):
    told = {"parameters": 10, "stands_on": {"in_words": "a checkpoint"}, "config": {"iterations": 1}, "anchors_moved": 0, "rows": rows,
            "tasks": [{"name": name, "title": name.upper(), "seen": True} for name in ("mr", "trec")]}  # fmt: skip
    return told | {"summary": report.summary(rows), "headline": ""} | more


def test_seeds_with_a_loss_that_is_not_finite_stand_in_no_mean():
    start, end = report.summary(rows(0.3, None))
    assert start["diverged"] == 0 and start["n"] == end["n"] == 2 and start["loss"][0] == 1.5
    assert end["diverged"] == 1 and end["accuracy"] == [pytest.approx(0.6), None] and end["loss"] == [0.75, None]
    assert end["gain"] == [pytest.approx(0.1), None]
    both = report.summary(rows(0.3, 0.5))[1]
    assert both["accuracy"][0] == pytest.approx(0.61) and both["loss"][0] == pytest.approx((0.75 + 0.4) / 2)
    assert "fine-tuning seen 0.600 (2 of 4 diverged)" in report.progress_line(
        [row for row in rows(None, None) if row["iteration"]], 1
    )


def test_reports_say_what_diverged_and_show_losses_where_there_are_any():
    contributors = [{"seed": 0, "ratio": 0.0, "iteration": 1, "task": task, "loss": loss, "diverged": loss is None}
                    for task, loss in (("mr", 0.25), ("trec", None))]  # fmt: skip
    described = report.describe(result(rows(0.3, None), contributors=contributors))
    tables = {block.caption: block for block in described.blocks if isinstance(block, Table)}
    (training,) = (table for title, table in tables.items() if title.startswith("training loss"))
    assert training.rows == [["MR", "0.2500"], ["TREC", "diverged"]]
    assert described.notes == [
        "Contributors that diverged and are left out of the average, no anchors: trec (1 of 1 time).",
        "Left out of the means, no anchors, as models diverged: fine-tuning, seen tasks (1 of 2 seeds).",
    ]
    (last,) = (table for title, table in tables.items() if title.startswith("last iteration"))
    assert last.rows[0][3:] == ["0.6000", "+0.1000", "0.7500"]
    lost = [{**row, "loss": None} if row["iteration"] else row for row in rows(None, None)]
    assert report.headline(result(lost)).endswith("iteration 1 less 0: diverged at ratio 0")
    before = [{key: value for key, value in row.items() if key != "loss"} for row in rows(1.0, 1.0)]
    old = report.describe(result(before))
    tables = {block.caption: block for block in old.blocks if isinstance(block, Table)}
    assert not old.notes and [table.heads[-1] for table in tables.values()][-1] == "gain over the start"


@pytest.mark.slow
@pytest.mark.timeout(900)  # two runs, and the pretraining before them
def test_contributors_that_diverge_leave_the_body_as_it_was(home, bert, tmp_path, capsys):
    begin = ["cold", "--checkpoint", str(bert / "model"), "--data-dir", str(home / "data")]
    words = [*begin, *COLD[: COLD.index("--iterations")], "--iterations", "1", "--ratios", "0", "--learning-rate", "1e30",
             *COLD[COLD.index("--examples") : COLD.index("--ratios")]]  # fmt: skip
    run_as_users_do(*words, "--out", str(tmp_path / "run"))
    found = read(tmp_path / "run" / "cold.json")
    assert [row["diverged"] for row in found["contributors"]] == [True, True]
    assert "the body stays as it was" in printed(capsys)
    probe = {
        i: [row["accuracy"] for row in found["rows"] if row["kind"] == "probe" and row["iteration"] == i]
        for i in (0, 1)
    }
    assert probe[0] == probe[1]
    run_as_users_do(*words, "--average-diverged", "--out", str(tmp_path / "told"))
    told = read(tmp_path / "told" / "cold.json")
    assert all(row["loss"] is None for row in told["rows"] if row["iteration"] == 1)
    assert main(["report", str(tmp_path / "told")]) == 0
