"""Text tasks by name or of the user's own: TSV and CSV with a header, folders of them, Parquet, `hf:NAME`."""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from tna_jax.programs.cli.dataset_names import TABLES, absolute, form, short
from tna_jax.programs.data import hugging_face, own, table, text
from tna_jax.programs.data.source import DataError
from tna_jax.programs.data.text import Form, TextSplit, TextTask

TEXTS, LABEL = ("text", "text2"), "label"
PARTS = {"train": ("train",), "dev": ("dev", "validation", "val"), "test": ("test",)}
"""Files of a folder by split."""
Rows = tuple[list[tuple[str, ...]], list[Any]]


def is_text(name: str) -> bool:
    """Returns whether a name stands for texts rather than images, for programs that take both."""
    if name in text.names() or form(name) == "table":
        return True
    if form(name) == "folder":
        return bool(_files(Path(absolute(name))))
    return (
        form(name) == "hf" and hugging_face.image_column(next(iter(hugging_face.splits(name, False).values()))) is None
    )


def load(
    name: str, *, data_dir: str | os.PathLike[str] | None = None, target: str | None = None, recorded: str | None = None
) -> TextTask:
    """Loads a task by name, or from the user's own texts.

    A table has the columns `text` (and `text2`, for pairs) and `label`, or `target`. One file is cut into three parts as
    `tna_jax.programs.data.text` says; a folder holds `train`, and `dev` (or `validation`) or `test` or both, as `.tsv`, `.csv` or
    `.parquet`. Of `hf:NAME` all columns of text are read.

    Args:
      name: one of `text.names()`, or data of the user's own.
      data_dir: a folder that holds data sets.
      target: the column of labels.
      recorded: the fingerprint that a run recorded.

    Raises:
      DataError: it cannot be used, or is not what the run recorded.
    """
    if name in text.names():
        return text.load(name, data_dir=data_dir)
    kind = form(name)
    if kind not in ("table", "folder", "hf"):
        known = ", ".join(text.names())
        raise DataError(
            f"{name} is no text task; known: {known}; or of your own: FILE.tsv, FILE.csv, FILE.parquet, ./FOLDER of them, hf:NAME"
        )
    parts, names = _hugging_face(name, target) if kind == "hf" else _tables(name, own.find(name, data_dir), target)
    task = _task(short(name), parts, names)
    state = hashlib.sha256(repr([(part, parts[part]) for part in sorted(parts)]).encode())
    task = dataclasses.replace(task, source=absolute(name), fingerprint=state.hexdigest(), notes=text.repeated(task))
    if problem := own.changed(task, recorded):
        raise DataError(problem)
    return task


def _files(folder: Path) -> dict[str, Path]:
    """The tables of a folder by split."""
    return {
        part: path
        for part, stems in PARTS.items()
        for path in [folder / f"{stem}{suffix}" for stem in stems for suffix in TABLES][::-1]
        if path.is_file()
    }


def _tables(name: str, path: Path, target: str | None) -> tuple[dict[str, Rows], tuple[str, ...]]:
    files = _files(path) if path.is_dir() else {"all": path}
    if path.is_dir() and ("train" not in files or len(files) < 2):
        raise DataError(
            f"{path} holds {', '.join(file.name for file in files.values()) or 'no tables'}, expected train and dev or test, as .tsv, .csv or .parquet"
        )
    return {part: _rows(file, target or LABEL) for part, file in files.items()}, ()


def _rows(file: Path, label: str) -> Rows:
    columns = table.columns(file)
    option = "" if label == LABEL else "--target"
    table.require_columns(columns, [TEXTS[0], label], str(file), option)
    texts = [[("" if cell is None else str(cell)) for cell in columns[column]] for column in TEXTS if column in columns]
    return list(zip(*texts, strict=True)), table.classes(columns[label], label, str(file)).tolist()


def _hugging_face(name: str, target: str | None) -> tuple[dict[str, Rows], tuple[str, ...]]:
    found = hugging_face.splits(name, False)
    first = next(iter(found.values()))
    label = hugging_face.label_column(name, first, target)
    columns = hugging_face.text_columns(first, label)
    if not 1 <= len(columns) <= 2:
        raise DataError(
            f"{name}: {len(columns)} columns of text ({', '.join(columns) or 'none'}), expected one, or two for pairs"
        )
    parts = hugging_face.choose(name, found, label)
    if len(parts) > 1:
        held = next((part for part in ("validation", "dev", "valid") if part in found), "")
        if parts["test"] is not found.get("test"):
            parts = {"train": parts["train"], "dev": parts["test"]}
        elif held:
            parts["dev"] = found[held]
    names = hugging_face.class_names(first, label)
    return {
        part if len(parts) > 1 else "all": (
            list(zip(*(map(str, rows[column][:]) for column in columns), strict=True)),
            [names[cell] if names and 0 <= cell < len(names) else str(cell) for cell in rows[label][:]],
        )
        for part, rows in parts.items()
    }, names


def _task(name: str, parts: dict[str, Rows], names: tuple[str, ...]) -> TextTask:
    first = parts["train" if "train" in parts else "all"]
    names = names or table.in_order(np.array(first[1]))[1]
    if len(names) < 2:
        raise DataError(f"{name}: all examples are of one class ({', '.join(names)}): there is nothing to tell apart")
    numbers = {label: i for i, label in enumerate(names)}
    splits = {}
    for part, (texts, labels) in parts.items():
        if strange := sorted(set(labels) - set(numbers)):
            raise DataError(
                f"{name}: {part} has labels that are none of the classes ({', '.join(names[:10])}): {', '.join(strange[:5])}"
            )
        kept = [i for i, words in enumerate(texts) if any(word.strip() for word in words)]
        if not kept:
            raise DataError(f"{name}: {part} has no examples")
        splits[part] = TextSplit(
            tuple(tuple(texts[i]) for i in kept), np.array([numbers[labels[i]] for i in kept], np.int32)
        )
    widths = {len(split.texts[0]) for split in splits.values()}
    if len(widths) > 1:
        raise DataError(f"{name}: some files hold one text for each example, some two")
    task = text.split_task(name, Form(names, widths.pop(), tuple(splits), name), splits)
    if not all(len(split.labels) for split in (task.train, task.validation, task.test)):
        raise DataError(f"{name}: too few different texts to cut a tenth for validation and for the test")
    return task
