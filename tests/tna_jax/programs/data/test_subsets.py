"""Some classes of a set, several sets as one, and CIFAR-100's test file alone."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from tna_jax.programs import data
from tna_jax.programs.data import subsets


def test_classes_are_numbered_anew_in_the_order_given():
    whole, part = data.load("digits"), data.load("digits:7,0-2")
    assert (part.num_classes, part.class_names) == (4, ("7", "0", "1", "2"))
    for split, of in ((part.train, whole.train), (part.test, whole.test)):
        kept = np.isin(of.labels, [7, 0, 1, 2])
        assert np.array_equal(split.images, of.images[kept])
        assert np.array_equal(np.array([7, 0, 1, 2])[split.labels], of.labels[kept])


def test_sets_are_joined_with_their_own_classes():
    whole, both = data.load("digits"), data.load("digits:0-4+digits:5-9")
    assert both.num_classes == 10 and both.name == "digits:0-4+digits:5-9"
    assert len(both.train.labels) == len(whole.train.labels)
    order = np.argsort(whole.train.labels >= 5, kind="stable")
    assert np.array_equal(both.train.images, whole.train.images[order])
    assert np.array_equal(both.train.labels, whole.train.labels[order])


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("digits:3-12", "no classes '3-12': name numbers 0 to 9"),
        ("digits:cat", "no classes 'cat'"),
        ("digits:1,0-2", "more than once: classes 1"),
        ("digts:1", "did you mean 'digits'"),
        ("digits+nothing", "unknown data set 'nothing'"),
    ],
)
def test_what_cannot_be_is_named(name, part):
    with pytest.raises(data.DataError, match=part):
        data.load(name)


def test_sets_of_other_sizes_are_not_joined():
    digits = data.load("digits")
    small = subsets.select_classes(digits, "0-1")
    other = data.source.make(
        "other",
        *(data.Split(s.images[:, ::2, ::2], s.labels) for s in (small.train, small.test)),
        ("a", "b"),
        max_value=16,
    )
    with pytest.raises(data.DataError, match="cannot be joined"):
        subsets.join([digits, other])


def test_the_test_file_of_cifar100_alone_is_parted(tmp_path, monkeypatch):
    monkeypatch.setenv("TNA_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    images = np.random.default_rng(0).integers(0, 256, (125, 32, 32, 3), dtype=np.uint8)
    (tmp_path / "cifar100").mkdir()
    strip, labels = io.BytesIO(), io.BytesIO()
    Image.fromarray(images.reshape(-1, 32, 3)).save(strip, "webp", lossless=True)
    np.save(labels, np.arange(125) % 100)
    with zipfile.ZipFile(tmp_path / "cifar100" / "test.zip", "w") as archive:
        archive.writestr("0.webp", strip.getvalue())
        archive.writestr("fine_labels.npy", labels.getvalue())
    found = data.load("cifar100_test")
    assert (len(found.train.labels), len(found.test.labels), found.num_classes) == (113, 12, 100)
    every = np.concatenate([found.train.images, found.test.images])
    assert len(np.unique(every.reshape(125, -1), axis=0)) == 125
    with pytest.raises(data.DataError, match="lacks its train part"):
        data.load("cifar100")
