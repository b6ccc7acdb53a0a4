"""Names, digits, subsets, scaling; the idx files; where sets are looked for and what is said when there is none."""

import gzip
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tna_jax.programs import data


@pytest.fixture(autouse=True)
def nowhere_and_offline(tmp_path, monkeypatch):
    """No data set is found unless a test makes it, and a test that asks the network fails."""

    def refuse(*args, **kwargs):
        pytest.fail("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.delenv("TNA_DATA_DIR", raising=False)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def idx_bytes(array):
    """An idx file: two zero bytes, type 8 (uint8), number of dimensions, sizes, data."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def write_idx(folder, *, first=0, zipped=True):
    """Six train and four test images of 3x2; pixels count up from `first`, labels too."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, n in (("train", 6), ("t10k", 4)):
        arrays = {"images-idx3": np.arange(n * 6).reshape(n, 3, 2) + first, "labels-idx1": np.arange(n)}
        for kind, array in arrays.items():
            content = idx_bytes(array)
            path = folder / f"{part}-{kind}-ubyte"
            if zipped:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)
    return folder


def test_digits_holds_every_example_of_scikit_learn_once():
    from sklearn.datasets import load_digits

    digits = data.load("digits")
    assert digits.train.images.shape == (1437, 8, 8, 1)
    assert digits.test.images.shape == (360, 8, 8, 1)
    assert digits.train.images.dtype == np.uint8
    assert digits.train.labels.dtype == np.int32
    both = [np.concatenate(pair) for pair in zip(digits.train, digits.test, strict=True)]
    ours = sorted(zip(map(bytes, both[0]), both[1].tolist(), strict=True))
    found = load_digits()
    theirs = sorted(zip(map(bytes, found.images.astype(np.uint8)), found.target.tolist(), strict=True))
    assert ours == theirs
    assert digits.describe() == "digits: 1437 train + 360 test images 8x8x1, 10 classes"


@pytest.mark.slow
def test_two_processes_load_equal_bytes_and_import_neither_jax_nor_tensorflow():
    script = (
        "import sys, hashlib; from tna_jax.programs import data; d = data.load('digits').subset(100, 50);"
        "print(hashlib.sha256(b''.join(a.tobytes() for s in (d.train, d.test) for a in s)).hexdigest(),"
        "[m for m in ('jax', 'tensorflow') if m in sys.modules])"
    )
    root = Path(data.__file__).parents[3]
    out = {
        subprocess.run([sys.executable, "-c", script], cwd=root, check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    }
    assert len(out) == 1
    assert out.pop().endswith(" []\n")


def test_subset_is_the_beginning_of_a_larger_one_and_none_keeps_a_split():
    digits = data.load("digits")
    small, large = digits.subset(10), digits.subset(100, 20)
    np.testing.assert_array_equal(small.train.images, large.train.images[:10])
    np.testing.assert_array_equal(small.train.labels, large.train.labels[:10])
    assert small.test is digits.test
    assert not np.array_equal(small.train.images, digits.train.images[:10])  # control: it is shuffled
    everything = digits.subset(1437)
    assert sorted(map(bytes, everything.train.images)) == sorted(map(bytes, digits.train.images))


def test_subset_names_every_bad_number():
    with pytest.raises(
        data.DataError, match=r"1438 train examples requested, there are 1437; 0 test examples"
    ) as error:
        data.load("digits").subset(1438, 0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("channels", "expected"), [(1, [0.0, 0.2, 1.0]), (3, [-1.0, -0.6, 1.0])])
def test_preprocess_scales_arrays_of_numpy_and_traced_ones_alike(channels, expected):
    from tna_jax.programs.data.source import Split, make

    split = Split(np.zeros((1, 1, 3, channels), np.uint8), np.zeros(1, np.int32))
    made = make("made", split, split, ["only"])
    x = np.repeat(np.array([0, 51, 255], np.uint8)[:, None], channels, axis=1)[None, None]
    want = np.repeat(np.array(expected, np.float32)[:, None], channels, axis=1)[None, None]
    for got in (made.preprocess(x), jax.jit(made.preprocess)(x)):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "near"),
    [("mnits", "mnist"), ("fashion-mnist", "fashion_mnist"), ("digit", "digits")],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, near):
    with pytest.raises(data.DataError) as error:
        data.load(name)
    known = ", ".join([*data.names(), "tfds:NAME"])
    assert str(error.value) == f"unknown data set {name!r}: did you mean {near!r}? known: {known}"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("mnist", "mnist"),
        ("mnist", "MNIST/raw"),
        ("fashion_mnist", "fashion_mnist"),
        ("fashion_mnist", "fashion-mnist"),
        ("fashion_mnist", "FashionMNIST/raw"),
    ],
)
def test_idx_files_are_read_from_every_usual_folder(tmp_path, name, folder, zipped):
    home = write_idx(tmp_path / folder, zipped=zipped)
    for data_dir in (tmp_path, home):  # the folder above, and the folder itself since its name says what it is
        found = data.load(name, data_dir=data_dir)
        np.testing.assert_array_equal(found.train.images[1], [[[6], [7]], [[8], [9]], [[10], [11]]])
        assert found.train.labels.tolist() == [0, 1, 2, 3, 4, 5]
        assert found.test.images.shape == (4, 3, 2, 1)
        assert (found.name, found.mean, found.std, found.max_value) == (name, (0.0,), (1.0,), 255)


