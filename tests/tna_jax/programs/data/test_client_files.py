"""Natural clients: a column of a table, a folder with a file for each client, an array of a .npz; each example stays with its owner."""

import re
from pathlib import Path

import numpy as np
import pytest

from tests.parameters import slow
from tna_jax.programs import data
from tna_jax.programs.cli.main import main
from tna_jax.programs.data.source import DataError
from tna_jax.programs.federate.run import dealt_anew

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).astype(np.float32)
Y = RNG.integers(0, 2, 60)
OWNERS = np.array(["ann", "bob", "cy"])[np.arange(60) % 3]
X[:, 2] = np.arange(60) % 3  # so that an example says whose it is


def table(folder: Path) -> str:
    rows = [f"{a},{b},{c},{'yes' if y else 'no'},{who}" for (a, b, c), y, who in zip(X, Y, OWNERS, strict=True)]
    (folder / "all.csv").write_text("\n".join(["a,b,c,label,user", *rows]) + "\n")
    return str(folder / "all.csv")


def files(folder: Path) -> str:
    (folder / "each").mkdir()
    for who in np.unique(OWNERS):
        own = who == OWNERS
        np.savez(folder / "each" / f"{who}.npz", x_train=X[own], y_train=Y[own])
    return str(folder / "each")


def tables(folder: Path) -> str:
    (folder / "tables").mkdir()
    for who in np.unique(OWNERS):
        rows = [
            f"{a},{b},{c},{'yes' if y else 'no'}"
            for (a, b, c), y in zip(X[who == OWNERS], Y[who == OWNERS], strict=True)
        ]
        (folder / "tables" / f"{who}.csv").write_text("\n".join(["a,b,c,label", *rows]) + "\n")
    return str(folder / "tables")


def archive(folder: Path) -> str:
    np.savez(folder / "all.npz", x_train=X, y_train=Y, client_train=OWNERS)
    return str(folder / "all.npz")


REQUESTS = {table: {"target": "label", "client_column": "user"}, files: {}, tables: {"target": "label"}, archive: {}}


@pytest.mark.parametrize("make", list(REQUESTS))
@pytest.mark.parametrize("some", [None, 30])
def test_each_example_stays_with_its_owner(make, some, tmp_path):
    found = data.load(make(tmp_path), request=data.Request(**REQUESTS[make])).subset(some)
    assert len(found.owners) == len(found.train.labels) == (some or 48)
    assert [("ann", "bob", "cy")[int(row[2])] for row in found.train.images] == found.owners.tolist()
    assert found.num_classes == 2


def test_what_does_not_fit_is_refused(tmp_path):
    np.savez(tmp_path / "odd.npz", x_train=X, y_train=Y, client_train=OWNERS[:5])
    with pytest.raises(DataError, match="client_train is <U3 .5,., expected a number or a word for each of 60"):
        data.load(str(tmp_path / "odd.npz"))
    name = table(tmp_path)
    with pytest.raises(DataError, match="there is no column 'who'"):
        data.load(name, request=data.Request(target="label", client_column="who"))
    with pytest.raises(DataError, match="--client-column is for tables"):
        data.load(archive(tmp_path), request=data.Request(client_column="who"))
    folder = Path(files(tmp_path))
    np.savez(folder / "dan.npz", x_train=X[:, :2], y_train=Y)
    with pytest.raises(DataError, match="dan.npz: examples are .2,., in ann.npz .3,."):
        data.load(str(folder))
    assert data.load("digits").owners is None


TABLES = {
    "a": "x,y,label\n1,2,no\n3,4,yes\n",
    "b": "y,label,x\n20,yes,10\n40,no,30\n",  # other places of the same columns
}


def write(folder: Path, **texts: str) -> str:
    folder.mkdir()
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text(text)
    return str(folder)


def test_columns_of_clients_go_by_their_names(tmp_path):
    request = data.Request(target="label")
    found = data.load(write(tmp_path / "tables", **TABLES), request=request)
    x, y = (
        np.concatenate(pair)
        for pair in ((found.train.images, found.test.images), (found.train.labels, found.test.labels))
    )
    assert sorted(map(tuple, x.tolist())) == [(1, 2), (3, 4), (10, 20), (30, 40)]
    assert all(
        found.class_names[label] == ("yes" if a in (3, 10) else "no") for (a, _), label in zip(x, y, strict=True)
    )
    with pytest.raises(DataError, match=r"b\.csv: its columns are not those of a\.csv: it lacks y and has z"):
        data.load(write(tmp_path / "others", a=TABLES["a"], b=TABLES["b"].replace("y,", "z,")), request=request)
    words = {
        name: text.replace("x", "city").replace("1,", "Rome,").replace("3,", "Oslo,") for name, text in TABLES.items()
    }
    with pytest.raises(
        DataError, match="2 cells of the column city are not finite numbers"
    ):  # words here, numbers there
        data.load(write(tmp_path / "words", **words), request=request)
    assert (
        "columns left out, which are not numbers: y"
        in data.load(
            write(
                tmp_path / "left",
                **{
                    k: v.replace("2,", "u,").replace("4,", "u,").replace("0,yes", "u,yes").replace("0,no", "u,no")
                    for k, v in TABLES.items()
                },
            ),
            request=request,
        ).describe()
    )


