"""Data of the user's own by the form of its name: which reader, where its file is, what a run records of it."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tna_jax.programs.cli.dataset_names import RECORDS, absolute, form, short
from tna_jax.programs.data import arrays, client_files, hugging_face, image_folder, npz, records, table, user_function
from tna_jax.programs.data.source import DataError, Dataset
from tna_jax.programs.user_code import is_reference, resolve


class Request(NamedTuple):
    """What the options say of data of the user's own."""

    objective: str = "classification"
    target: str | None = None
    """The column of a table that is predicted."""
    image_size: int | None = None
    """Side to which images are brought."""
    sha256: str | None = None
    """Of the code that a run recorded; None for code that the user has named now."""
    trust: bool = False
    streams: bool = False
    """Whether the program can train on examples that stay on the disk."""
    client_column: str | None = None
    """The column of a table that says whose an example is."""


def load(name: str, data_dir: str | os.PathLike[str] | None, download: bool, request: Request) -> Dataset:
    """Loads data of the user's own, all of it.

    Raises:
      DataError, UsageError: it cannot be used; one line.
    """
    kind = form(name)
    _check_options(name, kind, request)
    if kind == "function":
        user = resolve(name, "--dataset", request.sha256, request.trust)
        dataset = arrays.from_arrays(short(name), user_function.read(user), request.objective)
        return dataclasses.replace(dataset, source=user.reference, code_sha256=user.sha256)
    readers: dict[str, Callable[[], Dataset]] = {
        "npz": lambda: arrays.from_arrays(short(name), npz.read(find(name, data_dir)), request.objective),
        "folder": lambda: _folder(name, find(name, data_dir), request),
        "table": lambda: _table(name, find(name, data_dir), request),
        "records": lambda: records.load(short(name), find(name, data_dir), request.objective),
        "hf": lambda: _hugging_face(name, download, request),
    }
    return dataclasses.replace(readers[kind](), source=absolute(name))


def _folder(name: str, folder: Path, request: Request) -> Dataset:
    """A folder of images; or of tables or .npz files, one a client."""
    files = client_files.listed(folder)
    if not files:
        return _images(name, folder, request)
    values, names, notes = client_files.read(files, request.target, request.objective)
    dataset = arrays.from_arrays(short(name), values, request.objective)
    dataset = dataclasses.replace(dataset, notes=(*dataset.notes, *notes))
    return dataclasses.replace(dataset, class_names=names, num_classes=len(names)) if names else dataset


def _images(name: str, folder: Path, request: Request) -> Dataset:
    if request.objective != "classification" and not is_reference(request.objective):
        raise DataError(f"{name}: folders of images have labels, which --objective {request.objective} does not take")
    dataset = arrays.from_arrays(short(name), image_folder.read(folder, request.image_size), "classification")
    return dataclasses.replace(dataset, notes=(*dataset.notes, *image_folder.left_aside(folder)))


def _hugging_face(name: str, download: bool, request: Request) -> Dataset:
    values, names = hugging_face.arrays(name, hugging_face.splits(name, download), request.target, request.image_size)
    dataset = arrays.from_arrays(short(name), values, request.objective)
    if not names or not dataset.class_names or dataset.class_names == names:
        return dataset
    if dataset.num_classes > len(names):
        raise DataError(f"{name}: labels up to {dataset.num_classes - 1}, but {len(names)} classes")
    return dataclasses.replace(dataset, class_names=names, num_classes=len(names))


def _table(name: str, file: Path, request: Request) -> Dataset:
    read = table.columns(file)
    if request.client_column is not None:
        table.require_columns(read, [request.client_column], short(name), "--client-column")
    owners = read.pop(request.client_column) if request.client_column is not None else None
    values, notes = table.arrays(read, request.target, request.objective, short(name))
    if owners is not None:
        values[arrays.OWNERS] = table.classes(owners, str(request.client_column), short(name), many=True)
    names: tuple[str, ...] = ()
    if request.objective == "classification":
        values["y_train"], names = table.in_order(values["y_train"])
    dataset = arrays.from_arrays(short(name), values, request.objective)
    return dataclasses.replace(
        dataset, notes=(*dataset.notes, *notes), class_names=names, num_classes=len(names) or dataset.num_classes
    )


def find(name: str, data_dir: str | os.PathLike[str] | None) -> Path:
    """Returns the file or folder of that name; where it is gone, one called the same in `data_dir`.

    Raises:
      DataError: there is none.
    """
    path = Path(absolute(name).removeprefix(RECORDS))
    moved = Path(data_dir).expanduser() / path.name if data_dir else None
    if not path.exists() and moved is not None and moved.exists():
        return moved
    if not path.exists():
        raise DataError(f"{path}: no such file or folder{f', nor {moved}' if moved is not None else ''}")
    return path


def _check_options(name: str, kind: str, request: Request) -> None:
    if kind == "records" and not request.streams:
        raise DataError(records.only_streamed(name))
    if request.client_column is not None and kind != "table":
        raise DataError(f"{name} has no columns: --client-column is for tables (.csv, .tsv, .parquet)")
    if request.target is not None and kind not in ("table", "hf", "folder"):
        raise DataError(f"{name} has no columns: --target is for tables (.csv, .tsv, .parquet) and hf:NAME")
    if request.image_size is not None and kind not in ("folder", "hf"):
        raise DataError(f"{name}: --image-size is for folders of images and hf:NAME")


def changed(dataset: Any, recorded: str | None) -> str:
    """Returns what is wrong where a run recorded another content; empty if nothing is."""
    if recorded is None or dataset.fingerprint == recorded:
        return ""
    return (
        f"{dataset.source or dataset.name} is not the data of the run any more: its content has the fingerprint "
        f"{dataset.fingerprint[:12] or 'none'}, the run recorded {recorded[:12]}; put the old data back, or train anew"
    )


def recorded(settings: Any, dataset: Dataset) -> Any:
    """Returns the options as a run records them: data of the user's own by its absolute name, and by what it holds."""
    if not dataset.source:
        return dataclasses.replace(settings, dataset_sha256=None, data_fingerprint=None)
    return dataclasses.replace(settings, dataset=dataset.source, dataset_sha256=dataset.code_sha256 or None,
                               data_fingerprint=dataset.fingerprint)  # fmt: skip
