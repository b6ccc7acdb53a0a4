"""From a reference to the function: checked before any of its code is run, errors in one line."""

import dataclasses
import importlib
import os
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tna_jax.io.errors import UsageError
from tna_jax.programs.user_code import trust as trusted_files
from tna_jax.programs.user_code.references import Source, find


@dataclasses.dataclass(frozen=True)
class UserFunction:
    """A function of the user's own."""

    function: Callable[..., Any]
    reference: str
    """As a run records it: files by their absolute path."""
    sha256: str
    """Of the file's bytes."""


def resolve(reference: str, option: str, recorded_sha256: str | None = None, trust: bool = False) -> UserFunction:
    """Returns the function (or class) that a reference names.

    Code that this command's own option names is trusted, and its hash remembered. Code that a run folder names runs only if
    the file is still the recorded one and this user has named it on this machine before.

    Args:
      reference: `package.module:name` or `./file.py:name`.
      option: as it is written, for errors: `--model`.
      recorded_sha256: the hash that a run holds beside the reference (anything else where it holds none); `None`: the user named it.
      trust: run it whatever was recorded (`--trust-code`).

    Raises:
      UsageError: no such file, module or name; it is not callable; importing it fails; it is not trusted.
    """
    source = find(reference, option)
    if recorded_sha256 is None:
        trusted_files.remember(source.file, source.sha256)
    elif not trust:
        _check_trusted(source, option, recorded_sha256)
    module = _load(source, option)
    if not hasattr(module, source.name):
        names = [name for name, value in vars(module).items() if callable(value) and name[0] != "_"
                 and getattr(value, "__module__", None) == module.__name__]  # fmt: skip
        raise UsageError(
            f"{option} {reference}: {source.file} has no {source.name}; it has {', '.join(names) or 'none'}"
        )
    function = getattr(module, source.name)
    if not callable(function):
        raise UsageError(f"{option} {reference}: {source.name} is {type(function).__name__}, expected a function")
    return UserFunction(function, source.reference, source.sha256)


def line_of(error: BaseException, file: Path | str) -> str:
    """Returns an error of the user's code in one line: its type, message, and the last line of `file` that it came through."""
    message = " ".join(str(error).split())
    if isinstance(error, SyntaxError):
        return (
            f"{type(error).__name__}: {' '.join(error.msg.split())} (line {error.lineno} of {error.filename or file})"
        )
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    where = f" (line {lines[-1]} of {file})" if lines else f" ({file})"
    return f"{type(error).__name__}{f': {message}' if message else ''}{where}"


def _check_trusted(source: Source, option: str, recorded: str) -> None:
    if source.sha256 != recorded:
        state = "has changed since the run" if len(recorded) == 64 else "has no hash in the run"
        allow = "put back the file of the run, or read this one and add --trust-code"
    elif not trusted_files.is_trusted(source.file, source.sha256):
        state = "was never named by you on this machine"
        allow = f"read it, then name it in a command of your own ({option} {source.reference}) or add --trust-code"
    else:
        return
    raise UsageError(
        f"{option} {source.reference}: the run names code, and {source.file} {state}; nothing of it was run: {allow}"
    )


_LOADED: dict[tuple[str, str], types.ModuleType] = {}
"""Files that were run in this process, by path and hash: one function for one file, so that programs compile once."""


def _load(source: Source, option: str) -> types.ModuleType:
    try:
        return _load_module(source) if source.module else _load_file(source)
    except (Exception, SystemExit) as error:
        raise UsageError(f"{option} {source.reference}: importing it fails: {line_of(error, source.file)}") from error


def _load_module(source: Source) -> types.ModuleType:
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    return importlib.import_module(source.module)


def _load_file(source: Source) -> types.ModuleType:
    """Runs the very bytes that were hashed; the file's own folder is searched first while it is, and last from then on."""
    key = str(source.file), source.sha256
    if key in _LOADED:
        return _LOADED[key]
    name = f"tna_user_{source.file.stem}_{source.sha256[:12]}"
    module = types.ModuleType(name)
    module.__file__ = str(source.file)
    folder = str(source.file.parent)
    sys.modules[name] = module  # dataclasses, Flax and Equinox look classes up there
    sys.path.insert(0, folder)
    try:
        exec(compile(source.code, str(source.file), "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)
    _LOADED[key] = module
    return module