SOUND = {"x_train": np.ones((3, 4), np.uint8), "y_train": np.array([0, 1, 1])}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"x_train": np.ones((3, 4), np.float32)}, "b.npz: x_train holds float32, in a.npz uint8"),
        ({"y_train": np.array(["0", "1", "1"])}, "b.npz: y_train holds <U1, in a.npz int64"),
        ({"y_train": np.array([0, 1])}, "b.npz: x_train has 3 examples, y_train has 2"),
        (
            {"x_train": np.ones((0, 4), np.uint8), "y_train": np.array([], int)},
            "b.npz: x_train and y_train have no examples",
        ),
        ({"x_test": SOUND["x_train"], "y_test": SOUND["y_train"]}, "all have test arrays, or none"),
        ({"y_train": np.array([0, 1, 1], np.uint8)}, ""),
    ],
)
def test_arrays_of_clients_that_would_be_joined_into_nonsense_are_refused(other, words, tmp_path):
    (tmp_path / "each").mkdir()
    np.savez(tmp_path / "each" / "a.npz", **SOUND)
    np.savez(tmp_path / "each" / "b.npz", **(SOUND | other))
    if not words:
        assert data.load(str(tmp_path / "each")).num_classes == 2
        return
    with pytest.raises(DataError, match=re.escape(words)):
        data.load(str(tmp_path / "each"))


def test_clients_whose_examples_are_all_held_out_are_counted(tmp_path):
    np.savez(tmp_path / "one.npz", x_train=X, y_train=Y, client_train=np.arange(60))  # an example each
    assert "12 of 60 clients have no training examples" in data.load(str(tmp_path / "one.npz")).describe()


def test_faults_of_natural_clients_that_there_are_not_are_refused(tmp_path, capsys):
    words = [
        "federate",
        "--dataset",
        archive(tmp_path),
        "--partition",
        "natural",
        "--hostile-clients",
        "2",
        "3",
        "--out",
        "out",
    ]
    assert main(words) == 2
    assert "there are clients 0 to 2, but these are named: 3" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("make", slow(*REQUESTS))
def test_a_federation_of_natural_clients(make, tmp_path, capsys):
    words = [
        "federate",
        "--dataset",
        make(tmp_path),
        "--partition",
        "natural",
        "--rounds",
        "2",
        "--depth",
        "1",
        "--width",
        "8",
    ]
    options = REQUESTS[make]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", value]
    assert main([*words, "--anchors", "pfn", "--out", "out"]) == 0
    assert "3 clients, natural clients" in " ".join(capsys.readouterr().out.split())
    assert main(["resume", "out", "--rounds", "3"]) == 0


def test_data_without_owners_has_no_natural_clients(capsys):
    assert main(["federate", "--dataset", "digits", "--partition", "natural"]) == 2
    assert "does not say whose its examples are" in capsys.readouterr().err.replace("\n", " ")
    assert main(["federate", "--dataset", "digits", "--client-column", "a"]) == 2
    assert "--client-column does nothing without --partition natural" in capsys.readouterr().err.replace("\n", " ")


def test_owners_that_a_partition_leaves_aside_are_told(tmp_path):
    found = data.load(files(tmp_path))
    assert dealt_anew(found, "iid") == (
        "each says whose each example is, and --partition iid deals them out anew; --partition natural leaves them with their owners"
    )
    assert not dealt_anew(found, "natural") and not dealt_anew(data.load("digits"), "dirichlet")


def test_files_of_clients_that_cannot_be_used_are_named(tmp_path):
    request = data.Request(target="label")
    rows = {
        name: "x,y,label\n" + "".join(f"{i},{i + 1},{'no' if i % 2 else 'yes'}\n" for i in range(6)) for name in "abc"
    }
    bad = {name: rows[name].replace("3,4", "nan,4").replace("5,6", "?,6") for name in "ac"}
    with pytest.raises(DataError) as error:
        data.load(write(tmp_path / "bad", **rows | bad), request=request)
    said = [
        f"{tmp_path}/bad/{name}.csv: 2 cells of the column x are not finite numbers; the first is 'nan' in example 3"
        for name in "ac"
    ]
    assert str(error.value) == "; ".join(said)
    folder = Path(write(tmp_path / "beside", **rows))
    (folder / ".ipynb_checkpoints").mkdir()
    assert len(np.unique(data.load(str(folder), request=request).owners)) == 3
    (folder / "old").mkdir()
    with pytest.raises(
        DataError, match=r"beside holds a.csv, b.csv, c.csv and subfolders \(old/\): files of clients lie in"
    ):
        data.load(str(folder), request=request)
    (folder / "old").rmdir()
    (folder / "a.CSV").write_text(rows["a"])
    if len(list(folder.glob("*.[cC]*"))) == 4:  # a file system that tells them apart
        with pytest.raises(DataError, match=r"these would be one: a.CSV, a.csv$"):
            data.load(str(folder), request=request)
