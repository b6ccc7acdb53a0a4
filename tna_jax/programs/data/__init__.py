"""Data sets in memory, by name: `load("digits")`, `load("mnist")`, `load("tfds:NAME")`, and data of the user's own.

Needs NumPy only; scikit-learn, Pillow and TensorFlow Datasets are imported by the sets that are read with them, JAX and
TensorFlow never. The same call gives the same bytes. Nothing is fetched from the network unless `download=True`.
"""

import os
from collections.abc import Callable
from pathlib import Path

from tna_jax.io.errors import unknown
from tna_jax.programs.cli.dataset_names import is_own
from tna_jax.programs.data import cifar, digits, idx, own, subsets, tfds_download, tfds_source
from tna_jax.programs.data.own import Request
from tna_jax.programs.data.search_path import missing, places, tfds_root
from tna_jax.programs.data.source import DataError, Dataset, Split, Unusable

__all__ = ["DataError", "Dataset", "Request", "Split", "load", "names"]

TFDS = "tfds:"

FILES: dict[str, tuple[Callable[[str, Path], Dataset | None], str]] = {
    "mnist": (idx.read, "mnist/train-images-idx3-ubyte.gz and the other three idx files"),
    "fashion_mnist": (idx.read, "fashion_mnist/train-images-idx3-ubyte.gz and the other three idx files"),
    "cifar10": (cifar.read, "cifar10/ (train_1.zip to train_5.zip, test.zip) or cifar-10-binary.tar.gz"),
    "cifar100": (cifar.read, "cifar100/ (train.zip, test.zip) or cifar-100-binary.tar.gz"),
    "cifar100_test": (cifar.read_test, "cifar100/test.zip"),
}
"""Sets that have files of their own: what reads them, and what a user should have."""


def names() -> tuple[str, ...]:
    """Returns the names that `load` knows, besides `tfds:NAME`."""
    return "digits", *FILES


def load(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    request: Request = Request(),  # noqa: B008
) -> Dataset:
    """Loads the data set called `name` into memory, all of it.

    It is looked for in `data_dir`, then in `$TNA_DATA_DIR`, then in the folder of TensorFlow Datasets
    (`$TFDS_DATA_DIR`, else `~/tensorflow_datasets`); in each of them its original files come first, then a copy
    prepared by TensorFlow Datasets. A copy that is incomplete is passed over, a damaged one is an error. Only if
    there is none and `download` is set does TensorFlow Datasets fetch it, into `data_dir` or else its own folder.

    `cifar100_test` is the test file of CIFAR-100 alone, a tenth of it held out as a test split: it is for pretraining, not for
    reporting CIFAR-100 accuracies. `NAME:CLASSES` are some classes of a set, `A+B` both sets as one (see `tna_jax.programs.data.subsets`).

    Args:
      name: one of `names()`, or `tfds:NAME`, `tfds:NAME/CONFIG`, `tfds:NAME:VERSION`; `cifar10:0-4`, `cifar10:cat,dog`,
        `cifar10:0-4+cifar100_test`; or data of the user's own, see `tna_jax.programs.data.own`.
      data_dir: a folder that holds data sets, each in a folder named for it.
      download: let TensorFlow Datasets, or Hugging Face for `hf:NAME`, use the network.
      request: what the options say of data of the user's own.

    Raises:
      DataError: the name is unknown, or the set is damaged or found nowhere; names what is wrong, every place looked
        at and what to do.

    >>> load("digits").describe()
    'digits: 1437 train + 360 test images 8x8x1, 10 classes'
    """
    if is_own(name):
        return own.load(name, data_dir, download, request)
    for option, value in (("--target", request.target), ("--image-size", request.image_size)):
        if value is not None:
            raise DataError(f"{option} {value} is for data of your own, {name} is a known set")
    if subsets.JOIN in name and not name.startswith(TFDS):
        return subsets.join([load(part, data_dir=data_dir, download=download) for part in name.split(subsets.JOIN)])
    if subsets.CHOOSE in name and not name.startswith(TFDS):
        base, _, classes = name.partition(subsets.CHOOSE)
        return subsets.select_classes(load(base, data_dir=data_dir, download=download), classes)
    if name == "digits":
        return digits.load()
    if name not in FILES and not name.startswith(TFDS):
        raise DataError(str(unknown("data set", name, [*names(), f"{TFDS}NAME"])))
    searched, notes = places(data_dir), []
    for place in searched:
        for reader in _readers(name):
            try:
                dataset = reader(place.root)
            except Unusable as note:
                notes.append(str(note))
            else:
                if dataset is not None:
                    return dataset
    holds = FILES[name][1] if name in FILES else f"{name.removeprefix(TFDS)}/ as TensorFlow Datasets prepares it"
    if not download:
        raise missing(name, searched, holds, notes)
    root = searched[0].root if data_dir else tfds_root()
    tfds_download.download(name.removeprefix(TFDS), root)
    if (dataset := _readers(name)[-1](root)) is None:
        raise missing(name, searched, holds, [f"{root} holds no copy after the download"])
    return dataset


def _readers(name: str) -> list[Callable[[Path], Dataset | None]]:
    """Returns what may find the set in a folder, best first; the copy prepared by TensorFlow Datasets is the last."""
    prepared = [lambda root: tfds_source.read(name.removeprefix(TFDS), root, name=name)]
    return [lambda root: FILES[name][0](name, root), *prepared] if name in FILES else prepared
