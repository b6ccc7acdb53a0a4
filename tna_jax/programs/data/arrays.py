"""From arrays of the user's own to a data set: every fact checked, labels numbered, a seeded split where there is none."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tna_jax.programs.data.source import KNOWN, SUBSET_SEED, DataError, Dataset, Split, permutation
from tna_jax.programs.user_code import is_reference

NAMES = ("x_train", "y_train", "x_test", "y_test")
OWNERS = "client_train"
"""Whose each training example is, of data with natural clients."""
HELD = 0.2
"""Share of the examples that become the test split where the data has none."""
CHANNELS = (1, 3, 4)
"""Numbers of channels that images have."""
CLASSES, TOKENS = ("classification",), ("next-token", "masked-lm", "segmentation")
"""Objectives whose targets are one label an example, and those whose targets are integers of any shape."""


def from_arrays(name: str, arrays: Mapping[str, Any], objective: str, *, fingerprint: str = "") -> Dataset:
    """Returns the data set of `x_train`, `y_train` and, together or not at all, `x_test`, `y_test`.

    Without test arrays a fifth of the examples, drawn by a fixed seed, is the test split. Inputs of uint8 with three or four axes
    are images: a missing channel axis is added, and they are scaled as those of known sets. Everything else reaches the network
    as it is, floats as float32, integers as int32. Labels that are text are numbered in sorted order.

    Args:
      name: the data, for errors.
      arrays: (N, ...) each; `client_train`, if it is there, says whose each training example is.
      objective: what is trained: classification takes one label for each example, others any targets.
      fingerprint: of the content, where that is not its arrays'.

    Raises:
      DataError: see the functions below; one line.
    """
    values = {key: _plain(name, key, arrays[key]) for key in _complete(name, arrays)}
    for part in ("train", "test"):
        if f"x_{part}" in values:
            _check_lengths(name, part, values[f"x_{part}"], values[f"y_{part}"])
    values |= {key: _inputs(name, key, values[key]) for key in values if key.startswith("x")}
    owners = _owners(name, arrays, len(values["x_train"]))
    fingerprint = fingerprint or digest(values if owners is None else {**values, OWNERS: owners})
    notes = _unscaled(values["x_train"], objective)
    if "x_test" not in values:
        if owners is not None:
            everybody, owners = np.unique(owners), owners[_kept(len(owners))]
            gone = len(everybody) - len(np.unique(owners))
            notes += (
                (f"{gone} of {len(everybody)} clients have no training examples: all of theirs are in the test split",)
                if gone
                else ()
            )
        values = _split(name, values)
    if values["x_train"].shape[1:] != values["x_test"].shape[1:]:
        shapes = [values[key].shape[1:] for key in ("x_train", "x_test")]
        raise DataError(f"{name}: examples of x_train are {shapes[0]}, of x_test {shapes[1]}")
    if _are_pixels(values["x_train"]) != _are_pixels(values["x_test"]):
        raise DataError(
            f"{name}: x_train holds {values['x_train'].dtype}, x_test {values['x_test'].dtype}: uint8 images are scaled and others are not, "
            "so both must be, or neither"
        )
    y, names, outputs = _targets(name, values["y_train"], values["y_test"], objective)
    train, test = (Split(values[f"x_{part}"], y[part]) for part in ("train", "test"))
    notes += (_unseen(train.labels, test.labels) if names else ()) + _known(train, test)
    scaled = train.images.dtype == np.uint8
    channels = train.images.shape[-1] if scaled else 0
    mean, std = (0.0, 1.0) if channels == 1 else (0.5, 0.5)
    return Dataset(name, train, test, outputs, names, 255 if scaled else 1, (mean,) * channels, (std,) * channels,
                   fingerprint=fingerprint, owners=owners, notes=notes)  # fmt: skip


def _owners(name: str, arrays: Mapping[str, Any], examples: int) -> np.ndarray | None:
    """Whose each training example is, (N,), if the data says so."""
    if OWNERS not in arrays:
        return None
    owners = np.asarray(arrays[OWNERS])
    if owners.shape != (examples,) or owners.dtype.kind not in "biuUS":
        raise DataError(
            f"{name}: {OWNERS} is {owners.dtype} {owners.shape}, expected a number or a word for each of {examples} examples"
        )
    return owners


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Computes the sha256 of arrays: names, types, shapes and bytes."""
    state = hashlib.sha256()
    for key in sorted(arrays):
        array = np.ascontiguousarray(arrays[key])
        state.update(f"{key} {array.dtype.str} {array.shape}\n".encode())
        state.update(array.reshape(-1).view(np.uint8).data if array.size else b"")
    return state.hexdigest()


