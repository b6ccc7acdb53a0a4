"""The real sets, where a copy is at hand: $TNA_DATA_DIR, else the folder shared/datasets beside the checkout."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.parameters import slow
from tna_jax.programs import data

BESIDE = Path(__file__).resolve().parents[5] / "shared" / "datasets"
ROOT = Path(os.environ.get("TNA_DATA_DIR") or BESIDE)


def load(name):
    if not ROOT.is_dir():
        pytest.skip("no data sets at hand: set TNA_DATA_DIR")
    try:
        return data.load(name, data_dir=ROOT)
    except data.DataError as error:
        if "was not found" in str(error):
            pytest.skip(str(error))
        raise


MNIST_TRAIN = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
MNIST_TEST = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.parametrize(
    ("name", "shape", "train", "test", "first"),
    [
        ("mnist", (28, 28, 1), MNIST_TRAIN, MNIST_TEST, "5"),
        ("fashion_mnist", (28, 28, 1), [6000] * 10, [1000] * 10, "Ankle boot"),
        *slow(("cifar10", (32, 32, 3), [5000] * 10, [1000] * 10, "frog")),
    ],
)
def test_shapes_and_class_counts(name, shape, train, test, first):
    found = load(name)
    assert found.image_shape == shape
    for split, counts in ((found.train, train), (found.test, test)):
        assert split.images.shape == (sum(counts), *shape)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int32
        assert np.bincount(split.labels).tolist() == counts
    assert found.class_names[found.train.labels[0]] == first
    if name == "cifar10":
        counts = [np.bincount(found.train.images[..., c].ravel(), minlength=256) for c in range(3)]
        means = [np.average(range(256), weights=count) for count in counts]
        stds = [np.average((np.arange(256) - m) ** 2, weights=n) ** 0.5 for m, n in zip(means, counts, strict=True)]
        np.testing.assert_allclose(means, [125.307, 122.950, 113.865], atol=5e-4)
        np.testing.assert_allclose(stds, [62.993, 62.089, 66.705], atol=5e-4)
