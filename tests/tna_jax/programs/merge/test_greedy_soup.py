"""`tna merge --evaluate`: the greedy soup by a command's score."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.tna_jax.programs.merge.files import tensors
from tna_jax.programs.cli.main import main

pytestmark = pytest.mark.usefixtures("small_pieces")


def test_a_greedy_soup_is_found_by_a_command_and_leaves_no_candidate(files, tmp_path, capsys):
    """The command scores how near the mean of the head is to that of models 0 and 2 together."""
    goal = float(np.mean([tensors(i)["head"].mean() for i in (0, 2)]))
    script = tmp_path / "score.py"
    script.write_text(
        "import sys\nfrom safetensors.numpy import load_file\n"
        f"print('some talk')\nprint(-abs(float(load_file(sys.argv[1])['head'].mean()) - {goal!r}))\n"
    )
    assert main(["merge", *files, "-o", "out.safetensors", "--evaluate", f"{sys.executable} {script}"]) == 0
    report = json.loads(Path("out.merge.json").read_text())
    assert report["weights"] == [0.5, 0, 0.5]
    assert [step["kept"] for step in report["trail"]].count(True) == 2
    assert report["score"] >= max(step["own"] for step in report["trail"])
    assert "soup with it" in capsys.readouterr().out
    assert sorted(os.listdir()) == sorted(
        [*map(os.path.basename, files), "out.merge.json", "out.merge.scores.json", "out.safetensors", "score.py"]
    )
    assert main(["merge", files[0], files[2], "-o", "two.safetensors"]) == 0
    one, two = load_file("out.safetensors"), load_file("two.safetensors")
    assert all(one[name].tobytes() == two[name].tobytes() for name in ("head", "ids"))
