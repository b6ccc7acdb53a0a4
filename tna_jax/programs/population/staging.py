"""A folder of models that is written whole or not at all: under a hidden name beside its place, renamed when all of it is there."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import UNFINISHED
from tna_jax.programs.runs import lock
from tna_jax.programs.runs.folder import CHECKPOINTS, CONFIG, METRICS, PLAN, PROVENANCE, RESULTS
from tna_jax.programs.system import distributed

PERMUTATIONS = "permutations.json"
WRITTEN = (CONFIG, PROVENANCE, METRICS, PLAN, CHECKPOINTS, lock.LOCK, lock.OWNER, PERMUTATIONS, *RESULTS)
"""What lies in such a folder, beside .safetensors files and Hugging Face folders."""


def check(out: Path, overwrite: bool) -> None:
    """Raises UsageError for a place where no folder of models may be written, before any work; mends what a killed program left there.

    Args:
      out: the folder.
      overwrite: whether it may replace models that lie there; a folder that holds none is never replaced.
    """
    if distributed.is_main_process():
        _put_back(out)
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
    staged = out.with_name(f".{out.name}{UNFINISHED}")
    main = distributed.is_main_process()
    with _alone(out) if main else contextlib.nullcontext():
        if main:
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir()
        distributed.broadcast_text("")
        try:
            yield staged
            distributed.broadcast_text("")
            if main:
                _put_back(out)
                _swap(out, staged)
            distributed.broadcast_text("")
        finally:
            if main:
                shutil.rmtree(staged, ignore_errors=True)


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Lets one program at a time write `out`: two would mix their models. Where there are no locks nothing is locked.

    Raises:
      UsageError: another program writes it.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    file = out.with_name(f".{out.name}{lock.LOCK}")
    held = FileLock(file, thread_local=False)
    try:
        held.acquire(timeout=lock.PATIENCE, poll_interval=lock.PATIENCE / 5)
    except Timeout as error:
        raise UsageError(
            f"--out {out} is being written by another program; wait for it, or name another folder"
        ) from error
    except (OSError, NotImplementedError):
        pass
    try:
        yield
    finally:
        if held.is_locked:
            with contextlib.suppress(OSError):  # Windows keeps what is open
                file.unlink()
            held.release()


def _replaced(out: Path) -> Path:
    """Where the older folder is while the new one takes its place."""
    return out.with_name(f".{out.name}.replaced")


def _put_back(out: Path) -> None:
    """Mends what a program left that was killed while it replaced `out`: the older folder comes back, or what it held beside models."""
    replaced = _replaced(out)
    if replaced.is_dir() and not out.exists():
        os.rename(replaced, out)
    elif replaced.is_dir():
        _move_rest(replaced, out)


def _move_rest(replaced: Path, out: Path) -> None:
    """Moves what is no model from the older folder to the new one, beside what has its name there by now, and removes the older one."""
    for path in replaced.iterdir():
        if not _is_written(path):
            place = out / path.name
            while place.exists():
                place = place.with_name(f"{place.name}.before")
            os.rename(path, place)
    shutil.rmtree(replaced, ignore_errors=True)


def _swap(out: Path, staged: Path) -> None:
    replaced = _replaced(out)
    if out.exists():
        os.rename(out, replaced)
    try:
        os.rename(staged, out)
    except BaseException:
        if replaced.exists():
            os.rename(replaced, out)
        raise
    if replaced.exists():
        _move_rest(replaced, out)


def _is_model(path: Path) -> bool:
    return path.name == CONFIG or path.suffix == ".safetensors" or _is_hugging_face(path)


def _is_written(path: Path) -> bool:
    return path.name in WRITTEN or path.suffix == ".safetensors" or _is_hugging_face(path)


def _is_hugging_face(path: Path) -> bool:
    return path.is_dir() and (path / "config.json").is_file() and any(path.glob("*.safetensors"))
