"""A folder of models that is written whole or not at all: under a hidden name beside its place, renamed when all of it is there."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import UNFINISHED
from tna_jax.programs.runs import lock
from tna_jax.programs.runs.folder import CHECKPOINTS, CONFIG, METRICS, PLAN, PROVENANCE, RESULTS
from tna_jax.programs.system import distributed

PERMUTATIONS = "permutations.json"
WRITTEN = (CONFIG, PROVENANCE, METRICS, PLAN, CHECKPOINTS, lock.LOCK, lock.OWNER, PERMUTATIONS, *RESULTS)
"""What lies in such a folder, beside .safetensors files and Hugging Face folders."""


def check(out: Path, overwrite: bool) -> None:
    """Raises UsageError for a place where no folder of models may be written, before any work.

    Args:
      out: the folder.
      overwrite: whether it may replace models that lie there; a folder that holds none is never replaced.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; a folder is written")
    if out.exists() and not overwrite:
        raise UsageError(f"--out {out} exists; name another folder, or add --overwrite")
    if out.is_dir():
        names = sorted(path.name for path in out.iterdir())
        if names and not any(map(_is_model, out.iterdir())):
            raise UsageError(
                f"--out {out} holds no models ({', '.join(names[:5])}): --overwrite does not replace it; name another folder"
            )
        if lock.held(out):
            raise UsageError(f"--out {out} is in use: a program is at work in it; name another folder")
    parent = next(folder for folder in (out.absolute().parent, *out.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise UsageError(f"cannot write to --out {out}: {error.strerror or error}") from error


@contextlib.contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yields a hidden folder beside `out`, which takes its place when the block ends without an error.

    Models of an older folder there are removed, and what else it holds is kept. Whatever happens, `out` is the old folder,
    nothing, or the new one; what a killed program left is removed by the next one. Of several processes the first one makes
    and renames, on a file system that all share.
    """
    staged, replaced = (out.with_name(f".{out.name}{suffix}") for suffix in (UNFINISHED, ".replaced"))
    main = distributed.is_main_process()
    if main:
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
    distributed.broadcast_text("")
    try:
        yield staged
        distributed.broadcast_text("")
        if main:
            _swap(out, staged, replaced)
        distributed.broadcast_text("")
    finally:
        if main:
            shutil.rmtree(staged, ignore_errors=True)


def _swap(out: Path, staged: Path, replaced: Path) -> None:
    shutil.rmtree(replaced, ignore_errors=True)
    if out.exists():
        os.rename(out, replaced)
    try:
        os.rename(staged, out)
    except BaseException:
        if replaced.exists():
            os.rename(replaced, out)
        raise
    if replaced.exists():
        for path in replaced.iterdir():
            if not _is_written(path):
                os.rename(path, out / path.name)
        shutil.rmtree(replaced, ignore_errors=True)


def _is_model(path: Path) -> bool:
    return path.name == CONFIG or path.suffix == ".safetensors" or _is_hugging_face(path)


def _is_written(path: Path) -> bool:
    return path.name in WRITTEN or path.suffix == ".safetensors" or _is_hugging_face(path)


def _is_hugging_face(path: Path) -> bool:
    return path.is_dir() and (path / "config.json").is_file() and any(path.glob("*.safetensors"))
