"""`hf:NAME`: folders that the datasets library wrote, images and texts, and what is said without the library."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tna_jax.programs import data
from tna_jax.programs.data import DataError, text_sources


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="hf:mnist needs the datasets library: pip install 'datasets>=4'"):
        data.load("hf:mnist")


@pytest.fixture
def library():
    return pytest.importorskip("datasets")


def test_images_and_labels(library):
    from PIL import Image

    features = library.Features({"img": library.Image(), "label": library.ClassLabel(names=["cat", "dog"])})
    rows = {
        "img": [Image.fromarray(np.full((4, 5, 3), i, np.uint8)) for i in range(10)],
        "label": [i % 2 for i in range(10)],
    }
    library.DatasetDict(train=library.Dataset.from_dict(rows, features=features)).save_to_disk("pets")
    found = data.load("hf:./pets")
    assert found.class_names == ("cat", "dog") and found.image_shape == (4, 5, 3) and len(found.test.labels) == 2
    assert (found.train.images[:, 0, 0, 0] % 2 == found.train.labels).all()
    assert found.source == f"hf:{Path('pets').resolve()}" and not text_sources.is_text("hf:pets")
    with pytest.raises(DataError, match="there is no column 'x'; the columns are img, label"):
        data.load("hf:pets", request=data.Request(target="x"))


def test_texts_whose_test_labels_are_secret(library):
    features = library.Features(
        {"sentence": library.Value("string"), "label": library.ClassLabel(names=["neg", "pos"])}
    )

    def rows(count: int, start: int, label: int | None = None):
        labels = [i % 2 if label is None else label for i in range(count)]
        return library.Dataset.from_dict(
            {"sentence": [f"text {start + i}" for i in range(count)], "label": labels}, features=features
        )

    library.DatasetDict(train=rows(30, 0), validation=rows(6, 100), test=rows(6, 200, -1)).save_to_disk("secret")
    task = text_sources.load("hf:secret")
    assert text_sources.is_text("hf:secret") and task.class_names == ("neg", "pos")
    assert task.test.texts[0] == ("text 100",) and "dev file" in task.how_split
    library.DatasetDict(train=rows(30, 0), validation=rows(6, 100), test=rows(5, 200)).save_to_disk("open")
    task = text_sources.load("hf:open")
    assert [len(part.texts) for part in (task.train, task.validation, task.test)] == [30, 6, 5]
    with pytest.raises(DataError, match="no column of images; the columns are sentence, label"):
        data.load("hf:open")


def test_nothing_is_fetched_without_download(library):
    with pytest.raises(DataError, match=r"hf:nobody/nothing: cannot be loaded .*; --download fetches it"):
        data.load("hf:nobody/nothing")
