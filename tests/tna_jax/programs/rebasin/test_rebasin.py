"""`tna rebasin` as a user runs it: before, after and repaired; refusals."""

import pytest

from tests.tna_jax.programs.commands import read
from tna_jax.programs.cli.main import main


@pytest.fixture(scope="module")
def run(unaligned):
    return unaligned


def test_rebasin_compares_before_after_and_repaired(run, capsys):
    assert main(["rebasin", str(run), "--alphas", "3"]) == 0
    result = read(run / "rebasin.json")
    rows = {(row["kind"], *row["pair"]): row for row in result["rows"] if row["split"] == "test"}
    kinds = list(dict.fromkeys(kind for kind, *_ in rows))
    assert kinds == ["unmatched"] + [f"{m} matching{r}" for m in ("weight", "activation") for r in ("", " + REPAIR")]
    for kind in kinds[1:]:
        for pair in ((0, 1), (0, 2)):
            ends = rows["unmatched", *pair]["accuracy_ends"]
            assert rows[kind, *pair]["accuracy_ends"] == pytest.approx(ends, abs=0.011)  # the same functions
            assert rows[kind, *pair]["moved"] > 0
        before, after = (sum(rows[k, 0, j]["accuracy_barrier"] for j in (1, 2)) for k in ("unmatched", kind))
        assert after < before / 2
    assert rows["weight matching", 0, 1]["sweeps"] > 1 and rows["activation matching", 0, 1]["sweeps"] == 1
    assert "units moved" in capsys.readouterr().out
    assert (run / "rebasin.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_methods_and_pairs_may_be_named(run):
    assert main(["rebasin", str(run), "--alphas", "3", "--methods", "weight", "--no-repair", "--pairs", "2-1"]) == 0
    named = read(run / "rebasin.json")["rows"]
    assert {(row["kind"], *row["pair"]) for row in named} == {("unmatched", 2, 1), ("weight matching", 2, 1)}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("rebasin RUN --methods weights", "did you mean 'weight'"),
        ("rebasin RUN --restarts 0", "--restarts must be at least 1"),
        ("rebasin RUN --pairs 0-3", "--pairs 0-3: write I-J with two different numbers from 0 to 2"),
        ("rebasin RUN --seed -1", "--seed must be at least 0"),
    ],
)
def test_bad_options_are_answered_in_one_line(run, capsys, words, expected):
    assert main(words.replace("RUN", str(run)).split()) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert expected.replace("RUN", str(run)) in message and "Traceback" not in message
