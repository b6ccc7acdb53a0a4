"""Runs that several files of tests stand on: each is trained once, for all workers; a file gets copies of its own."""

import contextlib
import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from filelock import FileLock

from tests.tna_jax.programs.commands import BERT, COLD, NINE, SOUP, UNALIGNED, VIT
from tna_jax import models
from tna_jax.hf import loading, tokenizer
from tna_jax.hf.config import shapes_of
from tna_jax.programs.cli.main import main


@pytest.fixture(scope="session")
def once(tmp_path_factory) -> Callable:
    """`once(name, make)`: the folder `name` as `make()`, called in the folder above it, leaves it; later calls find it."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    shared.mkdir(exist_ok=True)

    def folder(name: str, make: Callable[[], None]) -> Path:
        whole = shared / f"{name}.whole"
        with FileLock(shared / f"{name}.lock"):
            if not whole.exists():
                shutil.rmtree(shared / name, ignore_errors=True)
                with contextlib.chdir(shared):
                    make()
                whole.touch()
        return shared / name

    return folder


@pytest.fixture(scope="module")
def copy_of(once, tmp_path_factory) -> Callable:
    """`copy_of(name, *commands)`: a copy of the run folder `name` that these commands leave."""

    def copy(name: str, *commands: list[str]) -> Path:
        def make():
            for words in commands:
                assert main(words) == 0, words

        return Path(shutil.copytree(once(name, make), tmp_path_factory.mktemp("copies") / name))

    return copy


@pytest.fixture(scope="module")
def unaligned(copy_of) -> Path:
    """A run of three plain networks from different initial values."""
    return copy_of("unaligned", ["train", *UNALIGNED, "--out", "unaligned"])


@pytest.fixture(scope="module")
def ensemble(copy_of) -> Path:
    """A run of nine networks, and all their barriers."""
    return copy_of("nine", ["train", *NINE, "--out", "nine"], ["barrier", "nine", "--alphas", "3"])


@pytest.fixture(scope="session")
def home(once) -> Path:
    """A folder with text tasks (data/), a BERT and a ViT that were not trained (drawn/, drawn_vit/)."""

    def make():
        write_texts(Path("home/data/text"))
        write_bert(Path("home/drawn"))
        write_vit(Path("home/drawn_vit"))

    return once("home", make)


@pytest.fixture(scope="session")
def vit(once, home) -> Path:
    """A run of `tna pretrain` on digits."""
    once("vit", lambda: run_as_users_do("pretrain", *VIT, "--out", str(home / "vit")))
    return home / "vit"


@pytest.fixture(scope="session")
def bert(once, home) -> Path:
    """A run of `tna pretrain` on those texts."""
    words = ["pretrain", *BERT, "--data-dir", str(home / "data"), "--out", str(home / "bert")]
    once("bert", lambda: run_as_users_do(*words))
    return home / "bert"


@pytest.fixture(scope="session")
def souped(once, home, vit) -> Path:
    """A run of `tna soup` from that ViT."""
    words = ["soup", "--checkpoint", str(vit / "model"), *SOUP, "--out", str(home / "soup")]
    once("soup", lambda: run_as_users_do(*words))
    return home / "soup"


@pytest.fixture(scope="session")
def cold_fused(once, home, bert) -> Path:
    """A run of `tna cold` from that BERT."""
    words = ["cold", "--checkpoint", str(bert / "model"), *COLD, "--data-dir", str(home / "data")]
    once("cold", lambda: run_as_users_do(*words, "--out", str(home / "cold")))
    return home / "cold"


def run_as_users_do(*words: str) -> None:
    """Runs `tna` without the strict dtypes of tests: Adam and the schedules of optax mix integers and floats."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert main(list(words)) == 0, words


def write_texts(folder: Path) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    words = np.array(["good", "bad", "fine", "poor", "who", "where", "film", "plot", "city", "man", "great", "awful"])
    for name, classes in (("mr.all", 2), ("subj.all", 2), ("trec.train", 6), ("trec.test", 6)):
        rows = []
        for i in range(120):
            label = int(rng.integers(classes))
            rows.append(f"{label}\t{words[label]} {' '.join(rng.choice(words, 4))} {i}")
        with gzip.open(folder / f"{name}.tsv.gz", "wt") as file:
            file.write("".join(f"{row}\n" for row in rows))


def write_bert(folder: Path) -> None:
    pytest.importorskip("tokenizers", reason="needs the extra hf")
    module = models.create("bert", vocab=40, positions=12, width=16, depth=1, heads=2, mlp=64, head="masked_lm")
    draws = np.random.default_rng(0)
    leaves = {path: draws.normal(size=shape).astype(np.float32) for path, shape in shapes_of(module, 2).items()}
    loading.save(folder, module, loading.tree(leaves))
    tokenizer.train(["good bad film plot"], 40).save(folder)


def write_vit(folder: Path) -> None:
    module = models.create("vit", image_size=8, patch=4, width=16, depth=1, heads=2, mlp=32, num_classes=5)
    draws = np.random.default_rng(0)
    leaves = {path: draws.normal(size=shape).astype(np.float32) for path, shape in shapes_of(module, 1).items()}
    loading.save(folder, module, loading.tree(leaves))
