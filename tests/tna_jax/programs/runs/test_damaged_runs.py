"""Files of a run that are missing or damaged: each is named in one line, with what helps."""

import json
import shutil
from pathlib import Path

import pytest

from tests.tna_jax.programs.commands import fails
from tna_jax import io
from tna_jax.io.errors import UsageError
from tna_jax.io.run_folder import read_object
from tna_jax.programs.cli.main import main

DAMAGES = {"empty": b"", "cut": b'{"format": 1, "mod', "no text": bytes(range(128, 250)), "a list": b"[]"}
HELPS = {
    "config.json": "the command that started the run writes the same file into another --out: copy it from there",
    "plan.json": "without that file tna resume RUN writes it again (imported models: tna import them again)",
    "provenance.json": "a run goes on without that file: remove it",
    "barrier.json": "the program that wrote it writes it again (results of training: tna resume RUN)",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", HELPS)
def test_a_damaged_file_is_named_with_what_helps(tmp_path, name, damage):
    (tmp_path / name).write_bytes(DAMAGES[damage])
    with pytest.raises(UsageError) as raised:
        read_object(tmp_path / name)
    said = str(raised.value)
    assert str(tmp_path / name) in said and said.endswith(f"; {HELPS[name].replace('RUN', str(tmp_path))}")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("left", "help"),
    [
        ([], "$"),
        (["notes.md"], "$"),
        (["provenance.json"], ": its program ended before anything was saved; the same command again starts it$"),
        (
            ["provenance.json", "plan.json"],
            ": that file is lost; the command that started the run writes the same file",
        ),
    ],
)
def test_a_folder_without_its_configuration_says_what_it_is(tmp_path, left, help):
    for name in left:
        (tmp_path / name).write_text("{}")
    with pytest.raises(UsageError, match=r"is not a run folder \(it has no config.json\)" + help):
        io.open_run(tmp_path)


def test_what_is_advised_helps(unaligned, capsys):
    """A plan that is gone or damaged, and a provenance that is gone: all as it was."""
    barriers = ["barrier", str(unaligned), "--alphas", "3"]
    assert main(barriers) == 0
    before = json.loads((unaligned / "barrier.json").read_text())["rows"]
    (unaligned / "plan.json").write_text("{")
    assert HELPS["plan.json"].replace("RUN", str(unaligned)) in fails(capsys, *barriers)
    (unaligned / "plan.json").unlink()
    assert HELPS["plan.json"].replace("RUN", str(unaligned)) in fails(capsys, *barriers)
    (unaligned / "provenance.json").unlink()
    assert main(["resume", str(unaligned)]) == 0
    assert "provenance.json was gone" in " ".join(capsys.readouterr().err.split())
    assert main(barriers) == 0
    assert json.loads((unaligned / "barrier.json").read_text())["rows"] == before


def test_a_configuration_is_found_again_as_advised(unaligned, tmp_path, capsys):
    again = Path(shutil.copytree(unaligned, tmp_path / "again"))
    (again / "config.json").unlink()
    assert HELPS["config.json"] in fails(capsys, "barrier", str(again))
    shutil.copy(unaligned / "config.json", again)
    assert main(["barrier", str(again), "--alphas", "3"]) == 0
