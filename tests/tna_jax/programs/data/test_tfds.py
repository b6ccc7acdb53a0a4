"""Sets prepared by TensorFlow Datasets: read without TensorFlow, refused in one line, never fetched unasked."""

import io
import json
import socket
import sys

import numpy as np
import pytest

from tna_jax.programs import data

tfds = pytest.importorskip("tensorflow_datasets")


@pytest.fixture(autouse=True)
def nowhere_and_offline(tmp_path, monkeypatch):
    """No data set is found unless a test makes it, and a test that asks the network fails."""

    def refuse(*args, **kwargs):
        pytest.fail("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.delenv("TNA_DATA_DIR", raising=False)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))


def prepare(
    root,
    name="tiny",
    *,
    version="1.0.0",
    shape=(4, 5, 1),
    splits=("train", "test"),
    feature=None,
    config=None,
    image=None,
):
    """Eight train and three test images: every pixel of image i is i (or all are `image`), its label is i % 2."""

    def info(self):
        features = {
            "image": tfds.features.Tensor(shape=shape, dtype=np.uint8),
            "label": tfds.features.ClassLabel(names=["a", "b"]),
        }
        features |= feature or {}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
        )

    def examples(self, n):
        for i in range(n):
            height = shape[0] or 4 + i
            yield i, {"image": image or np.full((height, *shape[1:]), i, np.uint8), "label": i % 2}

    body = {
        "VERSION": tfds.core.Version(version),
        "name": name,
        "_info": info,
        "_generate_examples": examples,
        "_split_generators": lambda self, dl: {part: examples(self, 8 if part == "train" else 3) for part in splits},
    }
    if config:
        body["BUILDER_CONFIGS"] = [tfds.core.BuilderConfig(name=config)]
    builder = type("Tiny", (tfds.core.GeneratorBasedBuilder,), body, skip_registration=True)
    made = builder(data_dir=root, file_format="array_record", **({"config": config} if config else {}))
    made.download_and_prepare()
    return root.joinpath(*[part for part in (name, config, version) if part])


def examples_of(split):
    """Pairs of the first pixel and the label, sorted: TensorFlow Datasets has an order of its own."""
    return sorted(zip(split.images[:, 0, 0, 0].tolist(), split.labels.tolist(), strict=True))


@pytest.mark.parametrize("text", ["tiny", "tiny:1.0.0", "tiny:1.*.*"])
def test_a_prepared_set_is_read_whole_and_without_tensorflow(tmp_path, text):
    prepare(tmp_path)
    found = data.load(f"tfds:{text}")
    assert examples_of(found.train) == [(i, i % 2) for i in range(8)]
    assert examples_of(found.test) == [(i, i % 2) for i in range(3)]
    assert found.describe() == f"tfds:{text}: 8 train + 3 test images 4x5x1, 2 classes"
    assert (found.class_names, found.mean, found.std) == (("a", "b"), (0.0,), (1.0,))
    assert found.train.images.dtype == np.uint8
    assert found.train.labels.dtype == np.int32
    again = data.load(f"tfds:{text}")
    assert again.train.images.tobytes() == found.train.images.tobytes()
    assert "tensorflow" not in sys.modules


def test_blocks_of_examples_join_without_loss(tmp_path, monkeypatch):
    prepare(tmp_path)
    whole = data.load("tfds:tiny")
    monkeypatch.setattr("tna_jax.programs.data.tfds_source.BLOCK", 3)
    for joined, at_once in zip(data.load("tfds:tiny").train, whole.train, strict=True):
        np.testing.assert_array_equal(joined, at_once)


def test_a_prepared_copy_serves_the_plain_name(tmp_path):
    prepare(tmp_path, "mnist", version="3.0.1")
    assert data.load("mnist").name == "mnist"
    assert examples_of(data.load("mnist").test) == [(0, 0), (1, 1), (2, 0)]


