"""Writes a folder whole or not at all: under a hidden name beside its place, renamed when all of it is on disk."""

import contextlib
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import read_json
from tna_jax.programs.cli.progress import console

REPORT = "merge.json"
WEIGHTS = (
    ".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".ckpt", ".h5", ".msgpack",
    ".msgpack.index.json", ".onnx", ".onnx_data", ".ot", ".gguf", ".ggml", ".npz", ".npy", ".tflite", ".pb", ".mlmodel", ".pkl",
    ".pickle", ".keras", ".data-00000-of-00001",
)  # fmt: skip
"""Endings of files that hold weights, or say in which file which weight is."""
OPENVINO = re.compile(r"^openvino_.*\.(xml|bin)$")
MODEL_FILES = re.compile(
    r"^((config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|preprocessor_config|"
    r"processor_config|modules|pretraining|sentence_bert_config|config_sentence_transformers|adapter_config|chat_template)"
    r"\.json|vocab\.(txt|bpe)|merges\.txt|.*\.(model|jinja))$"
)
"""Names of files of a folder that tell a reader how to use its weights."""


def is_weights(name: str) -> bool:
    """Whether a file of that name holds weights, or says where they are."""
    lower = name.lower()
    return lower.endswith(WEIGHTS) or bool(OPENVINO.match(lower))


def check_replaceable(out: Path) -> None:
    """Raises UsageError for an existing folder that holds no model: replacing it would take away what no merge wrote."""
    if not out.is_dir():
        return
    held = [file.name for file in out.iterdir()]
    if held and not any(name == REPORT or name == "config.json" or is_weights(name) for name in held):
        shown = ", ".join(sorted(held)[:5])
        raise UsageError(
            f"--out {out} is a folder that holds no model ({shown}): --overwrite does not replace it; name another one"
        )


@contextlib.contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yields a hidden folder beside `out`; when the block ends without an error it takes the place of `out`.

    Files of an older folder there that are no part of a model (notes, other folders) are kept. After a crash at any moment
    `out` is the old folder, or nothing, or the new one; what a crash left is swept by `sweep`.
    """
    staged = out.with_name(_hidden(out, "merging"))
    replaced = out.with_name(_hidden(out, "replaced"))
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    try:
        if out.is_dir():
            _keep(out, staged)
        yield staged
        _sync(staged)
        if out.is_dir():
            os.rename(out, replaced)
        os.rename(staged, out)
        _sync_folder(out.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        if replaced.is_dir() and not out.exists():
            os.rename(replaced, out)
        shutil.rmtree(staged, ignore_errors=True)


def sweep(out: Path) -> list[str]:
    """Removes what merges into `out` left when they were killed, and prints its names; returns them.

    The old merge, where a kill fell between two renames, is put back. What belongs to a process that is alive, or to another
    machine, is left alone.
    """
    swept = []
    pattern = re.compile(rf"^\.{re.escape(out.name)}\.(?P<host>.+)\.(?P<process>\d+)\.(?P<what>merging|replaced|part)$")
    for path in sorted(out.parent.iterdir()) if out.parent.is_dir() else []:
        match = pattern.match(path.name)
        if not match or match["host"] != _host() or _alive(int(match["process"])):
            continue
        if match["what"] == "replaced" and not out.exists():
            os.rename(path, out)
            console.print(f"a merge was killed while it replaced {out}: the old one is back", highlight=False)
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        swept.append(str(path))
    if swept:
        console.print(f"removed what a killed merge left: {', '.join(swept)}", highlight=False)
    return swept


def partial(file: Path) -> Path:
    """Returns the hidden name of a file while it is written."""
    return file.with_name(_hidden(file, "part"))


def _hidden(path: Path, what: str) -> str:
    return f".{path.name}.{_host()}.{os.getpid()}.{what}"


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40] or "host"


def _alive(process: int) -> bool:
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _keep(old: Path, staged: Path) -> None:
    """Copies into the new folder what an older one holds beside its model."""
    of_merge: list[str] = []
    if (old / REPORT).is_file():
        with contextlib.suppress(UsageError, AttributeError):
            of_merge = list(read_json(old / REPORT).get("files", []))
    for path in sorted(old.iterdir()):
        names = [path.name, *(f"{path.name}/{file.name}" for file in path.iterdir())] if path.is_dir() else [path.name]
        model = any(name in of_merge for name in names) or is_weights(path.name) or MODEL_FILES.match(path.name)
        if model or path.name == REPORT:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, staged / path.name, symlinks=True)
        else:
            shutil.copy2(path, staged / path.name, follow_symlinks=False)


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with open(path, "rb+") as file:
                os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
