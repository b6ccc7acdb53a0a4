"""`tna report`: valid HTML that asks for nothing, whose numbers are those of the results; nothing in a run can become markup."""

import builtins
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.tna_jax.programs.reports.pages import LMC, Page, cells, refused, report, results
from tna_jax.programs.cli.main import main

pytest.importorskip("jinja2")
pytest.importorskip("plotly")


@pytest.mark.slow
def test_what_the_searches_really_write_is_read(trained):
    run = str(shutil.copytree(trained, "real") and Path("real"))
    assert main(["fuse", run, "--alphas", "3"]) == main(["rebasin", run, "--alphas", "3"]) == 0
    page = report(run)
    assert page.faults() == []
    soup = next(
        r
        for r in json.loads(Path("real/fuse.json").read_text())["rows"]
        if (r["fusion"], r["split"]) == ("greedy soup", "test")
    )
    assert cells(page, "greedy soup")[2] == f"{soup['accuracy']:.4f}"
    assert cells(page, "activation matching + REPAIR")


def test_a_report_is_one_valid_page_that_asks_for_nothing(trained):
    for page in (report(LMC), report(trained), report(trained, LMC)):
        assert page.faults() == []
        outside = re.sub(r'<script type="text/plain" id="library">.*?</script>', "", page.source)
        assert not re.search(r"https?:|url\(|@import|//cdn", outside)
        assert "default-src 'none'" in page.all("meta", http_equiv="Content-Security-Policy")[0][1]["content"]
        assert len(page.all("h1")) == len(page.all("main")) == 1
        figures, plots = page.all("figure"), page.all("div", role="group")
        assert len(figures) == len(plots) == len(page.charts()) > 7
        assert all(len(plot[1]["aria-label"]) > 40 and plot[1]["tabindex"] == "0" for plot in plots)
        assert len(page.all("figcaption")) == len(page.all("details")) - len(
            page.all("p", class_="what")
        )  # each has its table


def test_the_page_checker_sees_what_is_wrong():
    bad = '<p id="a"><b>x</p><a href="https://x">y</a><img src="x" onerror="y"><p id="a"></p><label for="z"></label>'
    told = " ".join(Page(bad).faults() + Page('<i id="b"></i><u id="b"></u>').faults())
    for part in ("closes b", "outside the page", "there is an <img>", "runs a script", "2 times", "names nothing"):
        assert part in told


def test_numbers_of_a_sweep_are_those_of_its_results():
    result, page = json.loads(LMC.read_text()), report(LMC)
    for init, method, ratio in (("same", "tna", 0.4), ("different", "tna", 0.8), ("different", "prune", 0.2)):
        rows = [
            r
            for r in result["rows"]
            if (r["init"], r["method"], r["ratio"], r["split"]) == (init, method, ratio, "test")
        ]
        barriers = np.array([row["accuracy_barrier"] for row in rows])
        name = {"tna": "TNA", "prune": "pruning"}[method]
        row = cells(page, init, name, f"{ratio:g}")
        assert row[3] == "5" and row[6] == f"{barriers.mean():.4f} ± {barriers.std(ddof=1):.4f}"
        assert row[4].startswith(f"{np.mean([r['accuracy_ends'] for r in rows]):.4f}")
        drawn = next(
            t for c in page.charts() for t in c["data"] if t.get("name") == f"{name} {ratio:g}" and max(t["y"]) <= 1
        )
        if init == "same":  # the first figure of the name
            assert drawn["y"] == pytest.approx(np.mean([r["accuracy_path"] for r in rows], axis=0).tolist())
            assert drawn["x"] == pytest.approx(result["alphas"])


def test_training_numbers_can_be_asked_for():
    result, page = json.loads(LMC.read_text()), report(LMC, more=("--split", "train"))
    rows = [
        r for r in result["rows"] if (r["init"], r["method"], r["ratio"], r["split"]) == ("same", "tna", 0.4, "train")
    ]
    assert cells(page, "same", "TNA", "0.4")[5].startswith(f"{np.mean([r['accuracy_midpoint'] for r in rows]):.4f}")


