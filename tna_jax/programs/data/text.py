"""Text classification tasks from tab-separated files, and how their texts become arrays of token ids of fixed length.

A task is one or more files `text/NAME.SPLIT.tsv.gz` of a data folder, UTF-8, a row for each example: the label, a tab, the text (two
texts in tasks of pairs); nothing is quoted. `SPLITS` says which file is what, and what is cut from what where a set has no
split of its own: always by a seeded permutation of its *different* texts, so that a text stands in one split only.
"""

import dataclasses
import gzip
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tna_jax.io.errors import unknown
from tna_jax.programs.data.search_path import candidate_dirs, missing, places
from tna_jax.programs.data.source import KNOWN, DataError, permutation

SPLIT_SEED = 20_240_301
FOLDERS = ("text",)


class Form(NamedTuple):
    """What a task is made of."""

    class_names: tuple[str, ...]
    texts: int
    """Texts of an example: 1, or 2 for pairs."""
    files: tuple[str, ...]
    """Splits that have files: of train, dev, test, all."""
    title: str


FORMS: dict[str, Form] = {
    "sst2": Form(("negative", "positive"), 1, ("train", "dev", "test"), "SST-2"),
    "sst5": Form(("very negative", "negative", "neutral", "positive", "very positive"), 1, ("train", "dev", "test"), "SST-5"),
    "mr": Form(("negative", "positive"), 1, ("all",), "MR"),
    "cr": Form(("negative", "positive"), 1, ("all",), "CR"),
    "mpqa": Form(("negative", "positive"), 1, ("all",), "MPQA"),
    "subj": Form(("subjective", "objective"), 1, ("all",), "SUBJ"),
    "trec": Form(("description", "entity", "abbreviation", "human", "location", "number"), 1, ("train", "test"), "TREC"),
    "cola": Form(("unacceptable", "acceptable"), 1, ("train", "dev"), "CoLA"),
    "rte": Form(("entailment", "not entailment"), 2, ("train", "dev"), "RTE"),
    "ag_news": Form(("World", "Sports", "Business", "Sci/Tech"), 2, ("test",), "AG News"),
}  # fmt: skip
"""The tasks by name."""

HELD = 0.1
"""Share of a file that becomes a split of its own where the set has none."""


class TextSplit(NamedTuple):
    """Examples in their stored order."""

    texts: tuple[tuple[str, ...], ...]
    """N times one text, or two."""
    labels: np.ndarray
    """(N,) int32."""

    def take(self, rows: np.ndarray) -> "TextSplit":
        """Returns the examples `rows`, in that order."""
        return TextSplit(tuple(self.texts[i] for i in rows), self.labels[rows])


@dataclasses.dataclass(frozen=True, eq=False)
class TextTask:
    """A classification task. Validation examples are for choosing, test examples for reporting."""

    name: str
    title: str
    class_names: tuple[str, ...]
    train: TextSplit
    validation: TextSplit
    test: TextSplit
    how_split: str
    """Where each split comes from, in words."""
    source: str = ""
    """A user's own texts: their name as a run records it; empty for known tasks."""
    fingerprint: str = ""
    """The sha256 of a user's own texts."""
    notes: tuple[str, ...] = ()
    """What whoever trains on them should know, for the line that describes them."""

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    def describe(self) -> str:
        """Describes the task in one line: name, numbers of examples and classes."""
        counts = (
            f"{len(self.train.labels)} train + {len(self.validation.labels)} validation + {len(self.test.labels)} test"
        )
        return "; ".join([f"{self.title}: {counts} texts, {self.num_classes} classes", *self.notes])


def names() -> tuple[str, ...]:
    """Returns the tasks that `load` knows."""
    return tuple(FORMS)


