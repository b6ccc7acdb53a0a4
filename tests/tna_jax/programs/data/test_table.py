"""Tables: CSV, TSV and Parquet, their target, what is left out and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from tna_jax.programs import data
from tna_jax.programs.cli.main import main
from tna_jax.programs.data import DataError, Request


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(rows: list[str], file: str = "wine.csv", header: str = "acid,sugar,name,quality") -> str:
    Path(file).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return file


ROWS = [f'{i}.5,{-i},"wine, {i}",{9 + i % 2}' for i in range(10)]


def test_numbers_are_inputs_and_values_of_the_target_are_classes():
    found = data.load(write(ROWS), request=Request(target="quality"))
    assert found.class_names == ("9", "10") and found.num_classes == 2  # in the order of numbers
    assert found.train.images.dtype == np.float32 and found.image_shape == (2,)
    both = np.concatenate([found.train.images, found.test.images])
    labels = np.concatenate([found.train.labels, found.test.labels])
    assert sorted(map(tuple, both.tolist())) == [(i + 0.5, -i) for i in range(10)]
    assert all(label == int(acid - 0.5) % 2 for (acid, _), label in zip(both.tolist(), labels, strict=True))
    assert found.describe() == (
        "wine.csv: 8 train + 2 test examples of 2, 2 classes; columns left out, which are not numbers: name"
    )


@pytest.mark.parametrize(("file", "mark"), [("w.tsv", "\t"), ("w.csv", ";")])
def test_other_separators(file, mark):
    write([f"1{mark}{i % 2}" for i in range(6)], file, f"\ufeffa{mark}b")
    assert data.load(file, request=Request(target="b")).image_shape == (1,)


def test_regression_takes_a_column_of_numbers():
    found = data.load(write(ROWS), request=Request("regression", "acid"))
    assert (found.train.labels.dtype, found.num_classes, found.image_shape) == (np.float32, 1, (2,))


def test_parquet_gives_the_same_as_csv():
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = {
        "acid": [i + 0.5 for i in range(10)],
        "sugar": [-i for i in range(10)],
        "quality": [9 + i % 2 for i in range(10)],
    }
    parquet.write_table(pyarrow.table(table), "wine.parquet")
    found = data.load("wine.parquet", request=Request(target="quality"))
    same = data.load(write(ROWS), request=Request(target="quality"))
    np.testing.assert_array_equal(found.train.images, same.train.images)
    np.testing.assert_array_equal(found.train.labels, same.train.labels)
    assert found.class_names == same.class_names and found.fingerprint == same.fingerprint
    Path("broken.parquet").write_text("no")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        data.load("broken.parquet", request=Request(target="a"))


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    Path("a.parquet").write_text("")
    with pytest.raises(DataError, match="Parquet needs pyarrow: pip install pyarrow"):
        data.load("a.parquet", request=Request(target="a"))


@pytest.mark.parametrize(
    ("rows", "target", "words"),
    [
        (ROWS, "price", "there is no column 'price'; the columns are acid, sugar, name, quality"),
        (ROWS, None, "--target names no column; the columns are acid"),
        ([], "quality", "no examples"),
        (["1,2,x"], "quality", "1 rows have other than 4 fields; the first, example 0, has 3"),
        ([*ROWS, "1,,x,9", "n/a,nan,x,9"], "quality", "1 cells of the column acid are not finite numbers; the first is 'n/a' in example 11"),
        ([*ROWS, "1,1,x,"], "quality", "1 empty cells in the column quality, the first in example 10"),
        ([*ROWS, "1,1,x,nan"], "quality", "1 empty cells in the column quality, the first in example 10"),
        ([*ROWS, "1,1,x,9.0"], "quality", "'9' and '9.0' of quality are one number"),
        ([f"{i},1,x,{i / 7}" for i in range(40)], "quality", "40 different values of quality in 40 examples are no classes"),
    ],
)  # fmt: skip
def test_bad_tables_are_refused_in_one_line(rows, target, words):
    with pytest.raises(DataError) as error:
        data.load(write(rows), request=Request(target=target))
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([f"{i},3,x,{i % 2}" for i in range(12)], "columns that only count the examples, and are inputs all the same: acid"),
        ([f"{i % 2},3,x,{i % 3 - 1}" for i in range(12)], "4 examples are of the class -1"),
        ([f"{2**40 + i % 2},3,x,{i % 2}" for i in range(12)], "columns of integers that float32 rounds, above 16777216: acid"),
        ([f"1_{i},3,x,{i % 2}" for i in range(12)], "columns left out, which are not numbers: acid, name"),
    ],
)  # fmt: skip
def test_columns_that_look_wrong_are_told(rows, words):
    assert words in data.load(write(rows), request=Request(target="quality")).describe()


def test_headers_that_name_a_column_twice_or_none():
    for header, words in (("a,a", "more than once: a"), ("a,", "without a name")):
        with pytest.raises(DataError, match=words):
            data.load(write(["1,2"], header=header), request=Request(target="a"))
    with pytest.raises(DataError, match="no column of numbers beside b"):
        data.load(write(["x,1"] * 4, header="a,b"), request=Request(target="b"))
    Path("latin.csv").write_bytes(b"a,b\n\xff,1\n")
    with pytest.raises(DataError, match="cannot be read as UTF-8"):
        data.load("latin.csv", request=Request(target="b"))


@pytest.mark.slow
def test_a_run_on_a_table_goes_the_whole_way():
    words = ["--epochs", "1", "--width", "4", "--depth", "1", "--members", "2", "--batch-size", "4"]
    assert main(["train", "--dataset", write(ROWS), "--target", "quality", *words, "--out", "run"]) == 0
    assert main(["barrier", "run", "--alphas", "3"]) == 0
