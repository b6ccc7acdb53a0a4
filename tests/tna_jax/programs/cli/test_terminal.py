"""What is printed: device tables, hints, names that are no markup, narrow screens, one line for what the system says."""

import errno
import importlib
import io
import os
import re
from pathlib import Path

import pytest
import rich.console
import rich.table

from tests.parameters import slow
from tests.tna_jax.programs.commands import fails
from tna_jax.programs.cli import help, launch, messages, progress
from tna_jax.programs.cli.catalog import options_of
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


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EMFILE])
def test_what_the_system_says_without_naming_a_file_is_one_line_too(number, capsys):
    """As of a write to a file that is open."""

    def full():
        raise OSError(number, os.strerror(number))

    assert launch.guarded("lmc", full) == 2
    told = capsys.readouterr().err
    assert told.startswith("tna lmc: ") and told.endswith(f"{os.strerror(number)}\n") and told.count("\n") == 1


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


def test_quiet_leaves_results_warnings_and_errors(capsys):
    def talk():
        progress.console.print("remark")
        with progress.PhaseBar() as bar:
            bar.phase("work", 2)
        messages.print_warning("look")
        messages.wrote("out.json", "tna", "report", "a b")
        return progress.print_user_error("wrong")

    with messages.quiet(True), messages.quiet(False):  # the second as `tna resume` runs a program
        talk()
    assert capsys.readouterr() == ("wrote out.json\n", "warning: look\nwrong\n")
    with messages.quiet(False):
        talk()
    out, err = capsys.readouterr()
    assert out == "wrote out.json; next: tna report 'a b'\n" and err.startswith("remark\n") and "warning: look" in err


def test_every_program_takes_quiet(tmp_path, capsys, monkeypatch):
    """It is no option of a run: nothing records it, and it may stand anywhere."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.json").write_text('{"program": "train"}')
    for words in (["runs", "--quiet", "."], ["runs", ".", "-q"]):
        assert main(words) == 0
        out, err = capsys.readouterr()
        assert "interrupted" in out and "next:" not in out and not err
    assert main(["runs", "."]) == 0
    assert capsys.readouterr().out.endswith("next: tna resume a\n")
    assert fails(capsys, "runs", "nowhere", "--quiet") == "tna runs: nowhere is not a folder"


@pytest.mark.parametrize(("variables", "bold"), [({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False), ({"TERM": "xterm", "NO_COLOR": "1"}, False)])  # fmt: skip
def test_help_is_bold_only_where_a_terminal_shows_it(monkeypatch, variables, bold):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert ("\x1b[" in help.text("runs", options_of("runs"))) == bold


def test_commands_are_quoted_for_the_shell_of_the_system(monkeypatch):
    assert messages.shell_words("tna", "report", "my runs") == "tna report 'my runs'"
    monkeypatch.setattr("os.name", "nt")
    assert messages.shell_words("tna", "report", r"C:\my runs\a") == r'tna report "C:\my runs\a"'