def load(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> TextTask:
    """Loads a task by name into memory; the same call gives the same examples in the same order.

    Splits, by the files a set has: train, dev and test as they are (dev is validation). Train and test: a tenth of train is
    validation. Train and dev (their test labels are secret): dev is test, a tenth of train validation. One file only: a tenth
    validation, a tenth test. Rows without any text are left out.

    Raises:
      DataError: an unknown name, a file found nowhere, or rows that are not examples; the first rows are named.
    """
    if name not in FORMS:
        raise DataError(str(unknown("text task", name, FORMS)))
    form, searched = FORMS[name], places(data_dir)
    holds = f"{FOLDERS[0]}/ with {' and '.join(f'{name}.{part}.tsv.gz' for part in form.files)}"
    for place in searched:
        for home in candidate_dirs(place.root, FOLDERS):
            paths = {part: home / f"{name}.{part}.tsv.gz" for part in form.files}
            lacking = [path.name for path in paths.values() if not path.is_file()]
            if len(lacking) == len(paths):
                continue
            if lacking:
                raise DataError(f"{home} lacks {', '.join(lacking)}")
            return split_task(name, form, {part: read(path, form) for part, path in paths.items()})
    raise missing(name, searched, holds)


def read(path: Path, form: Form) -> TextSplit:
    """Reads the examples of one file; rows whose texts are all empty are left out.

    Raises:
      DataError: it cannot be read, or holds rows that are not examples: how many, and the first of them with what is wrong.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
            lines = file.read().split("\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as gzipped UTF-8 text ({error})") from error
    texts, labels, bad = [], [], []
    for number, line in enumerate(lines[:-1] if lines and not lines[-1] else lines, start=1):
        label, *parts = line.split("\t")
        if fault := _fault(label, parts, form):
            bad.append(f"line {number}: {fault}")
        elif any(part.strip() for part in parts):
            texts.append(tuple(parts))
            labels.append(int(label))
    if bad:
        more = f", and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise DataError(f"{path}: {len(bad)} rows are not examples: {'; '.join(bad[:5])}{more}")
    if not texts:
        raise DataError(f"{path}: no examples")
    return TextSplit(tuple(texts), np.array(labels, np.int32))


def _fault(label: str, parts: list[str], form: Form) -> str:
    if len(parts) != form.texts:
        return f"{len(parts)} fields after the label, expected {form.texts}"
    if not (label.isascii() and label.isdigit() and int(label) < len(form.class_names)):
        return f"label {label[:20]!r}, expected 0 to {len(form.class_names) - 1}"
    return ""


def split_task(name: str, form: Form, parts: dict[str, TextSplit]) -> TextTask:
    """Returns the task of what its files hold, by split (train, dev, test, or all): see `load`."""
    if set(parts) == {"train", "dev", "test"}:
        train, validation, test = (parts[part] for part in ("train", "dev", "test"))
        how = "train, dev and test files as they are; dev is validation"
    elif len(parts) == 1:
        ((part, examples),) = parts.items()
        validation, test, train = cut(examples, (HELD, HELD), SPLIT_SEED)
        how = f"from the one file ({part}), seeded: a tenth validation, a tenth test, by different texts"
    else:
        (test,) = (parts[part] for part in ("test", "dev") if part in parts)
        validation, train = cut(parts["train"], (HELD,), SPLIT_SEED)
        how = f"test is the {'test' if 'test' in parts else 'dev'} file; a tenth of train is validation, seeded, by different texts"
    return TextTask(name, form.title, form.class_names, train, validation, test, how)


def cut(split: TextSplit, shares: Sequence[float], seed: int) -> list[TextSplit]:
    """Cuts a split into parts with these shares of its *different* texts, and the rest; equal texts stay together.

    Each part keeps the order of the rows, shuffled by the seed (files are often sorted by label).
    """
    first: dict[tuple[str, ...], int] = {}
    groups = np.array([first.setdefault(text, len(first)) for text in split.texts])
    place = np.empty(len(first), np.int64)
    place[permutation(len(first), seed)] = np.arange(len(first))
    rows = np.argsort(place[groups], kind="stable")
    ends = np.cumsum([round(share * len(first)) for share in shares])
    which = np.searchsorted(ends, place[groups[rows]], side="right")
    return [split.take(rows[which == part]) for part in range(len(shares) + 1)]


def repeated(task: TextTask) -> tuple[str, ...]:
    """Examples, text and label, that stand in two splits: more of them than a few that look alike. Equal texts are cut into one part,
    so they come from files of their own."""
    train, validation, test = (
        list(zip(split.texts, split.labels.tolist(), strict=True)) for split in (task.train, task.validation, task.test)
    )
    notes = []
    for examples, others, words in (
        (test, {*train, *validation}, "test examples are training or validation examples too: scores on them say little of new examples"),
        (validation, {*train}, "validation examples are training examples too: what is chosen by them favors models that have memorized them"),
    ):  # fmt: skip
        count = sum(example in others for example in examples)
        notes += [f"{count} of {len(examples)} {words}"] if count > KNOWN * len(examples) else []
    return tuple(notes)


def corpus(names: Sequence[str], *, data_dir: str | os.PathLike[str] | None = None) -> list[str]:
    """Returns every training text of the tasks, each different one once, in order: for a tokenizer and masked-language modeling.

    Only training splits: no validation or test text of the tasks is in it, unless it stands in another task's training split.
    """
    seen: dict[str, None] = {}
    for name in names:
        for texts in load(name, data_dir=data_dir).train.texts:
            seen.update(dict.fromkeys(text for text in texts if text.strip()))
    return list(seen)
