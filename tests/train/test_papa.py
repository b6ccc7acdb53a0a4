"""Averages of many: groups of one are their members, what is finished is read, and an interrupted seed is not reported."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import to_json
from tna_jax.programs.cli.progress import Interrupted
from train import papa
from train.record import members
from train.record.settings import CASES


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Four tiny networks, one setting, one seed."""
    case = CASES["mlp_small"]
    tiny = {"train_examples": 1280, "stages": (1,), "options": {**case.options, "width": 16, "depth": 2}}
    monkeypatch.setitem(CASES, "mlp_small", dataclasses.replace(case, **tiny))
    load = members.load

    def loaded(case, placement="auto"):
        network = load(case, placement)
        return network._replace(test=tuple(x[:200] for x in network.test))

    monkeypatch.setattr(members, "load", loaded)
    for name, value in {
        "NETWORKS": 4,
        "COUNTS": (1, 2, 4),
        "SEEDS": 1,
        "ROWS": ("heavy_unit",),
        "RUNS": tmp_path,
    }.items():
        monkeypatch.setattr(papa, name, value)


@pytest.mark.slow
@jax.numpy_dtype_promotion("standard")
@jax.numpy_rank_promotion("allow")
def test_groups_of_one_are_their_members_and_what_is_finished_is_read(small, monkeypatch):
    result = papa.run()
    for cell in result["cells"]:
        one = cell["reached"][0]
        if cell["pull"] != papa.ONE_RUN:
            for kind in ("average", "ensemble"):
                assert one[kind] == pytest.approx(one["members"], rel=1e-6)  # sums in float64
    apart, pulled = (next(c for c in result["cells"] if c["pull"] == pull)["reached"] for pull in ("apart", "PAPA 0.1"))
    assert apart[0]["members"] != pulled[0]["members"]  # the control: networks that are pulled are others
    monkeypatch.setattr(papa, "population", None)
    monkeypatch.setattr(papa, "long_run", None)
    assert papa.run() == result
    assert [len(table.rows[0]) for table in papa.tables(result)] == [6, 6]


def test_a_seed_that_is_not_whole_is_not_reported(small, monkeypatch):
    reached = [{"count": n, "members": {"loss": 1.0, "accuracy": 0.5}} for n in papa.COUNTS]
    monkeypatch.setattr(papa, "SEEDS", 2)
    monkeypatch.setattr(members, "load", lambda case: None)
    monkeypatch.setattr(papa, "time_is_over", lambda: True)
    with pytest.raises(Interrupted):
        papa.run()
    folder = papa.RUNS / "mlp_small"
    folder.mkdir()
    for row, pull in [("heavy_unit", pull) for pull in papa.PULLS] + [("standard", papa.ONE_RUN)]:
        cell = {"row": row, "pull": pull, "seed": 0, "reached": reached}
        (folder / f"{row}_{pull.replace(' ', '_')}_0.json").write_text(json.dumps(cell))
    assert papa.run()["seeds"] == 1 and len(papa.run()["cells"]) == len(papa.PULLS) + 1


def test_the_ensemble_is_the_mean_of_probabilities():
    logits = np.log(np.array([[[0.9, 0.1]], [[0.5, 0.5]]]))
    together = papa.ensemble_logits(list(logits))
    assert np.exp(together) / np.exp(together).sum() == pytest.approx(np.array([[0.7, 0.3]]))


def test_a_fresh_clone_reads_the_committed_seeds(monkeypatch, tmp_path):
    results = json.loads((papa.RESULTS / "papa.json").read_text())
    for name, value in {"RUNS": tmp_path, "SEEDS": results["seeds"], "population": None, "long_run": None}.items():
        monkeypatch.setattr(papa, name, value)
    monkeypatch.setattr(members, "load", lambda case: None)
    assert to_json(papa.run()) == {key: value for key, value in results.items() if key not in ("provenance", "full")}


def test_results_of_another_length_are_not_read(monkeypatch, tmp_path):
    monkeypatch.setattr(papa, "RUNS", tmp_path)
    results = json.loads((papa.RESULTS / "papa.json").read_text())
    setting = {key: results[key] for key in ("title", "epochs", "labels")}
    papa.restore(results, setting | {"epochs": 9}, "mlp_small")
    assert not [*tmp_path.iterdir()]
    papa.restore(results, setting, "mlp_small")
    assert len([*tmp_path.rglob("*.json")]) == len(results["cells"])


def test_a_population_of_other_settings_is_not_taken_for_this_one(monkeypatch, tmp_path):
    monkeypatch.setattr(papa, "RUNS", tmp_path)
    case = CASES["mlp_small"]
    file = papa.cell_file("mlp_small", "standard", "apart", 0)
    file.parent.mkdir()
    file.write_text(json.dumps(to_json({"seed": 0, "recipe": case.recipe()})))
    assert papa.cell("mlp_small", "standard", "apart", 0, case, None)["seed"] == 0
    with pytest.raises(UsageError, match="other settings"):
        papa.cell("mlp_small", "standard", "apart", 0, dataclasses.replace(case, decay=0.2), None)
