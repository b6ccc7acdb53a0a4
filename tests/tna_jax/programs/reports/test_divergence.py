"""Models that diverged stand in no mean: their accuracy of 0 is what the loss that is not finite makes of it."""

import json
from pathlib import Path

import pytest

from tna_jax.programs.reports import kinds, png, run_status
from tna_jax.programs.reports.blocks import Description

HERE = Path(__file__).parent
LMC = HERE.parents[3] / "train" / "results" / "digits_lmc.json"
NUMBER = "0.0000"


def describe(name, result):
    return kinds.describe(Path(f"{name}.json"), result, "test")


def texts(description):
    cells = [cell for table in description.tables for row in table.rows for cell in row]
    return cells, [*cells, *(number.value for number in description.numbers), *description.remarks, *description.notes]


def model(accuracy, epoch=None):
    loss = 0.5 if epoch is None else None
    return {"diverged_in_epoch": epoch} | {
        f"{part}_{name}": value
        for part in ("test", "train")
        for name, value in (("accuracy", accuracy), ("loss", loss))
    }


def train(*models):
    return {"config": {"dataset": "digits", "epochs": 3, "ratio": 0.4}, "network": "mlp", "models": list(models)}


def test_models_that_diverged_are_in_no_mean_of_tna_train():
    (table,) = describe("train", train(model(0.9), model(0.0, 2))).tables
    assert table.rows[1] == ["1", *["diverged"] * 4] and table.rows[2][1] == "0.9000"
    assert run_status.headline(train(model(0.9), model(0.0, 2))) == "test accuracy 0.9000 of 1 model"
    description = describe("train", train(model(0.0, 0), model(0.0, 2)))
    assert description.tables[0].rows[2][1] == "diverged" and NUMBER not in " ".join(texts(description)[1])
    assert run_status.headline(train(model(0.0, 0))) == "all models diverged"


def lmc(bad):
    """The committed result, the pairs for which `bad` is true diverged as `tna lmc` writes it."""
    result = json.loads(LMC.read_text())
    for row in filter(bad, result["rows"]):
        for name, value in row.items():
            measured = name.startswith(("accuracy", "loss"))
            nothing = None if name.startswith("loss") else 0.0
            row[name] = ([nothing] * len(value) if isinstance(value, list) else nothing) if measured else value
    result["diverged"] = [{"seed": 0, "ratio": ratio, "method": "tna", "start": 0, "order": order, "epoch": order}
                          for ratio in (0.0, 0.4) for order in range(3)]  # fmt: skip
    return result


def test_pairs_that_diverged_say_so_in_tna_lmc_and_tna_runs(tmp_path):
    result = lmc(lambda row: True)
    description = describe("lmc", result)
    cells, everything = texts(description)
    assert "diverged" in cells and NUMBER not in " ".join(everything)
    assert description.notes == [
        "Left out of the means: 3 models without anchors, which diverged in epochs 0 to 2.",
        "Left out of the means: 3 models of TNA ratio 0.4, which diverged in epochs 0 to 2.",
    ]
    assert NUMBER not in run_status.headline(result) and "diverged at ratio 0.4" in run_status.headline(result)
    png.draw(Description("", blocks=description.figures[:1]), tmp_path / "f.png")  # a figure without a point
    some = lmc(lambda row: row["init"] == "same" and row["ratio"] == 0.4)
    assert run_status.headline(some).count("diverged") == 1


FUSIONS = ("best single", "mean of members", "uniform soup")


