"""What the value of `--dataset` names: a known set, or data of the user's own, by its form. Imports nothing that is slow."""

import difflib
import os
import re
from pathlib import Path
from typing import Literal, get_args

from tna_jax.io.errors import UsageError, require_known, unknown
from tna_jax.programs.cli.choices import DATASETS, TextTask
from tna_jax.programs.user_code import is_reference

JOIN, CHOOSE, TFDS, HF, RECORDS = "+", ":", "tfds:", "hf:", "records:"
Form = Literal["known", "npz", "table", "function", "folder", "hf", "records", "unknown"]
TABLES = (".csv", ".tsv", ".parquet")
FORMS = "FILE.npz, FILE.csv, FILE.tsv, FILE.parquet, ./FOLDER of images, ./FILE.py:NAME, PACKAGE.MODULE:NAME, hf:NAME, records:FOLDER"
"""What data of the user's own looks like, for messages."""


def form(name: str) -> Form:
    """Returns what kind of data a name stands for; names of known sets come first."""
    if _known(name):
        return "known"
    if name.startswith(HF):
        return "hf"
    if name.startswith(RECORDS):
        return "records"
    suffix = Path(name).suffix.lower()
    if suffix == ".npz":
        return "npz"
    if suffix in TABLES:
        return "table"
    if is_reference(name) and not _misspelled(name):
        return "function"
    return "folder" if name[:1] in (".", "~") or "/" in name or Path(name).is_dir() else "unknown"


def is_own(name: str) -> bool:
    """Returns whether a name stands for data of the user's own."""
    return form(name) not in ("known", "unknown")


def problem(flag: str, name: str) -> str:
    """Returns what is wrong with a name; empty if nothing is. Whether a file is there is for loading to say."""
    if not name:
        return f"{flag} must not be empty"
    if form(name) != "unknown":
        return ""
    bases = [part.partition(CHOOSE)[0] for part in name.split(JOIN)]
    wrong = next((base for base in bases if base not in DATASETS), name)
    return f"{flag}: {unknown('data set', wrong, [*DATASETS, f'{TFDS}NAME'])}; or data of your own: {FORMS}"


TEXT_FORMS = "FILE.tsv, FILE.csv, FILE.parquet, ./FOLDER of them, hf:NAME"
"""What texts of the user's own look like, for messages."""


def text_problem(flag: str, names: tuple[str, ...]) -> str:
    """Returns what is wrong with names of text tasks; empty if nothing is."""
    known = get_args(TextTask)
    if "" in names:
        return f"{flag} must not be empty"
    wrong = [name for name in names if name not in known and form(name) not in ("table", "folder", "hf")]
    try:
        require_known(flag, wrong, known)
    except UsageError as error:
        return f"{error}; or texts of your own: {TEXT_FORMS}"
    return ""


def own_tasks(names: tuple[str, ...]) -> list[str]:
    """Returns those of the names of text tasks that stand for the user's own texts."""
    return [name for name in names if name not in get_args(TextTask)]


def short(name: str) -> str:
    """Returns the name as titles show it: of the user's own data without folders."""
    if not is_own(name):
        return name
    if name.startswith(HF) and not os.path.isabs(name.removeprefix(HF)):
        return name
    return name.removeprefix(HF).removeprefix(RECORDS).rstrip("/").rpartition("/")[2]


def word(name: str) -> str:
    """Returns the name as a part of a folder's name."""
    if not is_own(name):
        return name.replace(":", "-")
    return re.sub(r"[^\w.,+-]+", "-", short(name)).strip("-")


def absolute(name: str) -> str:
    """Returns the name as a run records it: files and folders by their absolute path."""
    kind = form(name)
    if kind == "hf":
        folder = Path(name.removeprefix(HF)).expanduser()
        return f"{HF}{os.path.abspath(folder)}" if folder.is_dir() else name
    if kind == "records":
        return f"{RECORDS}{os.path.abspath(os.path.expanduser(name.removeprefix(RECORDS)))}"
    if name in get_args(TextTask):
        return name
    return os.path.abspath(os.path.expanduser(name)) if kind in ("npz", "table", "folder") else name


def _known(name: str) -> bool:
    return name.startswith(TFDS) or all(
        part.startswith(TFDS) or part.partition(CHOOSE)[0] in DATASETS for part in name.split(JOIN)
    )


def _misspelled(reference: str) -> bool:
    """Whether a reference is rather a known set, misspelled: `cifra10:cat`."""
    module = reference.rpartition(":")[0]
    return not module.endswith(".py") and bool(difflib.get_close_matches(module, DATASETS, n=1, cutoff=0.75))
