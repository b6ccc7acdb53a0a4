"""What a command prints: into a pipe that nobody reads any more, and in an encoding that lacks its letters."""

import subprocess
import sys

import pytest

from tna_jax.programs.cli import printing

PROGRAM = """
import sys
from tna_jax.programs.cli import printing
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


def test_letters_that_an_encoding_lacks():
    process = started("print('0.94 \\u00b1 0.01, \\u2190')", env={"PYTHONIOENCODING": "ascii"})
    assert process.communicate(timeout=60) == (b"0.94 +- 0.01, ?\n", b"done\n")


def test_every_letter_of_the_programs_has_an_ascii_form():
    assert all(form.isascii() for form in printing.IN_ASCII.values())
    error = UnicodeEncodeError("ascii", "a±", 1, 2, "")
    assert printing._in_ascii(error) == ("+-", 2)
