"""`tna runs`: what is compared."""

import json

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
