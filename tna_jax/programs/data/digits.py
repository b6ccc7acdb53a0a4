"""The handwritten digits that come with scikit-learn: 1797 images of 8x8, no file needed. The default data set."""

import importlib.util
from pathlib import Path

import numpy as np

from tna_jax.programs.data.source import DataError, Dataset, checked_split, make

TRAIN_EXAMPLES = 1437
SPLIT_SEED = 0


def load() -> Dataset:
    """Loads 1437 train and 360 test images, (8, 8, 1) uint8 with values 0 to 16.

    The set has no split of its own. Ours is NumPy's `default_rng(0).permutation`, not stratified by class: its first 1437 examples
    are the train split, the rest the test split, both stored in the order of the permutation.

    Raises:
      DataError: scikit-learn is not installed.
    """
    values = _table()
    order = np.random.default_rng(SPLIT_SEED).permutation(len(values))
    images = values[:, :-1].reshape(-1, 8, 8).astype(np.uint8)[order][..., None]  # (1797, 8, 8, 1)
    labels = values[:, -1].astype(np.int64)[order]
    train, test = (
        checked_split(images[rows], labels[rows], 10, source="scikit-learn's digits")
        for rows in (slice(TRAIN_EXAMPLES), slice(TRAIN_EXAMPLES, None))
    )
    return make("digits", train, test, [str(digit) for digit in range(10)], max_value=16)


def _table() -> np.ndarray:
    """Reads (1797, 65) numbers: an image and its label in each row.

    From scikit-learn's own file, without importing scikit-learn and with it all of SciPy's statistics: that took longer than anything
    else before the first epoch. A scikit-learn that keeps the file elsewhere is asked for the numbers.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None:
        raise DataError("digits needs scikit-learn: pip install scikit-learn")
    for folder in package.submodule_search_locations or ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return np.loadtxt(file, delimiter=",")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError("digits needs scikit-learn, and the one installed cannot be imported") from error
    digits = load_digits()
    return np.column_stack([digits.data, digits.target])