def joined(hashes: list[str]) -> str:
    """Returns one sha256 for several; of one it is that."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def renamed(dataset: Dataset, **fields: Any) -> Dataset:
    """Returns the data set with other fields: its source, say."""
    return dataclasses.replace(dataset, **fields)


def _complete(name: str, arrays: Mapping[str, Any]) -> list[str]:
    here = [key for key in NAMES if key in arrays]
    missing = [key for key in NAMES if key not in here]
    if missing and here != ["x_train", "y_train"]:
        others = [str(key) for key in arrays if key not in NAMES]
        holds = ", ".join([*here, *others]) or "nothing"
        raise DataError(
            f"{name} holds {holds}; missing: {', '.join(missing)} (x_train and y_train are needed; x_test and y_test together or not at all)"
        )
    return here


def _plain(name: str, key: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(f"{name}: {key} is not an array: {' '.join(str(error).split())}") from error
    if array.dtype.kind not in "biufUS" or (array.dtype.kind in "US" and key.startswith("x")):
        raise DataError(
            f"{name}: {key} holds {array.dtype}, expected numbers{'' if key.startswith('x') else ' or text labels'}"
        )
    if not array.ndim:
        raise DataError(f"{name}: {key} is a single value, expected an array with one entry for each example")
    if len(array) and not array.size:
        raise DataError(f"{name}: examples of {key} are empty, {array.shape[1:]}")
    check_finite(name, key, array)
    return array


def _check_lengths(name: str, part: str, x: np.ndarray, y: np.ndarray) -> None:
    if len(x) != len(y):
        raise DataError(f"{name}: x_{part} has {len(x)} examples, y_{part} has {len(y)}")
    if not len(x):
        raise DataError(f"{name}: x_{part} and y_{part} have no examples")


def check_finite(name: str, key: str, array: np.ndarray) -> None:
    """Raises DataError that names the first value that is not finite."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    bad = ~np.isfinite(array)
    where = tuple(int(axis[0]) for axis in np.nonzero(bad))
    rows = int(bad.reshape(len(array), -1).any(1).sum())
    raise DataError(
        f"{name}: {key} has {int(bad.sum())} values that are not finite, in {rows} of {len(array)} examples; the first is "
        f"{array[where]} at [{', '.join(map(str, where))}]"
    )


def _are_pixels(array: np.ndarray) -> bool:
    return array.dtype == np.uint8 and array.ndim in (3, 4)


def _unscaled(x: np.ndarray, objective: str) -> tuple[str, ...]:
    """What looks like pixels, or like channels in front, and is taken as it is."""
    notes: list[str] = []
    if objective in TOKENS or _are_pixels(x) or x.ndim < 2 or not x.size:
        return ()
    if x.ndim == 4 and x.shape[1] in CHANNELS and x.shape[3] not in CHANNELS:
        notes.append(
            f"examples of {'x'.join(map(str, x.shape[1:]))} look like channels first, and networks here take channels last: "
            "x.transpose(0, 2, 3, 1)"
        )
    if float(x.min()) >= 0 and 128 <= float(x.max()) <= 255 and (x.dtype.kind == "i" or x.ndim > 2):
        notes.append(
            f"inputs go up to {x.max():g} and are taken as they are (only uint8 images (N, H, W) or (N, H, W, C) are scaled): if they are "
            "pixels, divide them by 255"
        )
    return tuple(notes)


def _unseen(train: np.ndarray, test: np.ndarray) -> tuple[str, ...]:
    """Classes of test examples that no training example has: none of those can be right."""
    unseen = np.setdiff1d(test, train)
    if not unseen.size:
        return ()
    listed = ", ".join(map(str, unseen[:5])) + (", ..." if unseen.size > 5 else "")
    count = int(np.isin(test, unseen).sum())
    return (f"{count} test examples are of classes without a training example: {listed}",)


def _known(train: Split, test: Split) -> tuple[str, ...]:
    """Test examples that are training examples too, input and target: more of them than a few that look alike."""
    seen = {_row_digest(x, y) for x, y in zip(train.images, train.labels, strict=True)}
    count = sum(_row_digest(x, y) in seen for x, y in zip(test.images, test.labels, strict=True))
    if count <= KNOWN * len(test.labels):
        return ()
    return (
        f"{count} of {len(test.labels)} test examples are training examples too: scores on them say little of new examples",
    )


def _row_digest(x: np.ndarray, y: np.ndarray) -> bytes:
    return hashlib.blake2b(x.tobytes() + y.tobytes(), digest_size=16).digest()


def _inputs(name: str, key: str, array: np.ndarray) -> np.ndarray:
    if _are_pixels(array):
        if array.ndim == 4 and array.shape[1] in CHANNELS and array.shape[3] not in CHANNELS:
            raise DataError(
                f"{name}: {key} has examples of {'x'.join(map(str, array.shape[1:]))}, expected images with their channels last, (H, W, C): "
                "x.transpose(0, 2, 3, 1)"
            )
        return np.ascontiguousarray(array[..., None] if array.ndim == 3 else array)
    return numbers(name, key, array)


