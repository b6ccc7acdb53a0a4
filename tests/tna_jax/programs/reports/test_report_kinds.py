"""The page of each kind of result that no models of a run are read for: rounds, federations, soups, ColD Fusion, and kinds that are unknown."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.tna_jax.programs.reports.pages import cells, report, results
from tna_jax.programs.reports import kinds

pytest.importorskip("jinja2")
pytest.importorskip("plotly")


def test_rounds_are_averaged_over_seeds_and_told_apart():
    rows = [
        {"round": r, "seed": s, "algorithm": a, "ratio": 0.4, "accuracy": 0.1 * r + 0.01 * s + (a == "pfn"), "loss": None}
        for r in range(8) for s in range(3) for a in ("avg", "pfn")
    ]  # fmt: skip
    page = report(results(Path("federation"), "campaign.json", {"rounds": rows}))
    lines = {t["name"]: t for t in page.charts()[0]["data"] if "name" in t and "seed" not in t["name"]}
    assert list(lines) == ["avg", "pfn"]
    assert lines["pfn"]["y"] == pytest.approx([1.01 + 0.1 * r for r in range(8)])
    assert cells(page, "avg")[1] == f"{0.5 + 0.01:.4f} ± {0.01:.4f}"  # the mean of rounds 3 to 7
    assert len(page.charts()) == 1  # nothing to draw of a loss that is nowhere


def test_a_federation_is_read_by_run():
    runs = [
        {"seed": s, "anchors": a, "score": 0.3 + 0.01 * s, "score_std": None, "diverged_in_round": None,
         "turnout": {"dropped": {"3": 2}, "late": {}, "refused": {"1": 1}},
         "accuracy": [0.1 * r + 0.01 * s for r in range(6)], "loss": [1.0] * 6, "live": [1.0 if a == "none" else 0.6] * 6}
        for s in (0, 1) for a in ("none", "pfn")
    ]  # fmt: skip
    config = {"dataset": "digits", "rounds": 6, "ratio": 0.4, "algorithm": "fedavg", "clients": 4, "partition": "iid",
              "server": "mean", "participation": 1.0, "alpha": 0.5, "shards": 2}  # fmt: skip
    result = {"config": config, "network": "mlp", "parameters": 1000, "runs": runs}
    page = report(results(Path("federated"), "federate.json", result))
    line = next(t for t in page.charts()[0]["data"] if t.get("name") == "pfn")
    assert line["x"] == [1, 2, 3, 4, 5, 6] and line["y"] == pytest.approx([0.1 * r + 0.005 for r in range(6)])
    score = f"{0.305:.4f} ± {np.std([0.3, 0.31], ddof=1):.4f}"
    assert cells(page, "none", "-")[2] == score
    assert cells(page, "pfn", "0.4")[6:] == ["60%", "2"]  # live, kB up
    assert (
        "8 replies never came, of 1 client" in page.source and "client 1: 4 replies refused of 24 rounds" in page.source
    )
    thin = [trace["name"] for trace in page.charts()[0]["data"] if "seed" in trace.get("name", "")]
    assert thin == ["none, seed 0", "none, seed 1", "pfn, seed 0", "pfn, seed 1"]
    lines = [{"step": r, "round": r, "anchors": "pfn", "seed": 0, "accuracy": 0.1 * r, "sampled": 3} for r in range(3)]
    Path("live").mkdir()
    Path("live/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [t["y"] for t in report("live").charts()[0]["data"]] == [pytest.approx([0.0, 0.1, 0.2])]


def test_soups_and_cold_fusion_are_read_by_their_summaries():
    told = {"parameters": 1000, "what": "a classifier", "tasks": [{"title": "T", "seen": True}], "shifted": [],
            "stands_on": {"in_words": "a checkpoint"}, "config": {"dataset": "digits", "iterations": 2}, "headline": "so much gained",
            "anchors_moved": 0, "rows": [{"seed": s, "ratio": r, "fusion": f, "split": "test", "accuracy": 0.5 + r / 10 + ("u" in f) / 100}
                                         for s in (0, 1) for r in (0.0, 0.4) for f in ("best single", "uniform soup", "greedy soup")]}  # fmt: skip
    summary = [{"ratio": r, "fusion": f, "split": s, "n": 3, "accuracy": [0.5 + r / 10, 0.01], "loss": [1.0, None]}
               for r in (0.0, 0.4) for f in ("best single", "uniform soup") for s in ("test", "fog")]  # fmt: skip
    page = report(results(Path("soup"), "soup.json", {**told, "summary": summary}))
    assert (
        "uniform soup, test: ratio 0: +0.0100 over the best single; ratio 0.4: +0.0100 over the best single, +0.0400 over the plain soup"
        in page.source
    )
    assert cells(page, "0.4", "uniform soup")[2:] == ["0.5400 ± 0.0100"] * 2
    assert page.charts()[0]["data"][-1]["y"] == pytest.approx([0.5, 0.54])
    summary = [{"ratio": r, "iteration": i, "kind": k, "seen": True, "n": 1, "accuracy": [0.5 + i / 10, None], "gain": [i / 10, None]}
               for r in (0.0, 0.4) for i in range(3) for k in ("fine-tuning", "probe")]  # fmt: skip
    page = report(results(Path("cold"), "cold.json", {**told, "summary": summary}))
    assert cells(page, "fine-tuning, seen tasks", "0.4") == ["fine-tuning, seen tasks", "0.4", "2", "0.7000", "+0.2000"]
    assert page.charts()[0]["data"][0]["y"] == pytest.approx([0.5, 0.6, 0.7])
    assert "so much gained" in page.source and "anchored entries that moved: 0" in page.source


def test_a_kind_without_a_part_of_its_own_is_shown_as_tables():
    folder = results(
        Path("new"), "novel.json", {"score": 0.5, "iterations": [{"i": 0, "seen": 0.25, "deep": {"x": 1}}]}
    )
    page = report(folder)
    assert cells(page, "score") == ["score", "0.5000"]
    assert cells(page, "0") == ["0", "0.2500"]
    assert kinds.kind(Path("x_lmc.json")) == kinds.kind(Path("lmc.json")) == "lmc"
    assert kinds.kind(Path("filmc.json")) == ""