def soup(bad):
    rows = [{"seed": seed, "ratio": ratio, "fusion": fusion, "split": "test", "accuracy": 0.0 if (seed, ratio) in bad else 0.5,
             "loss": None if (seed, ratio) in bad else 1.0} for seed in (0, 1) for ratio in (0.0, 0.4) for fusion in FUSIONS]  # fmt: skip
    share = {ratio: sum(pair[1] == ratio for pair in bad) / 2 for ratio in (0.0, 0.4)}
    summary = [{"ratio": ratio, "fusion": fusion, "split": "test", "n": 2, "accuracy": [0.5 - share[ratio] / 2, 0.1],
                "loss": [None if share[ratio] else 1.0, None]} for ratio in share for fusion in FUSIONS]  # fmt: skip
    return {"rows": rows, "summary": summary, "shifted": [], "parameters": 9, "what": "a classifier",
            "stands_on": {"in_words": "a checkpoint"}, "config": {"dataset": "digits"}}  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "cell", "note"),
    [
        ([(0, 0.4), (1, 0.4)], "diverged", "uniform soup (2 of 2 seeds)"),
        ([(0, 0.4)], "0.5000", "uniform soup (1 of 2 seeds)"),
    ],
)
def test_soups_of_models_that_diverged_have_no_accuracy(bad, cell, note):
    description = describe("soup", soup(bad))
    cells = {tuple(row[:2]): row[2] for row in description.tables[0].rows}
    assert cells["0.4", "uniform soup"] == cell and cells["0", "uniform soup"] == "0.5000 ± 0.1000"
    assert note in description.notes[0] and "ratio 0.4" in description.notes[0]
    curve = next(curve for curve in description.figures[0].curves if curve.name == "uniform soup")
    assert curve.y == [0.5, None if cell == "diverged" else 0.5]
    assert describe("soup", soup([])).notes == []


def federation(*losses, taken=2.0):
    """A result of schedules none and pfn, two seeds each, with these losses by round."""
    runs = [{"seed": seed, "anchors": kind, "diverged_in_round": 2 if None in losses else None, "turnout": {}, "live": [1.0] * 3,
             "taken": [taken] * 3, "accuracy": [0.0 if loss is None else 0.3 for loss in losses], "loss": list(losses),
             "score": 0.0 if None in losses else 0.3, "score_std": 0.0, "bytes_up": [1e6] * 3, "bytes_down": [1e6] * 3,
             "local_steps": [3] * 3} for kind in ("none", "pfn") for seed in (0, 1)]  # fmt: skip
    config = {"dataset": "digits", "rounds": 3, "ratio": 0.4, "algorithm": "fedavg", "clients": 4, "partition": "iid",
              "server": "mean", "participation": 1.0, "alpha": 0.5, "shards": 2}  # fmt: skip
    return {"config": config, "network": "mlp", "parameters": 1000, "runs": runs}


def test_a_federation_that_diverged_or_learned_nothing_says_so():
    diverged = describe("federate", federation(None, None, None))
    assert [row[2] for row in diverged.tables[0].rows] == ["diverged"] * 2
    assert NUMBER not in " ".join(texts(diverged)[1]) and "left out of the means" in diverged.notes[0]
    assert diverged.figures[0].curves[0].y == [None] * 3
    assert run_status.headline(federation(None, None, None)) == "accuracy diverged none, diverged pfn"
    late = describe("federate", federation(2.0, None, None))
    assert late.tables[0].rows[0][2] == "diverged" and late.tables[1].rows[0][1] == "1.0 ± 0.0"  # it had reached 0.3
    refused = describe("federate", federation(2.3, 2.3, 2.3, taken=0.0))
    assert [row[2:4] for row in refused.tables[0].rows] == [["nothing learned", "-"]] * 2 and len(refused.tables) == 1
    sound = describe("federate", federation(2.0, 1.0, 1.0))
    assert sound.tables[0].rows[1][2] == "0.3000 ± 0.0000" and sound.notes == []


def test_a_fusion_whose_loss_is_not_finite_has_a_dash_and_is_named():
    result = json.loads((HERE / "earlier" / "fuse.json").read_text())
    for row in result["rows"]:
        if row["fusion"] == "uniform soup":
            row |= {"accuracy": 0.0, "loss": None}
    description = describe("fuse", result)
    cells = next(row for row in description.tables[0].rows if row[0] == "uniform soup")
    assert cells[2:] == ["–"] * 4
    assert description.notes[0] == "Without a number, as the loss is not finite: uniform soup."
