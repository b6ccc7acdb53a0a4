"""`tna runs`: what is compared."""

import json

from tna_jax.programs.list_runs import run as runs


def test_runs_are_compared_within_a_program_and_unset_options_left_out(tmp_path):
    for name, values in {"a": {"program": "train", "width": 3, "depth": None}, "b": {"program": "train", "width": 4, "depth": 2},
                         "c": {"program": "cold", "tasks": ["cr"]}}.items():  # fmt: skip
        (tmp_path / "all" / name).mkdir(parents=True)
        (tmp_path / "all" / name / "config.json").write_text(json.dumps(values))
    rows = [runs.describe(tmp_path / "all" / name) for name in "abc"]
    assert runs.differences(rows) == ["width=3", "width=4, depth=2", ""]