def numbers(name: str, key: str, array: np.ndarray) -> np.ndarray:
    """Returns floats as float32, integers as int32; DataError for what does not fit."""
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            narrow = np.ascontiguousarray(array, np.float32)
        check_finite(name, f"{key} as float32", narrow)
        return narrow
    _check_int32(name, key, array)
    return np.ascontiguousarray(array, np.int32)


def _check_int32(name: str, key: str, array: np.ndarray) -> None:
    limits = np.iinfo(np.int32)
    if array.size and (int(array.min()) < limits.min or int(array.max()) > limits.max):
        raise DataError(f"{name}: {key} has integers from {array.min()} to {array.max()}, which do not fit into int32")


def _split(name: str, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    count = len(values["x_train"])
    if count < 2:
        raise DataError(f"{name}: one example, and no test examples; two or more are needed to cut a test split")
    rows, kept = permutation(count, SUBSET_SEED), _kept(count)
    parts = {"test": rows[: count - len(kept)], "train": kept}
    return {f"{axis}_{part}": values[f"{axis}_train"][which] for part, which in parts.items() for axis in "xy"}


def _kept(count: int) -> np.ndarray:
    """Returns the examples of the training split where there are no test arrays."""
    return permutation(count, SUBSET_SEED)[max(1, round(HELD * count)) :]


Targets = tuple[dict[str, np.ndarray], tuple[str, ...], int]


def _targets(name: str, train: np.ndarray, test: np.ndarray, objective: str) -> Targets:
    """Targets by split, names of classes, and how many outputs a network needs."""
    if train.shape[1:] != test.shape[1:]:
        raise DataError(f"{name}: targets of y_train are {train.shape[1:]}, of y_test {test.shape[1:]}")
    if objective in CLASSES:
        return _labels(name, train, test)
    for key, array in (("y_train", train), ("y_test", test)):
        if array.dtype.kind in "US":
            raise DataError(f"{name}: {key} holds text, expected numbers for --objective {objective}")
        if objective in TOKENS and array.dtype.kind == "f":
            raise DataError(f"{name}: {key} holds {array.dtype}, expected integers for --objective {objective}")
    both = {"train": train, "test": test}
    integers = train.dtype.kind in "iu" and test.dtype.kind in "iu"
    if objective in TOKENS or (
        is_reference(objective) and integers
    ):  # an objective of the user's own takes what is there
        y = {part: numbers(name, f"y_{part}", array) for part, array in both.items()}
        return y, (), max(int(y["train"].max()), int(y["test"].max()), 0) + 1
    y = {part: numbers(name, f"y_{part}", array.astype(np.float64)) for part, array in both.items()}
    return y, (), int(np.prod(train.shape[1:], dtype=np.int64))


def _labels(name: str, train: np.ndarray, test: np.ndarray) -> Targets:
    if train.ndim == 2 and train.shape[1] == 1:
        train, test = train[:, 0], test[:, 0]
    if train.ndim != 1:
        raise DataError(
            f"{name}: y_train has shape {train.shape}, expected one label for each example, ({len(train)},), for classification"
        )
    both = {"train": train, "test": test}
    if train.dtype.kind in "US":
        classes = np.unique(train)
        if len(strange := np.setdiff1d(test, classes)):
            listed = ", ".join(map(repr, map(str, strange[:5])))
            raise DataError(f"{name}: y_test has labels that y_train has not: {listed}")
        _require_classes(name, len(classes), classes[0])
        y = {part: np.searchsorted(classes, array).astype(np.int32) for part, array in both.items()}
        return y, tuple(map(str, classes)), len(classes)
    for part, array in both.items():
        if array.dtype.kind == "f":
            raise DataError(
                f"{name}: y_{part} holds {array.dtype}, expected integer labels for classification; numbers are for regression (--objective regression of tna train and tna lmc)"
            )
        if int(array.min()) < 0:
            raise DataError(f"{name}: y_{part} has labels from {array.min()}, expected 0 and up")
    count = int(train.max()) + 1
    if (low := min(int(train.min()), int(test.min()))) > 0:
        raise DataError(
            f"{name}: labels from {low} to {count - 1}, and no example of class 0: expected classes numbered from 0; subtract {low}"
        )
    if int(test.max()) >= count:
        raise DataError(f"{name}: y_test has labels up to {test.max()}, y_train only up to {count - 1}")
    _require_classes(name, count, 0)
    if len(np.unique(train)) * 2 < count:
        raise DataError(
            f"{name}: y_train has {len(np.unique(train))} different labels from {train.min()} to {count - 1}, expected classes numbered from 0"
        )
    return {part: array.astype(np.int32) for part, array in both.items()}, tuple(map(str, range(count))), count


def _require_classes(name: str, count: int, only: Any) -> None:
    if count < 2:
        raise DataError(
            f"{name}: all labels are {only}: a network that knows one class is always right; two or more are needed"
        )
