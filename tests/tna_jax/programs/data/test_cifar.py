"""CIFAR from image zips and from the binary version, whole, incomplete, damaged; pickles are refused."""

import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from tna_jax.programs import data


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No data set is found unless a test makes it."""
    monkeypatch.delenv("TNA_DATA_DIR", raising=False)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


def images(n, seed):
    """(n, 32, 32, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def write_zip(path, x, labels, labels_name, *, strip=2):
    """An image zip with `strip` images to a strip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(labels_name, labels if isinstance(labels, bytes) else npy(np.asarray(labels)))
        for i in reversed(range(0, len(x), strip)):  # the names give the order, not the place in the zip
            buffer = io.BytesIO()
            Image.fromarray(x[i : i + strip].reshape(-1, 32, 3)).save(buffer, "webp", lossless=True)
            archive.writestr(f"{i // strip:03d}.webp", buffer.getvalue())


def rows(x, *labels):
    """Rows of the binary version: labels, then the red, green and blue planes."""
    columns = [np.asarray(label, np.uint8)[:, None] for label in labels]
    return np.concatenate([*columns, x.transpose(0, 3, 1, 2).reshape(len(x), -1)], axis=1).tobytes()


def write_cifar10_zips(folder):
    for i in range(1, 6):
        write_zip(folder / f"train_{i}.zip", images(3, i), [i, 0, 9], "labels.npy")
    write_zip(folder / "test.zip", images(3, 6), [6, 7, 8], "labels.npy")


BINARY = {f"data_batch_{i}.bin": rows(images(3, i), [i, 0, 9]) for i in range(1, 6)}
BINARY["test_batch.bin"] = rows(images(3, 6), [6, 7, 8])


def write_tar(path, folder, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_binary(folder, files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def write(form, root):
    if form == "zips":
        write_cifar10_zips(root / "cifar10")
    elif form == "tar":
        write_tar(root / "cifar-10-binary.tar.gz", "cifar-10-batches-bin", BINARY)
    elif form == "folder":
        write_binary(root / "cifar-10-batches-bin", BINARY)
    elif form == "folder in cifar10":
        write_binary(root / "cifar10" / "cifar-10-batches-bin", BINARY)


@pytest.mark.parametrize("form", ["zips", "tar", "folder", "folder in cifar10"])
def test_every_form_of_cifar10_gives_the_same_examples_in_order(tmp_path, form):
    write(form, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    found = data.load("cifar10", data_dir=tmp_path)
    np.testing.assert_array_equal(found.train.images, np.concatenate([images(3, i) for i in range(1, 6)]))
    np.testing.assert_array_equal(found.test.images, images(3, 6))
    assert found.train.labels.tolist() == [1, 0, 9, 2, 0, 9, 3, 0, 9, 4, 0, 9, 5, 0, 9]
    assert found.test.labels.tolist() == [6, 7, 8]
    assert (found.mean, found.std, found.num_classes) == ((0.5,) * 3, (0.5,) * 3, 10)
    assert found.class_names[0] == "airplane"
    assert sorted(tmp_path.rglob("*")) == before  # nothing was unpacked


@pytest.mark.parametrize("form", ["tar", "folder", "zips"])
def test_cifar100_takes_the_fine_labels(tmp_path, form):
    files = {"train.bin": rows(images(2, 1), [3, 4], [99, 7]), "test.bin": rows(images(2, 2), [5, 6], [0, 50])}
    if form == "tar":
        write_tar(tmp_path / "cifar-100-binary.tar.gz", "cifar-100-binary", files)
    elif form == "folder":
        write_binary(tmp_path / "cifar-100-binary", files)
    else:
        write_zip(tmp_path / "cifar100" / "train.zip", images(2, 1), [99, 7], "fine_labels.npy")
        write_zip(tmp_path / "cifar100" / "test.zip", images(2, 2), [0, 50], "fine_labels.npy")
    found = data.load("cifar100", data_dir=tmp_path)
    np.testing.assert_array_equal(found.train.images, images(2, 1))
    assert found.train.labels.tolist() == [99, 7]
    assert found.test.labels.tolist() == [0, 50]
    assert (found.num_classes, found.class_names[99]) == (100, "worm")


def test_a_test_set_alone_is_said_to_lack_its_train_part(tmp_path):
    write_zip(tmp_path / "cifar100" / "test.zip", images(2, 2), [0, 50], "fine_labels.npy")
    with pytest.raises(data.DataError) as error:
        data.load("cifar100", data_dir=tmp_path)
    message = str(error.value)
    assert f"{tmp_path / 'cifar100'} holds test.zip but lacks its train part" in message
    assert f"looked in {tmp_path} (--data-dir), {tmp_path / 'tfds'}" in message


@pytest.mark.parametrize("form", ["zips", "folder"])
def test_one_missing_batch_is_not_read_over(tmp_path, form):
    write(form, tmp_path)
    next(tmp_path.rglob("train_3.zip" if form == "zips" else "data_batch_3.bin")).unlink()
    with pytest.raises(data.DataError, match="lacks"):
        data.load("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("place", ["cifar-10-batches-py/data_batch_1", "cifar10/cifar-10-python.tar.gz"])
def test_pickles_are_refused_and_not_opened(tmp_path, monkeypatch, place):
    def opened(*args, **kwargs):
        pytest.fail("a pickle was loaded")

    (tmp_path / place).parent.mkdir()
    (tmp_path / place).write_bytes(pickle.dumps({b"data": [], b"labels": []}))
    monkeypatch.setattr(pickle, "load", opened)
    monkeypatch.setattr(pickle, "loads", opened)
    with pytest.raises(data.DataError, match=r"holds Python pickles.*cifar-10-binary\.tar\.gz"):
        data.load("cifar10", data_dir=tmp_path)


def test_labels_stored_as_a_pickle_are_refused(tmp_path):
    write_cifar10_zips(tmp_path / "cifar10")
    write_zip(tmp_path / "cifar10" / "test.zip", images(2, 6), npy(np.array([0, None], object)), "labels.npy")
    with pytest.raises(data.DataError, match=r"test\.zip: damaged .*allow_pickle=False"):
        data.load("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:1000]), "damaged", id="cut short"),
        pytest.param(lambda path: write_zip(path, images(2, 0), [0], "labels.npy"), "1 labels for 2 images", id="counts"),
        pytest.param(lambda path: write_zip(path, images(2, 0), [0, 10], "labels.npy"), "0 to 10, expected 0 to 9", id="range"),
        pytest.param(lambda path: write_zip(path, images(2, 0), [0, 1], "fine_labels.npy"), "expected some and labels.npy", id="name"),
        pytest.param(lambda path: write_zip(path, images(2, 0), [0.5, 1.0], "labels.npy"), "whole numbers", id="dtype"),
        pytest.param(lambda path: write_zip(path, images(4, 0).reshape(2, 64, 32, 3)[:, :33], [0, 1], "labels.npy", strip=1), "32x33", id="size"),
    ],
)  # fmt: skip
def test_a_damaged_zip_is_named_with_its_fault(tmp_path, change, fault):
    write_cifar10_zips(tmp_path / "cifar10")
    change(tmp_path / "cifar10" / "train_2.zip")
    with pytest.raises(data.DataError, match=fault) as error:
        data.load("cifar10", data_dir=tmp_path)
    assert str(tmp_path / "cifar10" / "train_2.zip") in str(error.value)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        pytest.param(BINARY["data_batch_2.bin"][:-1], "9218 bytes, not a multiple of 3073", id="cut short"),
        pytest.param(rows(images(1, 0), [10]), "expected 0 to 9", id="range"),
        pytest.param(b"", "no images", id="empty"),
    ],
)
@pytest.mark.parametrize("form", ["tar", "folder"])
def test_a_damaged_batch_is_named_with_its_fault(tmp_path, form, content, fault):
    files = BINARY | {"data_batch_2.bin": content}
    if form == "tar":
        write_tar(tmp_path / "cifar-10-binary.tar.gz", "cifar-10-batches-bin", files)
    else:
        write_binary(tmp_path / "cifar-10-batches-bin", files)
    with pytest.raises(data.DataError, match=f"data_batch_2.bin.*{fault}"):
        data.load("cifar10", data_dir=tmp_path)


def test_a_tar_cut_short_is_named(tmp_path):
    write("tar", tmp_path)
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(data.DataError, match=r"cifar-10-binary\.tar\.gz: cannot be read, damaged or cut short"):
        data.load("cifar10", data_dir=tmp_path)
