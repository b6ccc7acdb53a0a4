"""Folders of images: layouts, gray and color, sizes, what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tna_jax.programs import data
from tna_jax.programs.cli.main import main
from tna_jax.programs.data import DataError, Request


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(file: str, size: tuple[int, int] = (6, 4), color=(10, 20, 30), mode: str = "RGB") -> None:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(file)


def test_a_class_is_a_subfolder_and_splits_are_folders():
    for part, count in (("train", 3), ("test", 2)):
        for i in range(count):
            write(f"pets/{part}/dog/{i}.png")
            write(f"pets/{part}/cat/{i}.webp" if i else f"pets/{part}/cat/deep/0.png", color=(200, 0, 0))
    Path("pets/train/dog/notes.txt").write_text("not an image")
    found = data.load("./pets")
    assert found.describe().startswith(
        "pets: 6 train + 4 test images 4x6x3, 2 classes; 4 of 4 test examples are training"
    )
    assert found.class_names == ("cat", "dog") and found.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.train.images[-1, 0, 0].tolist() == [10, 20, 30]


def test_without_splits_a_fifth_is_cut_off_and_gray_stays_gray():
    for i in range(5):
        write(f"pets/a/{i}.png", color=i, mode="L")
        write(f"pets/b/{i}.png", color=100 + i, mode="L")
    found = data.load("pets/")
    assert (len(found.train.labels), len(found.test.labels), found.image_shape) == (8, 2, (4, 6, 1))
    values = sorted(int(image[0, 0, 0]) for image in np.concatenate([found.train.images, found.test.images]))
    assert values == [*range(5), *range(100, 105)]
    write("pets/a/9.png")
    assert data.load("./pets").image_shape == (4, 6, 3)  # one of them has colors


def test_images_of_several_sizes_need_image_size():
    for i, size in enumerate([(6, 4), (6, 4), (8, 8), (3, 9)]):
        write(f"pets/a/{i}.png", size)
        write(f"pets/b/{i}.png")
    with pytest.raises(DataError, match="images of 3 sizes") as error:
        data.load("./pets")
    assert (
        "a/0.png is 6x4" in str(error.value)
        and "a/2.png is 8x8" in str(error.value)
        and "--image-size" in str(error.value)
    )
    assert data.load("./pets", request=Request(image_size=5)).image_shape == (5, 5, 3)


def test_image_size_crops_the_center():
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 2:6] = 255
    for i in range(4):
        Path(f"pets/{i % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(f"pets/{i % 2}/{i}.png")
    assert (data.load("./pets", request=Request(image_size=4)).train.images == 255).all()


def test_what_is_refused():
    with pytest.raises(DataError, match="no such file or folder"):
        data.load("./pets")
    write("pets/0.png")
    with pytest.raises(
        DataError, match="1 images that are in no subfolder, expected a subfolder of images for each class"
    ):
        data.load("./pets")
    write("pets/a/0.png")
    Path("pets/b").mkdir()
    with pytest.raises(DataError, match="no images in b"):
        data.load("./pets")
    Path("pets/b/broken.png").write_bytes(b"no")
    with pytest.raises(DataError, match="broken.png: cannot be read as an image"):
        data.load("./pets")
    Path("pets/b/broken.png").unlink()
    Image.new("I;16", (6, 4)).save("pets/b/deep.png")
    with pytest.raises(DataError, match=r"pixels of other forms than 8 bits a channel: b/deep.png \(I;16\)$"):
        data.load("./pets")
    write("half/train/a/0.png")
    with pytest.raises(DataError, match="has train/ but no test/"):
        data.load("./half")
    Path("file").write_text("")
    with pytest.raises(DataError, match="is a file"):
        data.load("./file")
    with pytest.raises(DataError, match="which --objective regression does not take"):
        data.load("./half", request=Request("regression"))


def test_a_picture_that_is_cut_short_is_named():
    write("pets/a/0.png", (60, 40))
    write("pets/b/0.png", (60, 40))
    Path("pets/b/0.png").write_bytes(Path("pets/b/0.png").read_bytes()[:-30])
    with pytest.raises(DataError, match="b/0.png: cannot be read as an image"):
        data.load("./pets")


def test_all_broken_pictures_are_named_at_once():
    """A folder of thousands is read for minutes: one error a broken picture would take a day."""
    for i in range(9):
        write(f"pets/{'ab'[i % 2]}/{i}.png", (60, 40))
    whole = Path("pets/a/0.png").read_bytes()
    for broken, expected in ((whole[:-30], ("a/2.png", "b/3.png")), (b"no", ("a/2.png", "b/3.png"))):
        for name in expected:
            Path("pets", name).write_bytes(broken)
        with pytest.raises(DataError) as error:
            data.load("./pets")
        assert all(f"{name}: cannot be read as an image" in str(error.value) for name in expected)
    for i in range(1, 8):
        Path(f"pets/{'ab'[i % 2]}/{i}.png").write_bytes(b"no")
    with pytest.raises(DataError, match="; and 2 more$"):
        data.load("./pets")


def test_what_is_not_read_is_told():
    for part in ("train", "val", "test"):
        for i in range(4):
            write(f"pets/{part}/{'ab'[i % 2]}/{i}.png", color=(i, len(part), 0))
    assert data.load("./pets").notes == ("not read: val/ (the test split is test/)",)
    write("pets/train/loose.png")
    for name in ("1.heic", "2.HEIC", "notes.txt", ".hidden", "Thumbs.db"):
        (Path("pets/train/a") / name).write_text("")
    assert data.load("./pets").notes == (
        "not read: val/ (the test split is test/)",
        "not read: images in no subfolder of a class: 1, train/loose.png say",
        "files that are not read, as their names are not those of images: 2 .heic, 1 .txt, train/a/1.heic say",
    )


@pytest.mark.slow
def test_a_run_on_a_folder_goes_the_whole_way():
    for i in range(10):
        for name in "ab":
            write(f"pets/{name}/{i}.png", (6 + i, 6), color=(i, 200 * (name == "a"), 0))
    words = ["--epochs", "1", "--width", "4", "--depth", "1", "--members", "2", "--batch-size", "4", "--image-size", "6"]  # fmt: skip
    assert main(["train", "--dataset", "pets", *words, "--out", "run"]) == 0
    assert main(["barrier", "run", "--alphas", "3"]) == 0