def test_numbers_of_every_program_are_those_of_its_results(trained):
    page = report(trained)
    read = {
        name: json.loads((trained / f"{name}.json").read_text())
        for name in ("train", "barrier", "fuse", "rebasin", "landscape")
    }
    accuracies = [model["test_accuracy"] for model in read["train"]["models"]]
    assert cells(page, "mean ± std")[1] == f"{np.mean(accuracies):.4f} ± {np.std(accuracies, ddof=1):.4f}"
    pairs = {tuple(r["pair"]): r["accuracy_barrier_linear"] for r in read["barrier"]["rows"] if r["split"] == "test"}
    heat = next(t for c in page.charts() for t in c["data"] if t["type"] == "heatmap")
    assert all(heat["z"][i][j] == heat["z"][j][i] == value for (i, j), value in pairs.items())
    soup = next(r for r in read["fuse"]["rows"] if (r["fusion"], r["split"]) == ("uniform soup", "test"))
    assert cells(page, "uniform soup")[2] == f"{soup['accuracy']:.4f}"
    matched = [
        r["accuracy_barrier"] for r in read["rebasin"]["rows"] if (r["kind"], r["split"]) == ("weight matching", "test")
    ]
    assert cells(page, "weight matching")[3].startswith(f"{np.mean(matched):.4f}")
    plane = next(t for c in page.charts() for t in c["data"] if t["type"] == "contour")
    assert plane["customdata"] == read["landscape"]["loss"]
    logged = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    curve = next(t for c in page.charts() for t in c["data"] if t.get("name") == "training loss")
    assert curve["y"] == [line["loss"] for line in logged]
    command = page.all("pre", class_="command")[0][2].strip()
    assert command.startswith("tna train --train-examples 400 --test-examples 200 --depth 2 --width 16 --epochs 12")


def test_several_runs_stand_side_by_side(trained):
    other = shutil.copytree(trained, "other") and Path("other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "ratio": 0.4}))
    page = report(trained, other)
    assert cells(page, "ratio") == ["ratio", "0", "0.4"]
    planes = [chart["data"][0] for chart in page.charts() if chart["title"].startswith("Test loss on the plane: ")]
    assert len(planes) == 2 and planes[0]["zmin"] == planes[1]["zmin"] and planes[0]["zmax"] == planes[1]["zmax"]
    numbers = cells(page, "accuracy barrier")
    assert len(numbers) == 3 and numbers[1] == numbers[2]
    first = page.charts()[0]["data"]
    assert [trace["name"] for trace in first if "name" in trace] == ["unaligned", "other"]
    assert [text for _, _, text in page.all("a")][1:] == ["All", "unaligned", "other"]


EVIL = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}",
    "<!--",
    "a&amp;b",
]


def test_nothing_that_a_run_says_becomes_markup():
    harmless = report(
        results(Path("harmless"), "campaign.json", {"rounds": [{"round": 0, "algorithm": "a", "accuracy": 1.0}]})
    )
    for i, evil in enumerate(EVIL):
        name = evil.replace("/", "∕")
        value = {
            "provenance": {"commit": evil, evil: evil}, "network": evil, "config": {"dataset": evil, "program": evil, evil: [evil]},
            "rounds": [{"round": r, "algorithm": a, evil: 0.5, "accuracy": 0.1} for r in range(2) for a in (evil, "b")],
        }  # fmt: skip
        folder = results(Path(f"run {i} {name}"), "campaign.json", value)
        results(folder, "novel.json", {evil: evil, "ingredients": [{"name": evil, evil: evil}]})
        page = report(folder)
        assert page.faults() == []
        outside = [e for e in page.elements if e[0] == "script" and "class" not in e[1]]
        assert len(outside) == len([e for e in harmless.elements if e[0] == "script" and "class" not in e[1]])
        assert not page.all("img") and "49" not in page.all("h1")[0][2]
        assert evil in [text for _, _, text in page.all("dd")]  # it is shown as it is
        names = [trace["name"] for chart in page.charts() for trace in chart["data"] if "name" in trace]
        assert names and not any("<" in name for name in names)  # Plotly reads tags in names