def test_a_folder_that_is_not_named_for_the_set_is_not_taken_for_it(tmp_path):
    write_idx(tmp_path / "mnist")
    write_idx(tmp_path / "some")
    for name, data_dir in (("fashion_mnist", tmp_path / "mnist"), ("mnist", tmp_path / "some")):
        with pytest.raises(data.DataError, match=f"{name} was not found"):
            data.load(name, data_dir=data_dir)


IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
WHOLE = gzip.compress(idx_bytes(np.zeros((6, 3, 2))))


@pytest.mark.parametrize(
    ("file", "content", "fault"),
    [
        pytest.param(IMAGES, WHOLE[:-6], "cut short", id="gzip cut short"),
        pytest.param(IMAGES, b"<html>not found</html>", "damaged", id="not gzip"),
        pytest.param(IMAGES, gzip.compress(b""), "not an idx file", id="empty"),
        pytest.param(
            IMAGES, gzip.compress(idx_bytes(np.zeros((6, 6)))), "magic number 2050, expected 2051", id="magic"
        ),
        pytest.param(IMAGES, gzip.compress(idx_bytes(np.zeros((6, 3, 2)))[:-1]), "35 bytes of data", id="too short"),
        pytest.param(IMAGES, gzip.compress(idx_bytes(np.zeros((6, 3, 2))) + b"x"), "37 bytes of data", id="too long"),
        pytest.param(
            LABELS, gzip.compress(idx_bytes(np.array([0, 1, 2, 3, 4, 10]))), "0 to 10, expected 0 to 9", id="label"
        ),
        pytest.param(LABELS, gzip.compress(idx_bytes(np.zeros(5))), "5 labels for 6 images", id="counts"),
    ],
)
def test_a_damaged_idx_file_is_named_with_its_fault(tmp_path, file, content, fault):
    path = write_idx(tmp_path / "mnist") / file
    path.write_bytes(content)
    with pytest.raises(data.DataError, match=fault) as error:
        data.load("mnist", data_dir=tmp_path)
    assert str(tmp_path / "mnist") in str(error.value)
    assert file.split("-")[1] in str(error.value) or "labels" in str(error.value)
    assert "\n" not in str(error.value)


def test_places_are_asked_in_order_and_an_incomplete_copy_is_passed_over(tmp_path, monkeypatch):
    roots = [tmp_path / name for name in ("given", "named", "tfds")]
    for i, root in enumerate(roots):
        write_idx(root / "mnist", first=i)
    monkeypatch.setenv("TNA_DATA_DIR", str(roots[1]))
    monkeypatch.setenv("TFDS_DATA_DIR", str(roots[2]))
    for i, root in enumerate(roots):
        assert data.load("mnist", data_dir=roots[0]).train.images[0, 0, 0, 0] == i
        (root / "mnist" / LABELS).unlink()  # now incomplete: the next place serves
    with pytest.raises(data.DataError) as error:
        data.load("mnist", data_dir=roots[0])
    for root in roots:
        assert f"{root / 'mnist'} lacks {LABELS}" in str(error.value)


@pytest.mark.parametrize(
    "name", ["mnist", "fashion_mnist", "cifar10", "cifar100", "tfds:mnist", "tfds:no_such_set:1.0.0"]
)
def test_a_missing_set_is_answered_at_once_with_every_place(tmp_path, monkeypatch, name):
    monkeypatch.setenv("TNA_DATA_DIR", str(tmp_path))
    start = time.perf_counter()
    with pytest.raises(data.DataError) as error:
        data.load(name, data_dir=tmp_path / "none")
    assert time.perf_counter() - start < 1
    message = str(error.value)
    assert f"{tmp_path / 'none'} (--data-dir, no such folder), {tmp_path} ($TNA_DATA_DIR)" in message
    assert str(tmp_path / "home" / "tensorflow_datasets") in message
    assert all(way in message for way in ("TNA_DATA_DIR", "--data-dir", "--download"))
    assert "\n" not in message
