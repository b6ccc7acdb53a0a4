"""Data of the user's own: forms of names, arrays, files and functions; what is refused, and that a run finds its data again."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests.tna_jax.programs.commands import fails
from tna_jax.io.errors import UsageError
from tna_jax.programs import data
from tna_jax.programs.cli import dataset_names
from tna_jax.programs.cli.catalog import options_of
from tna_jax.programs.cli.main import main
from tna_jax.programs.cli.options import DataOptions
from tna_jax.programs.data import DataError, Request, own
from tna_jax.programs.data.arrays import from_arrays
from tna_jax.programs.resume.run import PROGRAMS

REGRESSION = Request("regression")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("TNA_DATA_DIR", raising=False)
    return tmp_path


def arrays(count: int = 20, seed: int = 0) -> dict[str, np.ndarray]:
    x = np.random.default_rng(seed).normal(size=(count, 3))
    return {"x_train": x, "y_train": np.arange(count) % 2}


def both(count: int = 20) -> dict[str, np.ndarray]:
    return {**arrays(count), "x_test": np.ones((4, 3)), "y_test": np.array([0, 1, 1, 0])}


@pytest.mark.parametrize(
    ("name", "form"),
    [("digits", "known"), ("digits:0-4", "known"), ("cifar10:cat", "known"), ("digits+mnist:1", "known"), ("tfds:x/y", "known"),
     ("a.npz", "npz"), ("/x/a.NPZ", "npz"), ("a.csv", "table"), ("a.parquet", "table"), ("./f.py:load", "function"),
     ("my.module:load", "function"), ("./photos", "folder"), ("/data/photos/", "folder"), ("hf:glue/sst2", "hf"),
     ("nmist", "unknown"), ("cifra10:cat", "unknown"), ("digits+nmist", "unknown")],
)  # fmt: skip
def test_names_say_what_they_are(name, form):
    assert dataset_names.form(name) == form
    assert bool(dataset_names.problem("--dataset", name)) == (form == "unknown")


def test_an_unknown_name_lists_the_known_ones_and_the_forms(capsys):
    line = fails(capsys, "train", "--dataset", "nmist")
    assert "did you mean 'mnist'" in line and "cifar100_test" in line and "FILE.npz" in line and "hf:NAME" in line


def test_test_arrays_are_used_as_they_are_and_floats_are_float32():
    np.savez("mine.npz", **both())
    found = data.load("mine.npz")
    assert found.train.images.dtype == np.float32 and found.train.labels.dtype == np.int32
    np.testing.assert_array_equal(found.train.images, both()["x_train"].astype(np.float32))
    np.testing.assert_array_equal(found.test.labels, both()["y_test"])
    assert found.preprocess(found.test.images) is found.test.images
    assert (found.num_classes, found.class_names, found.source) == (2, ("0", "1"), str(Path("mine.npz").resolve()))
    assert found.describe() == "mine.npz: 20 train + 4 test examples of 3, 2 classes"


def test_without_test_arrays_a_fifth_is_cut_off_the_same_each_time():
    found, again = (from_arrays("mine", arrays(), "classification") for _ in range(2))
    assert (len(found.train.labels), len(found.test.labels)) == (16, 4)
    rows = np.concatenate([found.train.images, found.test.images])
    np.testing.assert_array_equal(np.sort(rows, 0), np.sort(arrays()["x_train"].astype(np.float32), 0))
    np.testing.assert_array_equal(found.test.images, again.test.images)


def test_images_of_uint8_are_scaled_like_those_of_known_sets():
    gray = from_arrays(
        "gray", {"x_train": np.full((4, 5, 5), 255, np.uint8), "y_train": np.arange(4) % 2}, "classification"
    )
    assert gray.image_shape == (5, 5, 1) and gray.preprocess(gray.train.images).max() == 1.0
    color = from_arrays(
        "color", {"x_train": np.zeros((4, 5, 5, 3), np.uint8), "y_train": np.arange(4) % 2}, "classification"
    )
    assert color.preprocess(color.train.images).min() == -1.0
    assert gray.describe().startswith("gray: 3 train + 1 test images 5x5x1, 2 classes")


def test_labels_of_text_are_numbered_in_sorted_order():
    found = from_arrays(
        "pets", {**both(4), "y_train": np.array(list("dcdc")), "y_test": np.array(list("cddc"))}, "classification"
    )
    assert found.class_names == ("c", "d")
    assert found.train.labels.tolist() == [1, 0, 1, 0] and found.test.labels.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("objective", "y", "dtype", "outputs"),
    [("regression", np.arange(20) / 3, np.float32, 1), ("regression", np.ones((20, 5), np.int64), np.float32, 5),
     ("next-token", np.arange(40).reshape(20, 2), np.int32, 40), ("multi-label", np.ones((20, 7), bool), np.float32, 7)],
)  # fmt: skip
def test_other_objectives_take_other_targets(objective, y, dtype, outputs):
    found = from_arrays("mine", {**arrays(), "y_train": y}, objective)
    assert (found.train.labels.dtype, found.num_classes, found.class_names) == (dtype, outputs, ())


def _with(**changes):
    return {**both(), **changes}


NAN = both()["x_train"].copy()
NAN[3, 1], NAN[7, 0], NAN[7, 2] = np.nan, np.inf, np.nan


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"x_train": np.ones((2, 2)), "labels": np.ones(2)}, "holds x_train, labels; missing: y_train, x_test, y_test"),
        ({**arrays(), "x_test": np.ones((2, 3))}, "missing: y_test"),
        ({"x_train": np.ones((0, 2)), "y_train": np.ones(0, int)}, "no examples"),
        (_with(y_train=np.zeros(19, int)), "x_train has 20 examples, y_train has 19"),
        (_with(x_train=NAN), "3 values that are not finite, in 2 of 20 examples; the first is nan at [3, 1]"),
        (_with(x_train=np.full((20, 3), 1e300)), "not finite"),
        (_with(y_train=np.arange(20) / 2), "y_train holds float64, expected integer labels for classification"),
        (_with(y_train=np.arange(20) % 2 - 1), "labels from -1"),
        (_with(y_train=np.arange(20) % 2 + 1, y_test=np.array([1, 2, 2, 1])), "no example of class 0: expected classes numbered from 0; subtract 1"),
        (_with(y_test=np.array([0, 1, 2, 0])), "y_test has labels up to 2, y_train only up to 1"),
        (_with(y_train=(np.arange(20) % 2) * 999), "2 different labels from 0 to 999"),
        (_with(y_train=np.eye(20), y_test=np.eye(4, 20)), "expected one label for each example"),
        (_with(x_test=np.ones((4, 2))), "examples of x_train are (3,), of x_test (2,)"),
        (_with(x_train=np.array(["a"] * 20)), "x_train holds <U1, expected numbers"),
        (_with(x_train=np.array([{}] * 20)), "x_train holds object"),
        (_with(x_train=np.full((20, 3), 2**40)), "do not fit into int32"),
        ({"x_train": np.ones((1, 2)), "y_train": np.zeros(1, int)}, "one example"),
        (_with(y_train=np.zeros(20, int), y_test=np.zeros(4, int)), "all labels are 0: a network that knows one class is always right"),
        (_with(x_train=np.zeros((20, 2, 3, 1), np.uint8), x_test=np.zeros((4, 2, 3, 1))), "x_train holds uint8, x_test float32"),
        (_with(x_train=np.zeros((20, 3, 8, 8), np.uint8)), "expected images with their channels last, (H, W, C): x.transpose(0, 2, 3, 1)"),
        (_with(x_train=np.ones((20, 0))), "examples of x_train are empty, (0,)"),
    ],
)  # fmt: skip
def test_bad_arrays_are_refused_in_one_line(bad, words):
    with pytest.raises(DataError) as error:
        from_arrays("mine.npz", bad, "classification")
    assert words in str(error.value) and "\n" not in str(error.value) and str(error.value).startswith("mine.npz")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (_with(x_train=np.full((20, 4), 200, np.uint8), x_test=np.ones((4, 4), np.uint8)), "inputs go up to 200 and are taken as they are"),
        (_with(x_train=np.ones((20, 3, 8, 8)), x_test=np.ones((4, 3, 8, 8))), "examples of 3x8x8 look like channels first"),
        (_with(y_train=np.arange(20) % 2 * 2, y_test=np.array([0, 1, 1, 2])), "2 test examples are of classes without a training example: 1"),
    ],
)  # fmt: skip
def test_what_looks_wrong_is_told(arrays, words):
    assert words in from_arrays("mine", arrays, "classification").describe()
    assert not from_arrays("mine", both(), "classification").notes


def test_test_examples_that_were_trained_on_are_told():
    known, new = np.random.default_rng(0).random((2, 20, 3))
    labels = np.arange(20) % 2
    rows = {"x_train": known, "y_train": labels, "x_test": known[:10], "y_test": labels[:10]}
    assert "10 of 10 test examples are training examples too" in from_arrays("mine", rows, "classification").describe()
    rows["x_test"] = np.concatenate([known[:3], new[3:10]])
    assert "3 of 10 test examples" in from_arrays("mine", rows, "classification").describe()
    rows["y_test"] = 1 - labels[:10]  # other targets: other examples, that look alike
    assert not from_arrays("mine", rows, "classification").notes
    twice = {"x_train": np.repeat(known, 2, 0), "y_train": np.repeat(labels, 2)}  # split here, by a seed
    assert "test examples are training examples too" in from_arrays("mine", twice, "classification").describe()


def test_targets_that_do_not_fit_the_objective_are_refused():
    for objective, y, words in (
        ("next-token", np.ones((20, 2)), "expected integers"),
        ("regression", np.full(20, np.nan), "not finite"),
    ):
        with pytest.raises(DataError, match=words):
            from_arrays("mine", {**arrays(), "y_train": y}, objective)


def test_pickles_and_other_files_are_refused():
    np.savez("pickled.npz", x_train=np.array([{}, {}]), y_train=np.zeros(2, int))
    Path("text.npz").write_text("no")
    Path("cut.npz").write_bytes(Path("pickled.npz").read_bytes()[:100])
    Path("array.npz").write_bytes(b"")
    for name, words in (("pickled", "Python objects"), ("text", "cannot be read"), ("cut", "cannot be read"), ("array", "cannot be read"),
                        ("gone", "no such file")):  # fmt: skip
        with pytest.raises(DataError, match=words) as error:
            data.load(f"{name}.npz")
        assert "\n" not in str(error.value)


def test_options_of_other_forms_are_refused():
    np.savez("mine.npz", **both())
    with pytest.raises(DataError, match="--target is for tables"):
        data.load("mine.npz", request=Request(target="price"))
    with pytest.raises(DataError, match="--image-size 8 is for data of your own, digits is a known set"):
        data.load("digits", request=Request(image_size=8))
    with pytest.raises(DataError, match="--image-size is for folders"):
        data.load("mine.npz", request=Request(image_size=8))


FUNCTION = """
import numpy as np
def load():
    return {"x_train": np.ones((10, 2)), "y_train": np.arange(10) % 2}
