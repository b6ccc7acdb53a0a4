"""What the command prints, whoever reads it: a reader that has gone (`| head`) ends no program, and what a terminal cannot show is ASCII."""

import codecs
import contextlib
import io
import os
import sys
from typing import Any, TextIO

IN_ASCII = {"±": "+-", "α": "alpha", "β": "beta", "κ": "kappa", "σ": "sigma", "×": "x", "–": "-", "—": "-", "−": "-", "…": "...", "→": "->",
            "≤": "<=", "≥": ">=", "─": "-", "━": "-", "│": "|", "╭": "+", "╮": "+", "╯": "+", "╰": "+", "•": "*", "’": "'", "“": '"', "”": '"'}  # fmt: skip
ERRORS = "tna_in_ascii"


def _in_ascii(error: UnicodeError) -> tuple[str | bytes, int]:
    """What is written in place of letters that an encoding does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(IN_ASCII.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


class _Pipe(io.RawIOBase):
    """A file descriptor whose reader may go: what is written afterwards is lost, as it would be if it were not read."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.gone = descriptor, False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.descriptor

    def write(self, data: Any) -> int:
        if not self.gone:
            try:
                return os.write(self.descriptor, data)
            except BrokenPipeError:
                self.gone = True
                with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
                    os.dup2(nowhere.fileno(), self.descriptor)  # for what else writes there: libraries, child processes
        return len(data)


def _steady(stream: TextIO, descriptor: int) -> TextIO:
    """The stream as it is printed to from now on."""
    if not isinstance(stream, io.TextIOWrapper) or not _is_own(stream, descriptor):
        return stream  # a notebook's, a test's
    stream.flush()
    if stream.isatty():
        stream.reconfigure(errors=ERRORS)
        return stream
    buffered = io.BufferedWriter(_Pipe(descriptor))
    return io.TextIOWrapper(
        buffered, encoding=stream.encoding, errors=ERRORS, line_buffering=stream.line_buffering or stream.write_through
    )


def _is_own(stream: TextIO, descriptor: int) -> bool:
    try:
        return stream.fileno() == descriptor
    except (OSError, ValueError):
        return False


def steady() -> None:
    """Makes stdout and stderr of this process ones that no reader and no encoding can break."""
    codecs.register_error(ERRORS, _in_ascii)
    sys.stdout, sys.stderr = _steady(sys.stdout, 1), _steady(sys.stderr, 2)
