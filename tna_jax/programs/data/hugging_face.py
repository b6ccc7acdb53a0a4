"""Data of the `datasets` library: `hf:NAME`, `hf:NAME/CONFIG`, or a folder. The network is asked only with --download."""

from pathlib import Path
from typing import Any

import numpy as np

from tna_jax.programs.cli.dataset_names import HF
from tna_jax.programs.data import pictures, table
from tna_jax.programs.data.source import DataError

TESTS = ("test", "validation", "dev", "valid")
SAVED = ("dataset_dict.json", "state.json")
"""Files by which a folder is known that the library itself has written."""


def splits(name: str, download: bool) -> dict[str, Any]:
    """Returns the splits of a data set by their names, as the library has them.

    Raises:
      DataError: the library is missing, or finds or reads no such set.
    """
    try:
        import datasets
        import huggingface_hub.constants
    except ImportError as error:
        raise DataError(f"{name} needs the datasets library: pip install 'datasets>=4'") from error
    if int(datasets.__version__.partition(".")[0]) < 4:
        raise DataError(
            f"{name} needs datasets 4 or later, which run no code of data sets; this is {datasets.__version__}"
        )
    place = name.removeprefix(HF)
    folder = Path(place).expanduser()
    datasets.disable_progress_bars()
    before = (
        datasets.config.HF_DATASETS_OFFLINE,
        datasets.config.HF_HUB_OFFLINE,
        huggingface_hub.constants.HF_HUB_OFFLINE,
    )
    if not download:
        datasets.config.HF_DATASETS_OFFLINE = datasets.config.HF_HUB_OFFLINE = (
            huggingface_hub.constants.HF_HUB_OFFLINE
        ) = True
    try:
        if folder.is_dir() and any((folder / file).is_file() for file in SAVED):
            found = datasets.load_from_disk(str(folder))
        else:
            found = _first(datasets, [(str(folder),)] if folder.is_dir() else _readings(place))
    except Exception as error:
        advice = "" if download or folder.is_dir() else "; --download fetches it"
        raise DataError(
            f"{name}: cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())[:200]}){advice}"
        ) from error
    finally:
        (
            datasets.config.HF_DATASETS_OFFLINE,
            datasets.config.HF_HUB_OFFLINE,
            huggingface_hub.constants.HF_HUB_OFFLINE,
        ) = before
    return dict(found) if isinstance(found, dict) else {"train": found}


def _readings(place: str) -> list[tuple[str, ...]]:
    """What `NAME/CONFIG` may mean, the name of an owner first."""
    front, slash, last = place.rpartition("/")
    return [(place,), (front, last)] if slash else [(place,)]


def _first(library: Any, readings: list[tuple[str, ...]]) -> Any:
    problem: Exception | None = None
    for words in readings:
        try:
            return library.load_dataset(*words)
        except Exception as error:
            problem = problem or error
    assert problem is not None
    raise problem


def choose(name: str, found: dict[str, Any], label: str | None) -> dict[str, Any]:
    """Returns the train split and, if there is one, the test split: the first of test and validation whose labels are known."""
    if "train" not in found:
        if len(found) > 1:
            raise DataError(f"{name}: has the splits {', '.join(found)}, expected train")
        return {"train": next(iter(found.values()))}
    for part in TESTS:
        if part in found and len(found[part]) and not _secret(found[part], label):
            return {"train": found["train"], "test": found[part]}
    return {"train": found["train"]}


def _secret(rows: Any, label: str | None) -> bool:
    """Whether the labels are -1 throughout: they are kept secret."""
    return (
        label is not None
        and label in rows.features
        and set(rows.unique(label) if _is_class(rows, label) else ()) == {-1}
    )


def _is_class(rows: Any, label: str) -> bool:
    return type(rows.features[label]).__name__ == "ClassLabel"


def label_column(name: str, rows: Any, target: str | None) -> str:
    """Returns the column of labels: `target`, else the one that the set marks as such, else `label`.

    Raises:
      DataError: there is none; the columns are listed.
    """
    marked = [column for column in rows.features if _is_class(rows, column)]
    if target is None:
        target = "label" if "label" in rows.features else marked[0] if len(marked) == 1 else None
    table.require_columns(rows.features, [target], name, "--target")
    return str(target)


def image_column(rows: Any) -> str | None:
    """Returns the column of images, if there is one."""
    return next((column for column, kind in rows.features.items() if type(kind).__name__ == "Image"), None)


def text_columns(rows: Any, label: str) -> list[str]:
    """Returns the columns of text, without the label."""
    return [
        column
        for column, kind in rows.features.items()
        if column != label and getattr(kind, "dtype", "") in ("string", "large_string")
    ]


def class_names(rows: Any, label: str) -> tuple[str, ...]:
    """Returns the names of the classes; empty where the set has none."""
    return tuple(rows.features[label].names) if _is_class(rows, label) else ()


def arrays(
    name: str, found: dict[str, Any], target: str | None, image_size: int | None
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Returns images and labels as `x_train`, `y_train` ..., and the names of the classes.

    Raises:
      DataError: there is no column of images or of labels, or see `pictures.stack`.
    """
    rows = next(iter(found.values()))
    label, image = label_column(name, rows, target), image_column(rows)
    if image is None:
        raise DataError(
            f"{name}: no column of images; the columns are {', '.join(rows.features)} (texts are for tna soup and tna cold)"
        )
    parts = choose(name, found, label)

    def opener(part: Any) -> Any:
        return lambda i: part[i][image]

    numbers = {key: [f"{key} image {i}" for i in range(len(part))] for key, part in parts.items()}
    gray = all(pictures.is_gray(numbers[key], opener(part)) for key, part in parts.items())
    result = {}
    for key, part in parts.items():
        if not len(part):
            raise DataError(f"{name}: the {key} split has no examples")
        result[f"x_{key}"] = pictures.stack(numbers[key], opener(part), image_size, name, gray)
        result[f"y_{key}"] = np.array(part[label][:])
    return result, class_names(rows, label)
