"""The handwritten digits that come with scikit-learn: 1797 images of 8x8, no file needed. The default data set."""

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
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError("digits needs scikit-learn: pip install scikit-learn") from error
    digits = load_digits()
    order = np.random.default_rng(SPLIT_SEED).permutation(len(digits.target))
    images = digits.images.astype(np.uint8)[order][..., None]  # (1797, 8, 8, 1)
    labels = digits.target[order]
    train, test = (
        checked_split(images[rows], labels[rows], 10, source="scikit-learn's digits")
        for rows in (slice(TRAIN_EXAMPLES), slice(TRAIN_EXAMPLES, None))
    )
    return make("digits", train, test, [str(digit) for digit in range(10)], max_value=16)
