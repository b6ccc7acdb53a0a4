"""Natural clients: a column of a table, a folder with a file for each client, an array of a .npz; each example stays with its owner."""

from pathlib import Path

import numpy as np
import pytest

from tests.parameters import slow
from tna_jax.programs import data
from tna_jax.programs.cli.main import main
from tna_jax.programs.data.source import DataError

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
    assert "needs --partition natural" in capsys.readouterr().err.replace("\n", " ")