def nothing_finite(value, name=""):
    """A results file in which nothing that was measured is finite."""
    if isinstance(value, dict):
        late = {"diverged_in_epoch": 0} if "diverged_in_epoch" in value else {}
        return {key: nothing_finite(inner, key) for key, inner in value.items()} | late
    if isinstance(value, list):
        return [nothing_finite(inner, name) for inner in value]
    measured = any(word in name for word in ("accuracy", "loss", "barrier", "score"))
    return None if measured and isinstance(value, float) else value


def test_models_that_diverged_are_said_and_break_nothing(trained):
    run = shutil.copytree(trained, "diverged") and Path("diverged")
    for name in ("barrier", "fuse", "rebasin", "landscape", "train"):
        value = json.loads((run / f"{name}.json").read_text())
        (run / f"{name}.json").write_text(json.dumps(nothing_finite(value)))
    page = report(run)
    assert page.faults() == []
    assert "diverged" in " ".join(text for _, _, text in page.all("p", class_="note"))
    assert "NaN" not in page.source.split('id="library"')[0]


def test_a_run_that_is_still_going_on_shows_how_far_it_is(trained):
    run = Path("going on")
    run.mkdir()
    for name in ("config.json", "provenance.json", "plan.json"):
        shutil.copy(trained / name, run / name)
    first = (trained / "metrics.jsonl").read_text().splitlines()[0]
    (run / "metrics.jsonl").write_text(first + '\n{"step": 1, "lo')
    page = report(run)
    assert "interrupted" in page.all("span", class_="state")[0][2]
    assert "after 1 epoch" in page.source and page.faults() == []


def test_the_same_runs_give_the_same_bytes(trained):
    assert report(trained, out="a.html").source == report(trained, out="b.html").source


def test_what_cannot_be_shown_is_refused_in_a_line(trained, capsys, monkeypatch):
    assert "no file or folder nowhere" in refused(capsys, "nowhere")
    Path("empty").mkdir()
    assert "is not a run folder" in refused(capsys, "empty")
    assert "must end in .html" in refused(capsys, str(trained), "-o", "x.pdf")
    assert "did you mean 'train'?" in refused(capsys, str(trained), "--split", "trian")
    assert "there is no folder" in refused(capsys, str(trained), "-o", "missing/x.html")
    results(Path("old"), "lmc.json", {"rows": [{"split": "test"}]})
    assert "old/lmc.json is not as this version writes it (KeyError" in refused(capsys, "old")
    results(Path("later"), "lmc.json", {"provenance": {"format": 99}})
    assert "install a newer tna_jax" in refused(capsys, "later")
    Path("torn").mkdir()
    Path("torn/lmc.json").write_text('{"provenance')
    assert "cannot read torn/lmc.json" in refused(capsys, "torn")
    real = builtins.__import__
    missing = lambda name, *rest: real("no_such_package" if name == "plotly" else name, *rest)  # noqa: E731
    monkeypatch.setattr(builtins, "__import__", missing)
    assert "pip install 'tna-jax[cli]'" in refused(capsys, str(trained))


def test_a_run_that_may_only_be_read_is_reported_elsewhere(trained, capsys):
    """The default place is in the run; a folder of its name stands for one that cannot be written to."""
    run = Path(shutil.copytree(trained, "read_only"))
    (run / "report.html").mkdir()
    assert refused(capsys, str(run)).endswith(
        "cannot write read_only/report.html: Is a directory; name another place with -o FILE"
    )
    assert main(["report", str(run), "-o", "elsewhere.html"]) == 0


def test_the_default_place_is_the_run_folder(trained, capsys):
    assert main(["report", str(trained)]) == 0
    assert f"wrote {trained / 'report.html'}" in capsys.readouterr().out
    assert Page((trained / "report.html").read_text()).faults() == []
