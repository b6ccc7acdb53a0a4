"""A run is a folder: config.json, provenance.json, metrics.jsonl, checkpoints/, and the program's results."""

import contextlib
import datetime
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tna_jax.io.errors import UsageError
from tna_jax.io.formats import FORMAT
from tna_jax.io.json_files import UNFINISHED, to_json, write_atomic, write_json
from tna_jax.io.orbax_store import require_plain
from tna_jax.io.run_folder import CHECKPOINTS as CHECKPOINTS
from tna_jax.io.run_folder import CONFIG as CONFIG
from tna_jax.io.run_folder import METRICS as METRICS
from tna_jax.io.run_folder import PLAN as PLAN
from tna_jax.io.run_folder import PROVENANCE as PROVENANCE
from tna_jax.io.run_folder import read_object, read_plan, require_run
from tna_jax.programs.cli.messages import print_warning, shell_words
from tna_jax.programs.runs.identity import Identity
from tna_jax.programs.runs.lock import LOCK, OWNER, Lock
from tna_jax.programs.runs.restore import DAMAGED
from tna_jax.programs.system import distributed, trackers

RESULTS = tuple(
    f"{name}.{suffix}"
    for name in ("lmc", "train", "barrier", "landscape", "fuse", "rebasin", "pretrain", "soup", "cold", "federate")
    for suffix in ("json", "png")
)
"""What the programs write into the folder of a run about its models: where they are replaced it goes with them."""
MODELS = ("soup", "soup-ratio-*", "body-ratio-*")
"""Hugging Face folders that tna soup and tna cold write there: they go with the run that made them."""
ROUNDS, ENDS = "rounds.json", "ends"
"""What tna federate keeps of a run that may be extended, see `federate.stages`."""
IN_EPOCH = "checkpoint_in_epoch"
"""Folder of what a training on a stream saved inside an epoch."""


