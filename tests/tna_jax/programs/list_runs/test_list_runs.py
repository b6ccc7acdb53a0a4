"""`tna runs`: what is compared."""

import json

import pytest

from tna_jax.programs.cli.main import main
from tna_jax.programs.list_runs import run as runs
from tna_jax.programs.reports import run_status


def test_runs_are_compared_within_a_program_and_unset_options_left_out(tmp_path):
    for name, values in {"a": {"program": "train", "width": 3, "depth": None}, "b": {"program": "train", "width": 4, "depth": 2},
                         "c": {"program": "cold", "tasks": ["cr"]}}.items():  # fmt: skip
        (tmp_path / "all" / name).mkdir(parents=True)
        (tmp_path / "all" / name / "config.json").write_text(json.dumps(values))
    rows = [runs.describe(tmp_path / "all" / name) for name in "abc"]
    assert runs.differences(rows) == ["width=3", "width=4, depth=2", ""]


def test_the_two_kinds_of_initialization_are_never_averaged():
    """One initialization and two are different questions; a mean over both answers neither."""
    rows = [{"split": "test", "method": "tna", "init": init, "ratio": ratio, "accuracy_barrier": value}
            for init, ratio, value in [("same", 0.0, 0.1), ("same", 0.0, 0.3), ("different", 0.0, 0.9), ("different", 0.4, 0.5),
                                       ("different", 0.4, None)]]  # fmt: skip
    rows += [
        {**rows[0], "split": "train", "accuracy_barrier": 7.0},
        {**rows[0], "method": "pruning", "accuracy_barrier": 7.0},
    ]
    said = run_status.headline({"rows": rows})
    assert said == (
        "accuracy barrier same initialization: 0.2000 at ratio 0; different initializations: 0.9000 at ratio 0, 0.5000 at ratio 0.4"
    )


@pytest.mark.parametrize("width", [40, 60, 90, 140])
def test_no_word_and_no_number_is_broken_at_any_width(tmp_path, monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", str(width))
    for name in ("first", "second"):
        folder = tmp_path / "all" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"program": "train", "width": 3}))
        (folder / "train.json").write_text(json.dumps({"models": [{"test_accuracy": 0.9876}]}))
    monkeypatch.setattr(run_status, "headline", lambda result: "accuracy barrier 0.4208 at ratio 0.123, and more words")
    monkeypatch.chdir(tmp_path)
    assert main(["runs", "all"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    words = {word.strip("┃│,") for word in printed.split()}
    assert {"first", "second", "finished", "barrier", "0.4208", "0.123"} <= words
    assert printed.endswith("next: tna report all/first\n")
