"""`tna federate` end to end: what it writes, resuming to the same bytes, faults that are named, wrong options."""

import dataclasses
import json
import math
import os
import re
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from tna_jax.federated.simulation import GROUP
from tna_jax.io import restore
from tna_jax.io.errors import UsageError
from tna_jax.programs.cli.arguments import options
from tna_jax.programs.cli.main import main
from tna_jax.programs.federate import report as federate_report
from tna_jax.programs.federate import report_costs, setup
from tna_jax.programs.federate import rounds as federate_run
from tna_jax.programs.federate import run as federate
from tna_jax.programs.federate.options import FederateOptions
from tna_jax.programs.federate.prepared import group_size
from tna_jax.programs.reports import png

TINY = ["federate", "--dataset", "digits", "--train-examples", "300", "--test-examples", "100", "--depth", "1", "--width", "16",
        "--clients", "5", "--rounds", "4", "--epochs", "1", "--batch-size", "32"]  # fmt: skip


def result(out: str) -> dict:
    return json.loads(Path(out, "federate.json").read_text())


def final(out: str) -> dict[str, np.ndarray]:
    folder = Path(out, "checkpoints")
    return restore.arrays(folder, restore.listed(folder)[0])


@pytest.fixture
def whole(capsys):
    assert main([*TINY, "--algorithm", "scaffold", "--participation", "0.6", "--seeds", "2", "--out", "whole"]) == 0
    return capsys.readouterr().out


