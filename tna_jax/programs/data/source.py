"""What a data set is here: images as they were stored, in memory, with what is needed to feed them to a network."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

SUBSET_SEED = 20_240_229
KNOWN = 0.01
"""Share of the test examples that may be training examples too without a word."""


class DataError(ValueError):
    """A data set that cannot be loaded. The message is one line: what is wrong, where, and what to do."""


class Unusable(DataError):
    """A copy that is incomplete or of a form that is not read here: the search notes it and continues."""


class Split(NamedTuple):
    """Examples in their stored order."""

    images: np.ndarray
    """(N, H, W, C) uint8; of a user's own data (N, ...), also float32 or int32."""
    labels: np.ndarray
    """(N,) int32, in [0, num_classes); of a user's own data other targets too, (N, ...) int32 or float32."""


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Maps stored images to what a network takes: `(x / max_value - mean) / std`, float32, the shape unchanged."""

    mean: tuple[float, ...]
    """One number per channel; empty for inputs that are taken as they are."""
    std: tuple[float, ...]
    max_value: int

    def __call__(self, x: Any) -> Any:
        """Scales images.

        Args:
          x: (..., H, W, C) uint8, a NumPy array or a (traced) JAX array; the result is of the same kind. Inputs without `mean`
            are returned as they are.
        """
        if not self.mean:
            return x
        shape = (1,) * (x.ndim - 1) + (-1,)  # equal ranks: nothing is promoted silently under JAX's strict settings
        mean, std = (np.asarray(v, np.float32).reshape(shape) for v in (self.mean, self.std))
        return (x.astype(np.float32) / np.float32(self.max_value) - mean) / std


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A train and a test split of labeled images of one size, or of other inputs and targets of a user's own."""

    name: str
    train: Split
    test: Split
    num_classes: int
    """How many outputs a network needs: the classes, or the numbers of a target."""
    class_names: tuple[str, ...]
    """Empty where targets are not classes."""
    max_value: int
    """Largest value a pixel can take: 255; digits 16."""
    mean: tuple[float, ...]
    """One number per channel, in units of image / max_value; empty for inputs that a network takes as they are."""
    std: tuple[float, ...]
    """One number per channel, in units of image / max_value; empty like `mean`."""
    source: str = ""
    """A user's own data: its name as a run records it; empty for known sets."""
    code_sha256: str = ""
    """Of the file of the function that returned it."""
    fingerprint: str = ""
    """The sha256 of a user's own data."""
    notes: tuple[str, ...] = ()
    """What a user should know of how it was read."""
    owners: np.ndarray | None = None
    """(N,) numbers or words, whose each training example is, where the data says so: of natural clients."""

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C) of every image, or the shape of another input."""
        return tuple(self.train.images.shape[1:])

    @property
    def preprocess(self) -> "Scaling":
        """Stored images to what a network takes: a function of arrays, equal to that of another set of the same scale."""
        return Scaling(self.mean, self.std, self.max_value)

    def describe(self) -> str:
        """Describes the set in one line: name, numbers of examples, image size, number of classes."""
        size = "x".join(map(str, self.image_shape))
        kind = f"images {size}" if self.mean else f"examples of {size or 'one number'}"
        counts = f"{len(self.train.labels)} train + {len(self.test.labels)} test {kind}"
        shape = "x".join(map(str, self.train.labels.shape[1:]))
        targets = f"{self.num_classes} classes" if self.class_names else f"targets of {shape or 'one number'}"
        return "; ".join([f"{self.name}: {counts}, {targets}", *self.notes])

    def subset(self, train_examples: int | None = None, test_examples: int | None = None) -> "Dataset":
        """Returns the same data set with fewer examples; a split whose number is None stays as it is, order included.

        The examples kept are the first n of a permutation that depends on the size of the split and on nothing
        else, and they are stored in the order of that permutation. So the same call gives the same examples in
        every run, and a smaller subset is the beginning of a larger one.

        Raises:
          DataError: a number is below 1 or larger than the split; all bad numbers are named.
        """
        requested = {"train": (self.train, train_examples), "test": (self.test, test_examples)}
        bad = [
            f"{n} {part} examples requested, there are {len(split.labels)}"
            for part, (split, n) in requested.items()
            if n is not None and not 1 <= n <= len(split.labels)
        ]
        if bad:
            raise DataError(f"{self.name}: {'; '.join(bad)}")
        owners = self.owners
        if owners is not None and train_examples is not None:
            owners = owners[permutation(len(owners), SUBSET_SEED)[:train_examples]]
        train, test = _first(self.train, train_examples), _first(self.test, test_examples)
        return dataclasses.replace(self, train=train, test=test, owners=owners)


def permutation(n: int, seed: int) -> np.ndarray:
    """Computes a permutation of `range(n)`, (n,) int64, the same for every release of NumPy.

    It sorts raw PCG64 output, whose stream NumPy promises to keep; `Generator.permutation` carries no such promise.
    """
    return np.argsort(np.random.PCG64(seed).random_raw(n), kind="stable")


def _first(split: Split, n: int | None) -> Split:
    if n is None:
        return split
    rows = permutation(len(split.labels), SUBSET_SEED)[:n]
    if not isinstance(split, Split):  # a `records.StreamedSplit`
        return split.select(rows)
    return Split(split.images[rows], split.labels[rows])


def checked_split(images: np.ndarray, labels: np.ndarray, num_classes: int, *, source: Any) -> Split:
    """Returns a split of images (N, H, W, C) uint8 and labels (N,) of any integer dtype, each fact checked.

    Raises:
      DataError: no images, another number of labels, or labels outside [0, num_classes); names `source`.
    """
    if len(images) != len(labels):
        raise DataError(f"{source}: {len(labels)} labels for {len(images)} images")
    if not len(images):
        raise DataError(f"{source}: no images")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise DataError(f"{source}: labels from {low} to {high}, expected 0 to {num_classes - 1}")
    return Split(np.ascontiguousarray(images), labels.astype(np.int32))


def make(name: str, train: Split, test: Split, class_names: Sequence[str], *, max_value: int = 255) -> Dataset:
    """Returns a data set with the usual scaling: gray images to [0, 1], color images to [-1, 1].

    Raises:
      DataError: train and test images differ in size.
    """
    train_shape, test_shape = train.images.shape[1:], test.images.shape[1:]
    if train_shape != test_shape:
        raise DataError(f"{name}: train images are {train_shape}, test images {test_shape}")
    channels = train_shape[-1]
    mean, std = (0.0, 1.0) if channels == 1 else (0.5, 0.5)
    return Dataset(
        name=name,
        train=train,
        test=test,
        num_classes=len(class_names),
        class_names=tuple(class_names),
        max_value=max_value,
        mean=(mean,) * channels,
        std=(std,) * channels,
    )
