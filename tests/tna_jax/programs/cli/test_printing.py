"""What a command prints: into a pipe that nobody reads any more, and in an encoding that lacks its letters."""

import os
import subprocess
import sys

import pytest

from tna_jax.programs.cli import printing
from tna_jax.programs.cli.main import main

PROGRAM = """
import sys
from tna_jax.programs.cli import printing
from tna_jax.programs.cli.main import main
printing.steady()
{body}
sys.stdout.flush()
sys.stderr.write("done\\n")
"""


def started(body, **options):
    words = [sys.executable, "-c", PROGRAM.format(body=body)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_a_reader_that_goes_away_ends_nothing():
    with started("for i in range(100_000): print(i)\nimport os; os.write(1, b'of a library')") as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.stderr.read() == b"done\n"
    assert process.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="terminals of POSIX")
@pytest.mark.parametrize("gone", ["pipe", "terminal"])
def test_who_closes_the_terminal_ends_nothing(gone):
    """As of a training whose connection broke: what it prints is lost, and what it computes is not."""
    near, far = os.openpty() if gone == "terminal" else os.pipe()
    body = (
        "assert sys.stdout.isatty() == {}\nprint(1, flush=True); sys.stdin.readline(); print(2, flush=True); print(3)"
    )
    words = [sys.executable, "-c", PROGRAM.format(body=body.format(gone == "terminal"))]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=far, stderr=subprocess.PIPE) as process:
        os.close(far)
        assert os.read(near, 1) == b"1"
        os.close(near)
        assert process.communicate(b"\n", timeout=60)[1] == b"done\n"
    assert process.returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a file without room, of Linux")
def test_a_disk_without_room_for_what_is_printed_is_said_in_one_line():
    """Like a reader that goes it ends nothing; the exit code says that the output is not whole."""
    words = [sys.executable, "-m", "tna_jax", "completion", "bash"]
    with open("/dev/full", "w") as full:
        process = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert process.returncode == 2
    assert (
        process.stderr
        == "tna completion: what it printed could not be written: No space left on device; its files are whole\n"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors of POSIX")
def test_no_file_takes_the_place_of_a_closed_stderr(tmp_path):
    """What JAX and the handler of Ctrl-C write to descriptor 2 would go into that file, a checkpoint say."""
    code = (
        "import os, sys\nfrom tna_jax.programs.cli import printing\nprinting.steady()\nfile = open(sys.argv[1], 'w')\n"
        "os.write(2, b'of a library')\nprint(file.fileno() > 2, flush=True)"
    )
    words = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", code, str(tmp_path / "file")]
    process = subprocess.run(words, stdout=subprocess.PIPE, timeout=60)
    assert (process.returncode, process.stdout) == (0, b"True\n")
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize("columns", [1, 3, 39])
def test_help_on_the_narrowest_screen_is_help(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["--help"]) == 0
    assert main(["train", "--help-all"]) == 0
    assert "--members" in capsys.readouterr().out


def test_letters_that_an_encoding_lacks():
    process = started("print('0.94 \\u00b1 0.01, \\u2190')", env={"PYTHONIOENCODING": "ascii"})
    assert process.communicate(timeout=60) == (b"0.94 +- 0.01, ?\n", b"done\n")


def test_every_letter_of_the_programs_has_an_ascii_form():
    assert all(form.isascii() for form in printing.IN_ASCII.values())
    error = UnicodeEncodeError("ascii", "a±", 1, 2, "")
    assert printing._in_ascii(error) == ("+-", 2)
