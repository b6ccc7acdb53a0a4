"""What `tna cold` refuses before any work: tasks that are one, checkpoints that are none, and a body that cannot be fused."""

from types import SimpleNamespace

import pytest

from tests.tna_jax.programs.commands import COLD, fails
from tna_jax.io.errors import UsageError
from tna_jax.programs.cold import tasks as cold_tasks
from tna_jax.programs.cold.options import ColdOptions
from tna_jax.programs.cold.run import read_log
from tna_jax.programs.runs.folder import Run


def write(file, words="word"):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("text\tlabel\n" + "".join(f"{words} {i}\t{'yes' if i % 3 else 'no'}\n" for i in range(60)))


def test_one_file_is_one_task_in_any_spelling(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.tsv")
    (tmp_path / "link.tsv").symlink_to("a.tsv")
    for tasks, unseen in ((("a.tsv", "./a.tsv"), ()), (("a.tsv", "mr"), (str(tmp_path / "a.tsv"),))):
        with pytest.raises(UsageError, match=r"named twice: a.tsv = .*a.tsv"):
            ColdOptions(checkpoint="x", tasks=tasks, unseen=unseen).check()
    with pytest.raises(UsageError, match=r"named twice: a.tsv = link.tsv"):
        ColdOptions(checkpoint="x", tasks=("a.tsv", "link.tsv")).check()
    ColdOptions(checkpoint="x", tasks=("a.tsv", "x/a.tsv"), unseen=("mr",)).check()


def test_tasks_of_one_name_are_told_apart_by_their_folders(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("one", "two"):
        write(tmp_path / folder / "a.tsv", folder)
    write(tmp_path / "b.tsv")
    names = ("one/a.tsv", "two/a.tsv", "b.tsv")
    settings = SimpleNamespace(checkpoint=str(home / "drawn"), data_dir=None, test_examples=None, length=8)
    found = cold_tasks.load(names, names[:2], settings)
    expected = [str(tmp_path / "one" / "a.tsv"), str(tmp_path / "two" / "a.tsv"), "b.tsv"]
    assert [task.name for task in found] == [task.title for task in found] == expected


def test_a_checkpoint_that_is_not_there_or_of_images_is_refused_as_such(home, tmp_path, capsys):
    words = [*COLD, "--data-dir", str(home / "data"), "--out", str(tmp_path / "run")]
    missing, images = str(tmp_path / "nope"), str(home / "drawn_vit")
    assert f"there is no model folder {missing} (config.json" in fails(capsys, "cold", "--checkpoint", missing, *words)
    assert f"--checkpoint {images} holds a vit, expected bert or" in fails(
        capsys, "cold", "--checkpoint", images, *words
    )


def test_a_body_that_is_frozen_as_a_whole_is_not_fused(home, tmp_path, capsys):
    words = [
        "--checkpoint",
        str(home / "drawn"),
        *COLD,
        "--data-dir",
        str(home / "data"),
        "--out",
        str(tmp_path / "run"),
    ]
    said = fails(capsys, "cold", *words, "--freeze", "^body")
    assert "--freeze '^body' selects the whole body: there would be nothing to fuse" in said
    assert not (tmp_path / "run").exists()


def test_a_log_that_lacks_an_iteration_is_not_taken_for_whole(tmp_path):
    """The results are made of it: they would lack the iteration too."""
    with Run.create(str(tmp_path / "run"), "cold", (), False, False) as run:
        assert read_log(run, 0) == []
        with pytest.raises(UsageError, match=r"metrics.jsonl lacks iteration 0, 1, whose scores"):
            read_log(run, 2)
        for step in (0, 1, 2):
            run.log(step=step, rows=[])
        assert [line["step"] for line in read_log(run, 3)] == [0, 1, 2]
        lines = (run.folder / "metrics.jsonl").read_text().splitlines()
        (run.folder / "metrics.jsonl").write_text(f"{lines[0]}\n{lines[2]}\n")
        with pytest.raises(UsageError, match="lacks iteration 1, whose"):
            read_log(run, 3)
