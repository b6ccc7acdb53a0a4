"""`tna report`: valid HTML that asks for nothing, whose numbers are those of the results; nothing in a run can become markup."""

import builtins
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.tna_jax.programs.reports.pages import Page
from tna_jax.averaging import GreedySoup
from tna_jax.connectivity import Path as Path_
from tna_jax.io.json_files import write_json
from tna_jax.metrics import Metrics
from tna_jax.programs.cli.main import main
from tna_jax.programs.population import fusion_methods
from tna_jax.programs.population.paths import path_row
from tna_jax.programs.reports import interactive, kinds
from tna_jax.programs.reports.figures import Matrix

pytest.importorskip("jinja2")
graph_objects = pytest.importorskip("plotly.graph_objects")

LMC = Path(__file__).parents[4] / "train" / "results" / "digits_lmc.json"


@pytest.fixture(scope="module")
def trained(unaligned):
    """A run with every kind of result that models of a run can have."""
    for words in (["barrier", str(unaligned), "--alphas", "3"], ["landscape", str(unaligned), "--points", "3"]):
        assert main(words) == 0
    _fused(unaligned)
    return unaligned


def _fused(run: Path) -> None:
    """fuse.json and rebasin.json as the programs put them together, of numbers drawn at random: their searches take long."""
    base = {
        key: json.loads((run / "barrier.json").read_text())[key] for key in ("provenance", "run", "network", "models")
    }
    draw, pairs, splits = np.random.default_rng(0), [(0, 1), (0, 2), (1, 2)], ("train", "test")

    def metrics(*shape: int) -> Metrics:
        return Metrics(draw.uniform(50, 99, shape), draw.integers(50, 99, shape).astype(float), np.full(shape, 100))

    members, one = {split: metrics(3) for split in splits}, {split: metrics() for split in splits}
    found = fusion_methods.Fusions(members, 1, one, one, GreedySoup(np.array([0, 1, 1]), 0.9, []), one)
    barriers = [
        {"pair": pair, "split": split, "accuracy_barrier": draw.uniform()} for pair in pairs for split in splits
    ]
    options = {"matching": "weight", "repair": True}
    fused = {**base, "rows": fusion_methods.rows(found), "pairs": barriers, "options": options,
             "held_out": {"examples": 100, "unseen_in_training": False}}  # fmt: skip
    alphas = np.array([0, 0.5, 1])
    rows = [path_row(np.array(pair), kind, split, Path_(alphas, metrics(3)), ["accuracy", "loss"])
            for pair in pairs for kind in ("unmatched", "weight matching", "weight matching + REPAIR") for split in splits]  # fmt: skip
    write_json(run / "fuse.json", fused)
    write_json(run / "rebasin.json", {**base, "alphas": alphas, "rows": rows})


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


def report(*runs: Path | str, out: str = "report.html", more: tuple[str, ...] = ()) -> Page:
    assert main(["report", *map(str, runs), "-o", out, *more]) == 0
    return Page(Path(out).read_text())


def refused(capsys, *words: str) -> str:
    assert main(["report", *words]) == 2
    return capsys.readouterr().err.strip()


def results(folder: Path, name: str, value: dict) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps({"provenance": {"commit": "c"}, **value}))
    return folder


def cells(page: Page, *first: str) -> list[str]:
    """The row of any table that begins so."""
    return next(row for table in page.tables for row in table if row[: len(first)] == list(first))


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


def test_figures_have_only_what_plotly_knows(trained):
    charts = report(trained, LMC).charts()
    for drawn in [*charts, *filter(None, (chart["turned"] for chart in charts))]:
        plain = re.sub(r'"@\w+(/[\d.]+)?"', '"#123456"', json.dumps({key: drawn[key] for key in ("data", "layout")}))
        graph_objects.Figure(**json.loads(plain))
    assert {trace["type"] for chart in charts for trace in chart["data"]} == {"scatter", "heatmap", "contour"}


def test_a_landscape_can_be_turned_and_is_the_same_in_three_dimensions(trained):
    stored = json.loads((trained / "landscape.json").read_text())
    chart = next(chart for chart in report(trained).charts() if chart["turned"])
    surface, *_, marks = chart["turned"]["data"]
    assert surface["type"] == "surface" and surface["customdata"] == stored["loss"]
    low, high = chart["data"][0]["zmin"], chart["data"][0]["zmax"]
    height = np.clip(np.log10(np.array(stored["loss"], float)), low, high)
    assert (surface["cmin"], surface["cmax"]) == (low, high) and np.allclose(surface["z"], height)
    assert marks["x"] == [model["x"] for model in [*stored["models"], stored["soup"]]]
    assert all(height.min() <= z <= height.max() + 0.1 * (high - low) for z in marks["z"])  # they lie on it


def test_the_data_of_each_figure_are_unrounded_and_in_files_beside(trained):
    stored = json.loads((trained / "barrier.json").read_text())
    page = report(trained, more=("--figures", "files"))
    files = {file.name for file in Path("files").iterdir()}
    assert {file.removesuffix(".csv") for file in files if file.endswith(".csv")} == {
        file.removesuffix(".svg") for file in files if file.endswith(".svg")
    }
    assert len(files) == 2 * len(page.charts())
    assert {chart["csv"] for chart in page.charts()} == {file.read_text() for file in Path("files").glob("*.csv")}
    path = next(row["accuracy_path"] for row in stored["rows"] if row["pair"] == [0, 1] and row["split"] == "test")
    lines = Path("files/accuracy-along-the-path.csv").read_text().splitlines()
    assert lines[0] == 'curve,"α, from one model (0) to the other (1)",test accuracy,standard deviation'
    assert [float(line.split(",")[2]) for line in lines if line.startswith("0-1,")] == pytest.approx(path)
    drawn = Path("files/accuracy-along-the-path.svg").read_bytes()
    assert main(["report", str(trained), "-o", "again.html", "--figures", "again"]) == 0
    assert Path("again/accuracy-along-the-path.svg").read_bytes() == drawn and b"<svg" in drawn


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
        "8 replies never came, of 1 clients" in page.source
        and "client 1: 4 replies refused of 24 rounds" in page.source
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


def test_the_default_place_is_the_run_folder(trained, capsys):
    assert main(["report", str(trained)]) == 0
    assert f"wrote {trained / 'report.html'}" in capsys.readouterr().out
    assert Page((trained / "report.html").read_text()).faults() == []


def test_a_matrix_is_symmetric_and_skips_what_is_not_finite():
    values = {(0, 1): 0.5, (1, 2): float("nan")}
    chart = interactive.plot(Matrix(title="t", alt="a", names=["0", "1", "2"], values=values, what="x"))
    assert chart.traces[0]["z"] == [[None, 0.5, None], [0.5, None, None], [None, None, None]]
