"""What is printed: device tables, hints, names that are no markup, narrow screens, one line for what the system says."""

import importlib
import io
import re
from pathlib import Path

import pytest
import rich.console
import rich.table

from tests.parameters import slow
from tests.tna_jax.programs.commands import fails
from tna_jax.programs.cli import progress
from tna_jax.programs.cli.main import main
from tna_jax.programs.runs.folder import Run


@pytest.mark.cpu_only("eight CPU devices are listed")
def test_devices_lists_them_all(capsys):
    assert main(["devices"]) == 0
    printed = capsys.readouterr().out
    assert "TFRT_CPU_7" in printed or "cpu:7" in printed
    assert "free for models" in printed


def test_hints_are_words_of_a_shell(tmp_path):
    assert Run(Path("k/a b")).quoted_path == "'k/a b'" and Run(Path("k/ab")).quoted_path == "k/ab"


@pytest.mark.parametrize("words", [*slow(["report", "RUN", "-o", "F.html"], ["report", "RUN", "-o", "/proc/a.html"]), ["barrier", "N"],
                                   ["resume", "N"], ["report", "N"], ["merge", "N", "b", "-o", "x"], ["export", "RUN", "-o", "N"]])  # fmt: skip
def test_what_the_system_says_of_a_file_is_one_line(ensemble, tmp_path, capsys, words):
    (tmp_path / "F.html").mkdir()
    given = {"RUN": str(ensemble), "N": "n" * 300}
    message = fails(capsys, *(given.get(word, word) for word in words))
    assert "Traceback" not in message and message.startswith(f"tna {words[0]}: ")


def test_what_users_name_is_no_markup(capsys):
    progress.console.print("a [/b] [x] [bold]c :smile:", soft_wrap=True)
    assert capsys.readouterr().err == "a [/b] [x] [bold]c :smile:\n"
    table = rich.table.Table(title="[/b] [x]")
    table.add_column("[y]")
    table.add_row("[bold] [/c]")
    progress.wide_console().print(table)
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("[/b] [x]", "[y]", "[bold] [/c]"))


def test_tables_are_as_wide_as_asked_for(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert progress.wide_console().width >= 136
    monkeypatch.setenv("COLUMNS", "77")
    assert progress.wide_console().width == 77


@pytest.mark.parametrize("width", [80, 104, 120, 160])
def test_a_narrow_screen_cuts_no_number_off(width, monkeypatch):
    screen = rich.console.Console(file=io.StringIO(), width=width, force_terminal=True)
    monkeypatch.setattr(progress, "console", screen)
    with progress.TrainingBar(16, 60_000, 600, 599) as bar:
        bar.epoch({"loss": 0.1234, "accuracy": 0.9876}, 16)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.file.getvalue())
    last = shown.strip().splitlines()[-1]
    assert "600/600" in last and "accuracy 0.9876" in last and "left 0:00:00" in last and "…" not in last


def test_ctrl_c_while_a_program_is_imported_is_one_line(monkeypatch, capsys):
    def stop(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", stop)
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "tna train: stopped at once\n"