def four():
    return np.ones((4, 2)), [0, 1, 0, 1], np.ones((2, 2)), [0, 1]
def three():
    return 1, 2, 3
def fails():
    raise KeyError("no\\nsuch column")
"""


def test_a_function_returns_four_arrays_or_a_mapping():
    Path("mine.py").write_text(FUNCTION)
    found, four = data.load("./mine.py:load"), data.load("mine.py:four")
    assert (len(found.train.labels), len(found.test.labels), len(four.test.labels)) == (8, 2, 2)
    assert found.source == f"{Path('mine.py').resolve()}:load" and len(found.code_sha256) == 64
    with pytest.raises(DataError, match=r"returned tuple of 3, expected \(x_train, y_train, x_test, y_test\)"):
        data.load("mine.py:three")
    with pytest.raises(DataError, match=r"fails: KeyError: 'no.*line 10 of") as error:
        data.load("mine.py:fails")
    assert "\n" not in str(error.value)


def test_code_that_a_run_names_is_run_only_if_it_is_the_same():
    Path("mine.py").write_text(FUNCTION)
    found = data.load("mine.py:load")
    data.load(found.source, request=Request(sha256=found.code_sha256))
    Path("mine.py").write_text(FUNCTION + "\n")
    with pytest.raises(UsageError, match="has changed since the run"):
        data.load(found.source, request=Request(sha256=found.code_sha256))
    data.load(found.source, request=Request(sha256=found.code_sha256, trust=True))


@pytest.mark.parametrize("program", ["train", "lmc", "federate", "pretrain", "soup"])
def test_a_configuration_that_names_code_runs_none_of_it(here, capsys, program):
    Path("evil.py").write_text("open('ran', 'w')\ndef load():\n    return {}\n")
    Path("config.json").write_text(json.dumps({"dataset": f"{here / 'evil.py'}:load"}))
    more = ["--checkpoint", "bert"] if program == "soup" else []
    assert "nothing of it was run" in fails(capsys, program, "--config", "config.json", *more)
    assert not Path("ran").exists()


TRAIN = ["--members", "2", "--epochs", "1", "--width", "4", "--depth", "1"]


def test_changed_content_is_told_from_the_same():
    np.savez("mine.npz", **both())
    np.savez_compressed("same.npz", **both())
    np.savez("other.npz", **_with(y_test=np.array([0, 1, 1, 1])))
    found, same, other = (data.load(f"{name}.npz") for name in ("mine", "same", "other"))
    assert own.changed(found, None) == own.changed(same, found.fingerprint) == ""
    assert "is not the data of the run any more" in own.changed(other, found.fingerprint)
    options = own.recorded(DataOptions("mine.npz"), found)
    assert (options.dataset, options.data_fingerprint) == (found.source, found.fingerprint)


@pytest.mark.slow
def test_a_run_records_its_data_and_later_programs_find_it_or_say_what_is_wrong(here, capsys):
    np.savez("mine.npz", **both())
    assert main(["train", "--dataset", "mine.npz", *TRAIN, "--batch-size", "8", "--out", "run"]) == 0
    config = json.loads(Path("run/config.json").read_text())
    assert config["dataset"] == str(here / "mine.npz") and len(config["data_fingerprint"]) == 64
    assert not {"target", "image_size", "dataset_sha256"} & set(config)
    (here / "elsewhere").mkdir()
    assert main(["barrier", "run", "--alphas", "3"]) == 0
    Path("mine.npz").rename("elsewhere/mine.npz")
    assert "no such file or folder" in fails(capsys, "barrier", "run", "--alphas", "3")
    np.savez("mine.npz", **{**both(), "y_test": np.array([0, 1, 1, 1])})
    for words in (["barrier", "run", "--alphas", "3"], ["resume", "run"]):
        assert "is not the data of the run any more" in fails(capsys, *words)
    Path("mine.npz").unlink()
    assert main(["barrier", "run", "--alphas", "3", "--data-dir", "elsewhere"]) == 0
    assert main(["resume", "run", "--data-dir", "elsewhere"]) == 0


@pytest.mark.slow
def test_known_sets_are_recorded_as_before(here):
    assert main(["train", "--dataset", "digits:0-1", *TRAIN, "--train-examples", "64", "--out", "run"]) == 0
    config = json.loads(Path("run/config.json").read_text())
    assert config["dataset"] == "digits:0-1"
    assert not {"target", "image_size", "dataset_sha256", "data_fingerprint"} & set(config)
    assert main(["resume", "run"]) == 0


@pytest.mark.slow
def test_regression_on_data_of_a_function_goes_the_whole_way(here):
    Path("mine.py").write_text(
        "import numpy as np\ndef load():\n    x = np.linspace(0, 1, 60)[:, None]\n    return {'x_train': x, 'y_train': x[:, 0] ** 2}\n"
    )
    words = ["--dataset", "./mine.py:load", "--objective", "regression", "--epochs", "1", "--width", "4", "--depth", "1"]  # fmt: skip
    assert main(["lmc", *words, "--ratios", "0", "0.4", "--seeds", "1", "--out", "run"]) == 0
    config = json.loads(Path("run/config.json").read_text())
    assert config["dataset"] == f"{here / 'mine.py'}:load" and len(config["dataset_sha256"]) == 64
    assert main(["resume", "run"]) == 0


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_that_record_code_and_they_alone_take_trust_code(program):
    """So that `tna resume --trust-code` reaches each of them."""
    fields = {field.name for field in dataclasses.fields(options_of(program))}
    assert ("trust_code" in fields) == ("dataset_sha256" in fields)