@pytest.mark.parametrize("channels", [1, 3])
def test_encoded_images_are_decoded(tmp_path, channels):
    from PIL import Image

    x = np.random.default_rng(0).integers(0, 256, (4, 5, channels), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(x if channels == 3 else x[..., 0]).save(buffer, "png")
    # Image features are encoded with TensorFlow: we store the bytes of a PNG file, and then call them an image.
    folder = prepare(
        tmp_path, feature={"image": tfds.features.Tensor(shape=(), dtype=np.object_)}, image=buffer.getvalue()
    )
    described = json.loads((folder / "features.json").read_text())
    described["featuresDict"]["features"]["image"] = {
        "pythonClassName": "tensorflow_datasets.core.features.image_feature.Image",
        "image": {"shape": {"dimensions": ["4", "5", str(channels)]}, "dtype": "uint8", "encodingFormat": "png"},
    }
    (folder / "features.json").write_text(json.dumps(described))
    found = data.load("tfds:tiny")
    np.testing.assert_array_equal(found.train.images, [x] * 8)


def test_validation_stands_in_for_test_and_colour_is_scaled_to_plus_minus_one(tmp_path):
    prepare(tmp_path, shape=(4, 5, 3), splits=("train", "validation"))
    found = data.load("tfds:tiny")
    assert len(found.test.labels) == 3
    assert (found.mean, found.std) == ((0.5,) * 3, (0.5,) * 3)


def test_the_newest_version_is_read_and_an_absent_one_is_missing(tmp_path):
    prepare(tmp_path, version="9.0.0", shape=(9, 1, 1))
    prepare(tmp_path, version="10.0.0", shape=(10, 1, 1))
    assert data.load("tfds:tiny").image_shape == (10, 1, 1)
    assert data.load("tfds:tiny:9.0.0").image_shape == (9, 1, 1)
    with pytest.raises(data.DataError, match=r"tfds:tiny:8\.0\.0 was not found"):
        data.load("tfds:tiny:8.0.0")


def test_one_configuration_is_taken_and_of_several_one_must_be_named(tmp_path):
    prepare(tmp_path, config="blue", shape=(2, 2, 1))
    assert data.load("tfds:tiny").image_shape == (2, 2, 1)
    prepare(tmp_path, config="red", shape=(3, 3, 1))
    assert data.load("tfds:tiny/red:1.0.0").image_shape == (3, 3, 1)
    with pytest.raises(data.DataError, match="choose one of tfds:tiny/blue, tfds:tiny/red"):
        data.load("tfds:tiny")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        pytest.param({"shape": (None, 5, 1)}, "images differ in size", id="sizes"),
        pytest.param({"shape": (4, 5, 2)}, "2 channels, expected 1 or 3", id="channels"),
        pytest.param({"splits": ("train",)}, "has the splits train, expected", id="splits"),
        pytest.param({"feature": {"label": np.int64}}, "expected a ClassLabel", id="label"),
        pytest.param({"feature": {"image": tfds.features.Tensor(shape=(4, 5, 1), dtype=np.float32)}}, "expected uint8", id="dtype"),
    ],
)  # fmt: skip
def test_a_set_that_cannot_serve_is_refused_with_the_reason(tmp_path, options, fault):
    if "feature" in options and "image" in options["feature"]:
        folder = prepare(tmp_path)
        text = (folder / "features.json").read_text()
        (folder / "features.json").write_text(text.replace('"uint8"', '"float32"'))
    else:
        folder = prepare(tmp_path, **options)
    with pytest.raises(data.DataError, match=fault) as error:
        data.load("tfds:tiny")
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("change", ["shard", "info", "features"])
def test_a_damaged_copy_is_named(tmp_path, change):
    folder = prepare(tmp_path)
    path = {
        "shard": next(folder.glob("*train*")),
        "info": folder / "dataset_info.json",
        "features": folder / "features.json",
    }[change]
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(data.DataError, match="damaged") as error:
        data.load("tfds:tiny")
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_tfrecord_files_are_refused_with_what_to_do(tmp_path):
    info = prepare(tmp_path) / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    with pytest.raises(data.DataError, match=r"stored as tfrecord.*file_format='array_record'"):
        data.load("tfds:tiny")


def test_a_missing_package_is_named_with_how_to_install_it(tmp_path, monkeypatch):
    prepare(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    for download in (False, True):
        with pytest.raises(data.DataError, match=r"pip install 'tna-jax\[tfds\]'"):
            data.load("tfds:tiny", download=download)


@pytest.mark.parametrize("name", ["tfds:", "tfds:a:b", "tfds:huggingface:mnist", "tfds:../mnist", "tfds:/mnist"])
def test_another_form_of_name_is_refused(name):
    with pytest.raises(data.DataError, match="expected tfds:NAME"):
        data.load(name)


def test_download_says_that_tensorflow_is_needed_before_it_fetches(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(data.DataError, match=r"--download mnist needs TensorFlow.*pip install tensorflow"):
        data.load("mnist", download=True)


def test_download_of_an_unknown_set_is_answered_with_the_nearest():
    with pytest.raises(data.DataError, match="knows no data set 'mnits': did you mean 'mnist'"):
        data.load("tfds:mnits", download=True)


def test_download_goes_to_the_given_folder_and_what_fails_is_one_line(tmp_path, monkeypatch):
    asked = []

    def builder(text, *, data_dir, file_format):
        asked.append((text, data_dir, file_format))
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    monkeypatch.setattr(tfds, "builder", builder)
    with pytest.raises(data.DataError, match="RuntimeError: first second"):
        data.load("mnist", data_dir=tmp_path / "mine", download=True)
    assert asked == [("mnist", str(tmp_path / "mine"), "array_record")]


def test_what_was_downloaded_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("tna_jax.programs.data.tfds_download.download", lambda text, root: prepare(root, text))
    assert len(data.load("cifar10", download=True).train.labels) == 8
