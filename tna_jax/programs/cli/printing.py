"""What the command prints, whoever reads it: a reader that has gone (`| head`, a terminal that was closed) or a full disk ends no program, and
what a terminal cannot show is ASCII."""

import codecs
import contextlib
import errno
import io
import os
import select
import shutil
import sys
from typing import Any, TextIO

IN_ASCII = {"±": "+-", "α": "alpha", "β": "beta", "κ": "kappa", "σ": "sigma", "×": "x", "–": "-", "—": "-", "−": "-", "…": "...", "→": "->",
            "≤": "<=", "≥": ">=", "─": "-", "━": "-", "│": "|", "╭": "+", "╮": "+", "╯": "+", "╰": "+", "•": "*", "’": "'", "“": '"', "”": '"'}  # fmt: skip
ERRORS = "tna_in_ascii"
NARROWEST, WIDEST = 40, 100


def _in_ascii(error: UnicodeError) -> tuple[str | bytes, int]:
    """What is written in place of letters that an encoding does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(IN_ASCII.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


class _Outlet(io.RawIOBase):
    """A file descriptor that may stop taking what is written: it is lost from then on, as it would be if it were not read."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.gone = descriptor, False
        self.lost = ""
        """What the system said where it is a file that could not be written, and not a reader who went."""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.descriptor

    def isatty(self) -> bool:
        return os.isatty(self.descriptor)

    def write(self, data: Any) -> int:
        while not self.gone:
            try:
                return os.write(self.descriptor, data)
            except BlockingIOError:  # whoever shares it made it so
                select.select([], [self.descriptor], [])
            except OSError as error:
                self.gone = True
                if error.errno not in READER_WENT:
                    self.lost = error.strerror or str(error)
                with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
                    os.dup2(nowhere.fileno(), self.descriptor)  # for what else writes there: libraries, child processes
        return len(data)


READER_WENT = (errno.EPIPE, errno.EIO, *([errno.EINVAL] if os.name == "nt" else []))
"""What the system says of a pipe whose reader has gone (Windows: an invalid argument), and of a terminal that was closed."""


def _steady(stream: TextIO, descriptor: int) -> TextIO:
    """The stream as it is printed to from now on."""
    if not isinstance(stream, io.TextIOWrapper) or not _is_own(stream, descriptor):
        return stream  # a notebook's, a test's
    stream.flush()
    if stream.isatty() and os.name == "nt":  # a console, to which letters are written and not bytes
        stream.reconfigure(errors=ERRORS)
        return stream
    buffered = io.BufferedWriter(_Outlet(descriptor))
    by_line = stream.line_buffering or stream.write_through
    return io.TextIOWrapper(buffered, encoding=stream.encoding, errors=ERRORS, line_buffering=by_line)


def _is_own(stream: TextIO, descriptor: int) -> bool:
    try:
        return stream.fileno() == descriptor
    except (OSError, ValueError):
        return False


def _occupied() -> None:
    """Sees to it that no file that is opened later takes the place of a closed stdin, stdout or stderr: what libraries print would go there."""
    descriptor = 0
    while descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)


def steady() -> None:
    """Makes stdout and stderr of this process ones that no reader, no disk and no encoding can break."""
    _occupied()
    codecs.register_error(ERRORS, _in_ascii)
    sys.stdout, sys.stderr = _steady(sys.stdout, 1), _steady(sys.stderr, 2)


def lost() -> str:
    """Returns what the system said where something that was printed to stdout could not be written; empty where all was, or nobody read it."""
    outlet = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if not isinstance(outlet, _Outlet):
        return ""
    sys.stdout.flush()
    return outlet.lost


def columns() -> int:
    """Returns the columns that help is written in: those of the terminal, no more than reads well, and no fewer than words need."""
    return max(NARROWEST, min(shutil.get_terminal_size().columns, WIDEST))