class Run:
    """An open run folder. `Run.create` makes or reopens one and locks it until the `with` block ends."""

    def __init__(self, folder: Path, lock: Lock | None = None, opened: Identity | None = None):
        self.folder = folder
        self.lock = lock
        self.opened = opened
        self.trackers = trackers.Trackers()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *exception: object) -> None:
        self.trackers.close()
        if self.lock is not None:
            self.lock.release()

    @classmethod
    def create(cls, out: str | None, name: str, results: tuple[str, ...], overwrite: bool, resume: bool) -> "Run":
        """Makes or reopens the folder, before anything expensive. Of several processes the first does, and all get its name.

        Args:
          out: the folder; `None` for `runs/NAME-TIME` (UTC).
          results: the files the program will write; `overwrite` removes these, the run's own, `RESULTS` and the models in `MODELS`, never
            anything else.
          resume: keep what is there.

        Raises:
          UsageError: the folder exists and neither option is given, is no run folder (those of models have a config.json too), is in use,
            cannot be written, or has a path in which checkpoints cannot be kept.
        """
        run, problem = cls(Path()), ""
        try:
            run = cls._make(out, name, results, overwrite, resume) if distributed.is_main_process() else run
        except UsageError as error:
            problem = str(error)
        message = distributed.broadcast_text(f"!{problem}" if problem else str(run.folder))
        if message.startswith("!"):
            raise UsageError(message[1:])
        return cls(Path(message), run.lock)

    @classmethod
    def _make(cls, out: str | None, name: str, results: tuple[str, ...], overwrite: bool, resume: bool) -> "Run":
        folder = Path(out) if out else Path("runs")
        require_plain(folder, "--out ")
        if out:
            _require_ours(folder, resume)
        try:
            folder = _made(folder) if out else _new(name)
            with tempfile.TemporaryFile(dir=folder):
                pass
            lock = Lock(folder)
        except OSError as error:
            raise UsageError(f"cannot write to --out {folder}: {error.strerror or error}") from error
        if (folder / CONFIG).is_file() and not resume:
            if not overwrite:
                lock.release()
                raise UsageError(f"--out {folder} exists; name another one, or add --overwrite or --resume")
            try:
                cls(folder)._clear(results)
            except UsageError:
                lock.release()
                raise
        for path in folder.iterdir():
            if _is_unfinished(path):
                path.unlink()
        return cls(folder, lock)

    @classmethod
    def open(cls, name: str) -> "Run":
        """Opens an existing run folder, without locking it; raises UsageError if it is not one.

        Results are written into it only while it is the same run (see `identity`).
        """
        require_run(Path(name))
        return cls(Path(name), opened=Identity.of(Path(name)))

    def require_same(self) -> None:
        """Raises UsageError where the folder of a run that was opened holds another one by now: call it when its models were read."""
        if self.opened is not None:
            self.opened.require()

    def writable(self) -> "Run":
        """Returns this run if results can be written into its folder; raises UsageError, before they are computed, if not."""
        try:
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise UsageError(
                f"cannot write to {self.folder}, where the results go: {error.strerror or error}; copy the run to a folder that "
                "can be written"
            ) from error
        return self

    def _clear(self, results: tuple[str, ...]) -> None:
        """Removes the run; what makes the folder one goes last, so that a stop in the middle leaves a run that can be replaced."""
        made = [
            path for pattern in MODELS for path in self.folder.glob(pattern) if (path / "model.safetensors").is_file()
        ]
        for path in made:
            _remove(path)
        results = (*RESULTS, *results)
        for name in (*results, METRICS, CHECKPOINTS, DAMAGED, IN_EPOCH, ENDS, *trackers.FOLDERS):
            _remove(self.folder / name)
        for name in (PLAN, ROUNDS, PROVENANCE):
            _remove(self.folder / name)
        for name in results:  # once more: until then whoever had opened the run may have written some
            _remove(self.folder / name)
        _remove(self.folder / CONFIG)

    @property
    def quoted_path(self) -> str:
        """The folder as an argument of a command line, quoted where a shell asks for it."""
        return shell_words(str(self.folder))

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints, absolute."""
        return (self.folder / CHECKPOINTS).resolve()

    def write(self, name: str, value: Any) -> Path:
        """Writes a JSON file of the run on process 0, whole or not at all.

        Raises:
          UsageError: it cannot be written, or was of a run that was opened and is not there any more: then it is kept beside the folder.
        """
        if distributed.is_main_process():
            gone = self._gone()
            if gone is None:
                with self.writing(name):
                    write_json(self.folder / name, value)
                if (gone := self._gone()) is not None:  # in this moment
                    (self.folder / name).unlink(missing_ok=True)
            if gone is not None:
                gone.keep(name, value)
        return self.folder / name

    @contextlib.contextmanager
    def drawing(self, name: str) -> Iterator[Path]:
        """Yields the place of a figure to draw in the block; raises UsageError, and leaves none, where it is of a run that is not there any more."""
        self.require_same()
        yield self.folder / name
        if self._gone() is not None:
            (self.folder / name).unlink(missing_ok=True)
        self.require_same()

    def _gone(self) -> Identity | None:
        """Returns the run that was opened, if the folder holds it no more."""
        return None if self.opened is None or self.opened.stands() else self.opened

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Raises UsageError where a file of the run cannot be written in the block: what the system says, and how to go on."""
        try:
            yield
        except (OSError, UsageError) as refused:
            error = refused if isinstance(refused, OSError) else refused.__cause__
            if not isinstance(error, OSError):
                raise
            resumes = self.lock is not None and self.has(CONFIG)  # without that file nothing was begun
            again = f"tna resume {self.quoted_path}" if resumes else "the same command again"
            raise UsageError(
                f"cannot write {self.folder / name}: {error.strerror or error}; what was saved before is intact; mend "
                f"that, then: {again}"
            ) from error

    def has(self, name: str) -> bool:
        """Returns whether the run holds a file of that name."""
        return (self.folder / name).is_file()

    def read(self, name: str) -> Any:
        """Reads a JSON object of the run; raises UsageError where it is not one, or of a later version."""
        return read_object(self.folder / name)

    def plan(self) -> tuple[list[dict[str, Any]], int]:
        """Reads plan.json: what each model is, and how many train at once; raises UsageError for anything else there."""
        return read_plan(self.folder)

    def write_plan(self, models: list[dict[str, Any]], wave: int) -> None:
        """Writes plan.json: what each model is, and how many train at once."""
        self.write(PLAN, {"format": FORMAT, "models": models, "at_once": wave})

    def log(self, **values: Any) -> None:
        """Appends one line to metrics.jsonl and shows its numbers in the run's trackers, on process 0."""
        if not distributed.is_main_process():
            return
        line = to_json(values)
        with self.writing(METRICS), open(self.folder / METRICS, "a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        self.trackers.log(line)

    def watch(self, option: str | None, config: dict[str, Any]) -> None:
        """Opens the trackers that `--log` names, on process 0; all processes must call it.

        Raises:
          UsageError: one cannot be opened.
        """
        problem = ""
        try:
            if distributed.is_main_process():
                self.trackers.start(trackers.chosen(option), self.folder, config)
        except UsageError as error:
            problem = str(error)
        if problem := distributed.broadcast_text(problem):
            raise UsageError(problem)

    def keep_logged(self, before: int) -> None:
        """Drops the lines of metrics.jsonl from step `before` on, which a resumed run does again; process 0 does.

        A line that was cut off or cannot be read is dropped with a warning: nothing but the log depends on it.
        """
        if before:
            self.trackers.rewind(before)
        file = self.folder / METRICS
        if not distributed.is_main_process() or not file.is_file():
            return
        kept, unreadable = [], 0
        for line in file.read_bytes().splitlines():
            step = _step(line)
            unreadable += step is None
            if step is not None and step < before:
                kept.append(line)
        if unreadable:
            lines = "a line" if unreadable == 1 else f"{unreadable} lines"
            print_warning(f"{lines} of {file} could not be read and {'was' if unreadable == 1 else 'were'} dropped")
        with self.writing(METRICS):
            write_atomic(file, b"".join(line + b"\n" for line in kept))


def _step(line: bytes) -> int | None:
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return step if type(step) is int else None


def _require_ours(folder: Path, resume: bool) -> None:
    """Raises UsageError for a file, for a folder of something else than a run, and for none where one is to be resumed."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file; name a folder")
    if resume and not folder.exists():
        raise UsageError(f"--resume: {folder} is not a run folder (it has no {CONFIG})")
    foreign = folder.exists() and not (folder / CONFIG).is_file() and not all(map(_may_be_ours, folder.iterdir()))
    if foreign:
        option = "--resume:" if resume else "--out"
        raise UsageError(f"{option} {folder} exists and is not a run folder (no {CONFIG}); name another one")
    if (folder / CONFIG).is_file() and not (folder / PROVENANCE).is_file() and not _is_of_a_run(folder / CONFIG):
        option = "--resume:" if resume else "--out"
        raise UsageError(
            f"{option} {folder} is not a run folder: its {CONFIG} is that of something else; name another one"
        )


def _is_of_a_run(config: Path) -> bool:
    """Returns whether a program of ours wrote the file: models and projects of others have a config.json too."""
    try:
        held = read_object(config)
        return not held or not {"format", "program"}.isdisjoint(held)
    except UsageError:
        return True  # damaged, or of a later version: for --resume to say


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _new(name: str) -> Path:
    """Makes a folder named after the time (UTC), which no other program that starts in the same second takes for its own."""
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    for count in itertools.count(1):
        folder = Path("runs") / (f"{name}-{stamp}" if count == 1 else f"{name}-{stamp}-{count}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            break
    return folder


def _remove(path: Path) -> None:
    """Removes a file or folder of a run that is replaced, if it is there; what stays would be taken for the new run's.

    Of a folder that lies elsewhere (a link: checkpoints on a larger disk) the link stays, for the new run.
    """
    try:
        if path.is_symlink() and path.is_dir():
            for inner in path.iterdir():
                _remove(inner)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except FileNotFoundError:  # someone else removes it too
        return _remove(path) if path.exists() else None
    except OSError as error:
        raise UsageError(
            f"--overwrite: cannot remove {error.filename or path}: {error.strerror or error}; remove {path}, or name another --out"
        ) from error


def _may_be_ours(path: Path) -> bool:
    """Returns whether a run that was killed before it wrote its configuration may have left the file."""
    return path.name in (LOCK, OWNER, PROVENANCE) or _is_unfinished(path)


def _is_unfinished(path: Path) -> bool:
    """Returns whether the file is the beginning of one that a killed program did not finish."""
    return path.name.startswith(".") and path.name.endswith(UNFINISHED) and path.is_file()
