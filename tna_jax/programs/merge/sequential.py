"""Opens a file that is read from its first byte to its last."""

import os
from io import FileIO
from pathlib import Path


def open_sequential(file: Path) -> FileIO:
    """Opens a file for unbuffered reading, and tells the system that it is read in order, so that it reads far ahead.

    Several threads that take pieces in turns each read with gaps, in which the system sees no order by itself. Advice for single pieces
    (`POSIX_FADV_WILLNEED`) makes reading slower; `python -m benchmarks.merge_parts` measures both.
    """
    opened = open(file, "rb", buffering=0)  # noqa: SIM115, for the caller to close
    if hasattr(os, "posix_fadvise"):  # not on macOS
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
    return opened
