"""`records:FOLDER`: the same data set as the arrays it was written from, read part by part; what cannot be trained on is named."""

import numpy as np
import pytest

pytest.importorskip("grain")

from tests.tna_jax.programs.commands import fails
from tna_jax.io import UsageError, write_records
from tna_jax.programs import data
from tna_jax.programs.cli import dataset_names
from tna_jax.programs.data import DataError, Request
from tna_jax.programs.data.arrays import from_arrays


def images(count=20, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 4, 4), np.uint8), np.arange(count) % 3


def load(folder, objective="classification"):
    return data.load(f"records:{folder}", request=Request(objective, streams=True))


def write(folder, x, y):
    write_records(folder, zip(x, y, strict=True))


def test_the_data_set_is_that_of_the_arrays(tmp_path):
    train, test = images(), images(9, 1)
    write(tmp_path / "train", *train)
    write(tmp_path / "test", *test)
    arrays = from_arrays(
        "a", dict(zip(("x_train", "y_train", "x_test", "y_test"), (*train, *test), strict=True)), "classification"
    )
    records = load(tmp_path)
    for part in ("train", "test"):
        a, b = getattr(arrays, part), getattr(records, part)
        np.testing.assert_array_equal(b.images[:], a.images)
        np.testing.assert_array_equal(b.labels[np.array([2, 0])], a.labels[[2, 0]])
        assert (b.images.shape, b.images.dtype, b.labels.dtype) == (a.images.shape, a.images.dtype, a.labels.dtype)
    for name in ("num_classes", "class_names", "max_value", "mean", "std", "image_shape"):
        assert getattr(records, name) == getattr(arrays, name)
    fewer = records.subset(5).train
    np.testing.assert_array_equal(fewer.images[:], arrays.subset(5).train.images)
    assert records.source == f"records:{tmp_path}" and records.fingerprint


def test_without_test_records_a_fifth_is_cut_off_as_of_arrays(tmp_path):
    x, y = images()
    write(tmp_path, x, y)
    arrays, records = from_arrays("a", {"x_train": x, "y_train": y}, "classification"), load(tmp_path)
    np.testing.assert_array_equal(records.train.images[:], arrays.train.images)
    np.testing.assert_array_equal(records.test.labels[:], arrays.test.labels)


def test_the_range_of_labels_is_read_where_nobody_wrote_it(tmp_path):
    write(tmp_path, *images())
    (tmp_path / "records.json").unlink()
    found = load(tmp_path)
    assert found.num_classes == 3 and "all records of train were read" in found.describe()


def test_all_of_it_is_never_in_memory(tmp_path, capsys):
    write(tmp_path, *images())
    for words in (["federate"], ["pretrain"]):
        line = fails(capsys, *words, "--dataset", f"records:{tmp_path}", "--out", str(tmp_path / "no"))
        assert "this program needs all data in memory" in line
        assert not (tmp_path / "no").exists()
    with pytest.raises(UsageError, match="this program needs all data in memory"):
        np.asarray(load(tmp_path).train.images)


@pytest.mark.parametrize(
    ("x", "y", "objective", "words"),
    [(np.zeros((5, 2)), np.arange(5) - 1, "classification", "labels from -1, expected 0 and up"),
     (np.zeros((5, 2)), np.zeros(5), "classification", "expected integers for --objective classification"),
     (np.zeros((5, 2)), np.zeros((5, 3), int), "classification", r"shape \(3,\), expected one label"),
     (np.zeros((5, 2)), np.zeros((5, 3)), "next-token", "expected integers for --objective next-token")],
)  # fmt: skip
def test_data_that_cannot_be_trained_on_is_refused(tmp_path, x, y, objective, words):
    write(tmp_path, x, y)
    with pytest.raises(DataError, match=words):
        load(tmp_path, objective)


def test_a_value_that_is_not_finite_is_named_when_it_is_read(tmp_path):
    x = np.zeros((5, 2))
    x[3, 1] = np.nan
    write(tmp_path / "train", x, np.zeros(5))
    write(tmp_path / "test", x[:1], np.zeros(1))
    train = load(tmp_path, "regression").train
    with pytest.raises(UsageError, match=r"part-00000.array_record: record 3: x has 1 values that are not finite"):
        list(train.batches([np.array([1, 3])]))


def test_labels_outside_of_what_was_written_down_are_named(tmp_path):
    x, y = images()
    write(tmp_path, x, y)
    about = tmp_path / "records.json"
    about.write_text(about.read_text().replace("2\n ]", "1\n ]"))
    train = load(tmp_path).train
    with pytest.raises(UsageError, match=r"record \d+: y is 2, expected 0 to 1"):
        train.images[:]


def test_train_and_test_must_go_together(tmp_path):
    write(tmp_path / "train", *images())
    write(tmp_path / "test", np.zeros((4, 2)), np.zeros(4, int))
    with pytest.raises(DataError, match="x and y of train are uint8"):
        load(tmp_path)


def test_a_folder_without_records_says_what_was_expected(tmp_path):
    with pytest.raises(DataError, match="holds nothing, expected train/ and test/"):
        load(tmp_path)
    write(tmp_path / "train", *images())
    with pytest.raises(DataError, match=f"name it records:{tmp_path}"):
        data.load(str(tmp_path))
    with pytest.raises(DataError, match="no such file or folder"):
        load("./nowhere")


def test_names():
    assert dataset_names.form("records:./mine") == "records"
    assert dataset_names.short("records:/a/mine/") == "mine" and dataset_names.word("records:/a/my data") == "my-data"