def test_the_program_end_to_end(whole, capsys):
    found = result("whole")
    assert [(run["seed"], run["anchors"]) for run in found["runs"]] == [
        (0, "none"),
        (0, "pfn"),
        (1, "none"),
        (1, "pfn"),
    ]
    for run in found["runs"]:
        assert len(run["accuracy"]) == len(run["loss"]) == 4
        assert run["score"] == pytest.approx(np.mean(run["accuracy"]))
        assert run["taken"] == [3] * 4
        live = np.mean(run["live"])
        assert live == 1 if run["anchors"] == "none" else 0.5 < live < 0.7
        sent = (
            3 * np.array(run["live"]) * 2 * 4 * found["parameters"]
        )  # the move and SCAFFOLD's variates of three clients
        np.testing.assert_allclose(run["bytes_up"], sent, rtol=1e-6)
        assert run["client_mean"][-1] == pytest.approx(run["by_client"]["accuracy"]["mean"], abs=1e-6)
        assert all(0 <= worst <= mean <= 1 for worst, mean in zip(run["client_worst"], run["client_mean"], strict=True))
    gains = np.diff(np.reshape([run["score"] for run in found["runs"]], (2, 2)))
    assert f"{gains.mean():+.4f} ± {gains.std(ddof=1):.4f}" in whole  # paired by seed
    counts = np.array(found["partition"]["counts"])
    assert counts.shape == (5, 10) and counts.sum() == 300
    for words in ("up to test accuracy", "MB up", "worst tenth", "test examples of its own classes"):
        assert words in " ".join(whole.split())
    assert found["config"]["depth"] == 1
    assert found["provenance"]["group"] >= 3
    lines = [json.loads(line) for line in Path("whole/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(16))
    assert lines[1]["learning_rate"] == pytest.approx(0.05 * 0.99)
    assert Path("whole/federate.png").read_bytes()[:4] == b"\x89PNG"
    assert "over 2 seeds" in whole and "pfn" in whole
    assert main(["runs", "."]) == 0
    assert "finished" in (said := capsys.readouterr().out) and "accuracy 0." in said and " pfn" in said
    assert main(["export", "whole", "--model", "3", "-o", "server.safetensors"]) == 0


@pytest.mark.slow
def test_interrupted_and_resumed_it_ends_with_the_same_bytes(whole, monkeypatch):
    rounds = []
    machine = federate_run._Machine.round

    def stops(self, now, run, line, number, step):
        rounds.append((run, number))
        if len(rounds) == 7:  # in the middle of the second run of the plan
            raise KeyboardInterrupt
        return machine(self, now, run, line, number, step)

    words = [*TINY, "--algorithm", "scaffold", "--participation", "0.6", "--seeds", "2", "--checkpoint-every", "1"]
    monkeypatch.setattr(federate_run._Machine, "round", stops)
    assert main([*words, "--out", "cut"]) == 130
    monkeypatch.setattr(federate_run._Machine, "round", machine)
    assert restore.listed(Path("cut/checkpoints"))[0] < 16
    assert main(["resume", "cut"]) == 0
    first, second = final("whole"), final("cut")
    assert list(first) == list(second)
    for name, array in first.items():
        assert array.tobytes() == second[name].tobytes(), name
    assert result("whole")["runs"] == result("cut")["runs"]
    assert any(
        "own/memory" in name and np.any(array) for name, array in first.items()
    )  # the control: variates are in it


@pytest.mark.slow
def test_a_stop_between_rounds_saves_and_says_how_to_go_on(monkeypatch, capsys):
    bar = federate_run.Bar.round
    monkeypatch.setattr(federate_run.Bar, "round", lambda self, *a: (bar(self, *a), stop(self)))

    def stop(self):
        os.kill(os.getpid(), signal.SIGINT)

    assert main([*TINY, "--anchors", "none", "--out", "stopped"]) == 130
    assert restore.listed(Path("stopped/checkpoints")) == [1]
    said = capsys.readouterr().err
    assert main(["runs", "."]) == 0
    assert "interrupted, round 1 of 4" in capsys.readouterr().out
    assert "stopped after round 1 of 4" in said and "tna resume stopped" in said


@pytest.mark.slow
def test_missing_and_spoilt_clients_are_named_and_the_run_goes_on(capsys):
    words = [
        *TINY,
        "--anchors",
        "pfn",
        "--nan-clients",
        "1",
        "--wrong-shape-clients",
        "4",
        "--drop",
        "0.3",
        "--stragglers",
        "0.5",
    ]
    assert main([*words, "--out", "faulty"]) == 0
    (run,) = result("faulty")["runs"]
    said = capsys.readouterr()
    assert set(run["turnout"]["refused"]) == {"1", "4"}
    assert 0 < sum(run["turnout"]["dropped"].values()) < 20
    assert run["turnout"]["late"]
    assert all(math.isfinite(value) for value in run["loss"])
    for client, wrong in ((1, "not finite"), (4, "expected float32")):
        assert f"the reply of client {client} is refused" in said.err.replace("\n", " ")
        assert wrong in said.err.replace("\n", " ")
        assert f"client {client}: " in said.out
    logged = [json.loads(line) for line in Path("faulty/metrics.jsonl").read_text().splitlines()]
    assert all(set(line["refused"]) <= {"1", "4"} for line in logged)
    assert sum("1" in line["refused"] for line in logged) == run["turnout"]["refused"]["1"]


def test_the_list_names_every_choice_with_its_paper(capsys):
    assert main(["federate", "--list"]) == 0
    said = capsys.readouterr().out
    for word in ("scaffold", "1910.06378", "fedyogi", "2003.00295", "pnu-rounds", "2402.01342", "moon", "feddf"):
        assert word in said


@pytest.mark.parametrize(("words", "message"), [
    (["--algorithm", "fedavgg"], "did you mean 'fedavg'"),
    (["--server", "adam"], "--server adam needs --server-learning-rate"),
    (["--anchors", "pfm"], "unknown --anchors 'pfm'"),
    (["--anchors", "pfn", "pfn"], "each once"),
    (["--ratio", "40"], "--ratio must lie in [0, 1), got 40.0; did you mean 0.4?"),
    (["--alpha", "0"], "--alpha must be above 0"),
    (["--ratio", "1", "--drop", "2"], "--ratio must lie in [0, 1), got 1.0; --drop must lie in [0, 1], got 2.0"),
    (["--drop", "1.5"], "--drop must lie in [0, 1]"),
    (["--nan-clients", "20"], "clients 0 to 19"),
    (["--partition", "shards"], "did you mean 'shard'"),
    (["--norm-statistics", "shared"], "no running statistics"),
    (["--model", "resnet20_option_a"], "say by norm whether they are 'shared' or 'local'"),
    (["--where", "nothing"], "--where"),
    (["--clients", "2000"], "there are 1437"),
    (["--partition", "shard", "--shards", "500"], "shards of a client must lie in [1, 71], got 500"),
    (["--clients", "400", "--least-examples", "1", "--partition", "iid", "--held-out", "0.1"], "--held-out 0.1 of 4 examples"),
    (["--server", "feddf", "--proxy-examples", "5000"], "--proxy-examples 5000"),
    (["--coordinator", "a:1", "--num-processes", "2", "--process-id", "0"], "runs in one process"),
    (["--resume"], "--resume needs the --out"),
    (["--balance", "--partition", "iid"], "--balance does nothing without --partition dirichlet (it is iid)"),
    (["--local-steps", "9", "--epochs", "3"], "--epochs 3 does nothing beside --local-steps"),
    (["--server", "krum", "--krum-keep", "21"], "--krum-keep 21: a round has 20 of the 20 clients at most"),
    (["--server", "krum", "--krum-keep", "3", "--participation", "0.1"], "--krum-keep 3: a round has 2 of the 20 clients at most"),
    (["--algorithm", "moon", "--prox-mu", "1", "--lc-tau", "2"],
     "--prox-mu does nothing without --algorithm fedprox (it is moon); --lc-tau does nothing without --algorithm fedlc (it is moon)"),
    (["--dp-clip", "1"], "--dp-clip and --dp-noise go together"),
    (["--algorithm", "scaffold", "--optimizer", "adam"], "reads a mean gradient from a client's move, which --optimizer adam does not"),
    (["--algorithm", "fednova", "--clip-norm", "1"], "which --clip-norm without --momentum 0 does not"),
    (["--optimizer", "adam", "--momentum", "0.9"], "adam has none"),
    (["--hostile-clients", "20"], "clients 0 to 19"),
    (["--byzantine-share", "0.5"], "--byzantine-share must lie in [0, 0.5)"),
])  # fmt: skip
def test_wrong_options_are_answered_in_one_line(words, message, capsys):
    assert main(["federate", "--dataset", "digits", *words]) == 2
    said = capsys.readouterr().err
    assert message in said.replace("\n", " ")
    assert not list(Path().glob("runs/*"))  # no folder is left that would be in the way


IDLE = {
    "prox_mu": 1.0, "dyn_alpha": 1.0, "moon_mu": 2.0, "moon_tau": 2.0, "lc_tau": 2.0, "sam_rho": 1.0, "norm_bound": 2.0,
    "byzantine_share": 0.1, "krum_keep": 2, "dp_delta": 0.1, "proxy_examples": 10, "distil_steps": 10, "split": 0.4, "shards": 3,
    "client_column": "x", "straggler_share": 0.1,
}  # fmt: skip
"""Options that do nothing beside the defaults."""


@pytest.mark.parametrize("option", IDLE)
def test_an_option_that_does_nothing_is_refused_and_an_old_run_with_it_resumed(option):
    settings = FederateOptions(dataset="digits", **{option: IDLE[option]})
    with pytest.raises(UsageError, match=f"^--{option.replace('_', '-')} does nothing without --"):
        settings.check()
    dataclasses.replace(settings, resume=True, out="out").check()


def test_options_of_algorithms_servers_masks_and_partitions_do_something_beside_these_alone():
    said = {
        name for name, text in ((o.field, o.doc) for o in options(FederateOptions)) if re.match(r"[a-z, -]+: ", text)
    }
    assert said <= {option.field for option in options(FederateOptions) if option.only is not None}
    for given in ({"ratio": 0.3}, {"draw": "exact"}, {"where": "Dense"}, {"split": 0.3}):
        with pytest.raises(UsageError, match="does nothing without --anchors"):
            FederateOptions(anchors=("none",), **given).check()
    FederateOptions(anchors=("none", "pnu"), ratio=0.3, split=0.3).check()
    FederateOptions(server="trimmed-mean", byzantine_share=0.1, partition="shard", shards=3).check()


def test_few_clients_and_small_shares_of_them_are_written_as_they_are():
    config = {"algorithm": "fedavg", "server": "mean", "partition": "shard", "alpha": 0.5, "shards": 1}
    said = federate_report.headline({**config, "clients": 1, "participation": 0.001})
    assert said == "fedavg, 1 client, 0.1% a round, 1 shard"
    assert "20 clients, 50% a round" in federate_report.headline({**config, "clients": 20, "participation": 0.5})
    assert "99.9% a round" in federate_report.headline({**config, "clients": 20, "participation": 0.999})


@pytest.mark.slow
def test_one_seed_and_one_round_are_enough(capsys):
    assert main([*TINY, "--rounds", "1", "--anchors", "pnu", "--out", "one"]) == 0
    printed = capsys.readouterr().out
    assert (
        "mean of the last 1 round ±" in " ".join(printed.split()) and "nan" not in printed
    )  # no spread over one round


def test_auto_takes_what_is_there(monkeypatch):
    monkeypatch.setattr(setup, "_is_there", lambda name, data_dir: False)
    assert setup.resolved(FederateOptions()).dataset == "digits"
    monkeypatch.setattr(setup, "_is_there", lambda name, data_dir: True)
    made = setup.resolved(FederateOptions())
    assert (made.dataset, made.train_examples, made.depth, made.width) == ("fashion_mnist", 10_000, 3, 200)
    assert setup.resolved(FederateOptions(model="cnn")).depth is None


def test_clients_that_do_not_fit_at_once_take_turns():
    """Of many clients only a group is in memory: what all of them would take together is no reason to refuse."""
    settings = setup.resolved(FederateOptions(dataset="digits", clients=300, least_examples=1, memory_limit=0.05))
    group = group_size(federate.prepare(settings), settings)
    assert 0 < group < GROUP and group % jax.device_count() == 0
    roomy = dataclasses.replace(settings, memory_limit=5.0)
    assert group_size(federate.prepare(roomy), roomy) == GROUP  # more at once make no round faster
    tight = dataclasses.replace(settings, memory_limit=0.001)
    with pytest.raises(UsageError, match="one model on each device needs"):
        group_size(federate.prepare(tight), tight)


@pytest.mark.parametrize(
    ("aim", "cells"), [(0.5, ["2.0", "2.00", "4.00", "6", "0"]), (0.9999, ["-", "-", "-", "-", "1 of 1"])]
)
def test_costs_of_an_accuracy_that_is_reached_and_of_one_that_is_not(aim, cells):
    run = {
        "anchors": "pfn",
        "seed": 0,
        "accuracy": [0.2, 0.6, 0.7],
        "bytes_up": [1e6] * 3,
        "bytes_down": [2e6] * 3,
        "local_steps": [3] * 3,
    }
    (table,) = report_costs.tables({"runs": [run], "config": {"target_accuracy": aim}}, ["pfn"])
    assert table.rows == [["pfn", *cells]]


def test_the_figure_of_few_rounds_has_whole_rounds_and_covers_no_point(tmp_path, monkeypatch):
    from matplotlib import pyplot as plt

    drawings = []
    monkeypatch.setattr(plt, "close", drawings.append)
    runs = [
        {
            "seed": 0,
            "anchors": kind,
            "accuracy": [0.2, 0.1],
            "loss": [2.0, 1.0],
            "live": [1.0, 1.0],
            "score": 0.15,
            "score_std": 0.05,
            "turnout": {},
        }
        for kind in ("none", "pfn")
    ]
    config = {"dataset": "digits", "rounds": 2, "ratio": 0.4, "algorithm": "fedavg", "clients": 4, "partition": "iid"}
    monkeypatch.setattr(federate_report, "headline", lambda config: "fedavg")
    result = {"runs": runs, "config": config, "network": "mlp", "parameters": 10}
    png.draw(federate_report.describe(result), tmp_path / "f.png")
    (drawn,) = drawings
    assert [list(line.get_ydata()) for line in drawn.axes[1].lines] == [[2.0, 1.0]] * 2
    for axis in drawn.axes:
        assert axis.get_legend() is None
        assert all(tick == int(tick) for tick in axis.get_xticks())
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == [
        "none: accuracy 0.150 ± 0.050", "pfn, ratio 0.4: accuracy 0.150 ± 0.050"
    ]  # fmt: skip
