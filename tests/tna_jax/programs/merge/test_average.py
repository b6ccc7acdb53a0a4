"""`tna merge` on real safetensors files: the same bytes as the library's average, equal entries bit for bit, in bounded memory."""

import json
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.tna_jax.programs.merge.files import MODELS, shard, tensors
from tna_jax import weighted_average
from tna_jax.io import tensor_headers
from tna_jax.programs.cli.main import main
from tna_jax.programs.merge import streaming, write
from tna_jax.programs.merge.plan import Output

pytestmark = pytest.mark.usefixtures("small_pieces")


@pytest.mark.parametrize("weights", [None, (0.5, 0.25, 0.25), (2.0, 0.0, 0.0)])
def test_the_average_is_the_librarys_and_equal_entries_are_copied(files, capsys, weights):
    words = [] if weights is None else ["--weights", *map(str, weights)]
    assert main(["merge", *files, *words, "-o", "out.safetensors"]) == 0
    made, models = load_file("out.safetensors"), [tensors(i) for i in range(MODELS)]
    assert list(made) == list(load_file(files[0]))
    stacked = {name: np.stack([model[name] for model in models]) for name in models[0]}
    expected = {
        name: np.asarray(weighted_average(leaf.astype(leaf.dtype), weights or (1,) * MODELS))
        for name, leaf in stacked.items()
        if name != "ids"
    }
    for name, leaf in expected.items():
        assert made[name].dtype == leaf.dtype and made[name].shape == leaf.shape
        np.testing.assert_allclose(made[name], leaf, rtol=1e-6, atol=1e-7)
        equal = (stacked[name] == stacked[name][:1]).all(0)
        assert made[name][equal].tobytes() == models[0][name][equal].tobytes()
    assert made["ids"].tolist() == models[0]["ids"].tolist()
    if weights == (2.0, 0.0, 0.0):
        assert all(made[name].tobytes() == models[0][name].tobytes() for name in made)
    else:
        assert made["head"][-1] != models[0]["head"][-1]  # the control: something was averaged
        naive = sum(np.float32(w) * m["head"] for w, m in zip(weights or (1 / 3,) * 3, models, strict=True))
        assert weights is not None or (naive[:32] != models[0]["head"][:32]).any()
    report = json.loads(Path("out.merge.json").read_text())
    assert report["entries"] == 1065 and report["entries_equal_in_all"] == 532
    assert "49.95% of 1,065 entries are equal" in capsys.readouterr().out
    assert [name for name in os.listdir() if name.startswith(".")] == []


@pytest.mark.parametrize("kind", ["F16", "BF16", "F64"])
def test_half_precision_is_summed_in_float32_and_double_in_double(tmp_path, kind):
    dtype = tensor_headers.DTYPES[kind]
    values = [np.full(3, value).astype(dtype) for value in (1.0, 1.0078125, 1.0 + 2**-40)]
    names = [str(tmp_path / f"{i}.safetensors") for i in range(3)]
    for name, value in zip(
        names, values, strict=True
    ):  # written with our header: the library's NumPy side has no bfloat16
        tensor = tensor_headers.Tensor(tmp_path, kind, (3,), 0)
        (tmp_path / name).write_bytes(tensor_headers.header({"w": tensor}, {}) + value.tobytes())
    assert main(["merge", *names, "-o", "out.safetensors", "--weights", "1", "2", "4"]) == 0
    held = tensor_headers.open_checkpoint("out.safetensors").tensors["w"]
    made = np.frombuffer(Path("out.safetensors").read_bytes()[held.start :], dtype)
    wide = np.float64 if kind == "F64" else np.float32
    expected = sum(wide(w / 7) * v.astype(wide) for w, v in zip((1, 2, 4), values, strict=True)).astype(dtype)
    assert made.tolist() == expected.tolist()
    assert held.kind == kind and held.dtype == (np.dtype(ml_dtypes.bfloat16) if kind == "BF16" else dtype)


def test_sharded_folders_beside_single_files(tmp_path, files):
    shard(tmp_path / "a", 0)
    (tmp_path / "b").mkdir()
    save_file(tensors(1), tmp_path / "b" / tensor_headers.SINGLE)
    assert main(["merge", str(tmp_path / "a"), str(tmp_path / "b"), files[2], "-o", "merged"]) == 0
    assert sorted(os.listdir("merged")) == [
        "README.md", "config.json", "merge.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", tensor_headers.INDEX,
    ]  # fmt: skip
    assert main(["merge", *files, "-o", "out.safetensors"]) == 0
    whole, parts = tensor_headers.open_checkpoint("out.safetensors"), tensor_headers.open_checkpoint("merged")
    one = load_file("out.safetensors")
    two = {k: v for name in parts.files for k, v in load_file(f"merged/{name}").items()}
    assert set(whole.tensors) == set(one) == set(two)
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)
    assert main(["merge", str(tmp_path / "a"), files[1], "-o", "flat.safetensors"]) == 0
    assert set(load_file("flat.safetensors")) == set(one)


def test_an_interrupted_merge_leaves_nothing(files, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(streaming.os, "fsync", stop)
    assert main(["merge", *files, "-o", "new.safetensors"]) == 130
    assert sorted(os.listdir()) == sorted(map(os.path.basename, files))


def test_integers_that_differ_are_the_first_models_and_said(tmp_path, capsys):
    for i in range(2):
        save_file({"w": np.ones(2, np.float32) * i, "ids": np.arange(3) + i}, tmp_path / f"{i}.safetensors")
    assert main(["merge", "0.safetensors", "1.safetensors", "-o", "out.safetensors"]) == 0
    assert "0.safetensors's were taken: ids" in capsys.readouterr().err.replace("\n", " ")
    assert load_file("out.safetensors")["ids"].tolist() == [0, 1, 2]
    assert main(["merge", "0.safetensors", "1.safetensors", "-o", "quiet.safetensors", "-q"]) == 0
    assert "warning: not floating-point and different" in (said := capsys.readouterr().err) and "sums in" not in said
    assert "0.safetensors's were taken: ids" in said
    (warning,) = json.loads(Path("quiet.merge.json").read_text())["warnings"]
    assert "were taken: ids" in warning


def test_the_size_of_shards_is_refused_where_there_are_none(tmp_path, capsys):
    for i in range(2):
        save_file({"w": np.ones(2, np.float32) * i}, tmp_path / f"{i}.safetensors")
    assert main(["merge", "0.safetensors", "1.safetensors", "-o", "out.safetensors", "--shard-size", "5GB"]) == 2
    assert "--shard-size 5GB does nothing for one file, which out.safetensors is" in capsys.readouterr().err
    assert main(["merge", "0.safetensors", "1.safetensors", "-o", "out", "--shard-size", "5GB"]) == 0


def test_memory_does_not_grow_with_the_files(tmp_path):
    """Buffers are a few pieces, however large a tensor is."""
    blender = streaming.Blender(np.dtype(np.float32))
    save_file({"w": np.ones(10_000, np.float32)}, tmp_path / "w.safetensors")
    held = (tensor_headers.open_checkpoint(str(tmp_path / "w.safetensors")).tensors["w"],) * 2
    for output, first, size in streaming.pieces([Output("w", "F32", held, (1.0, 1.0))]):
        assert len(blender.piece(output, first, size).values) <= 64
    assert sum(buffer.nbytes for buffer in blender.buffers.values()) <= 4 * 64 * 4
    blender.close()
    assert write.WIDE["float32"] == np.float32


def test_entries_that_are_not_finite_are_told_with_whose_they_are(tmp_path, files, capsys):
    bad = tensors(1)
    bad["head"][-3:] = [np.nan, np.inf, -np.inf]
    save_file(bad, tmp_path / "bad.safetensors")
    assert main(["merge", files[0], "bad.safetensors", "-o", "out.safetensors"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "NaN or infinite entries in the average: head (3); of the models: 3 in bad.safetensors." in told
    assert "head (3)" in json.loads(Path("out.merge.json").read_text())["warnings"][0]
    assert (
        main(["merge", files[0], files[2], "bad.safetensors", "-o", "two.safetensors", "--weights", "1", "1", "0"]) == 0
    )
    assert "infinite" not in capsys.readouterr().err
    large = {"w": np.full(3, 3e38, np.float32)}
    for i in range(2):
        save_file(large | {"v": np.full(1, i, np.float32)}, tmp_path / f"large{i}.safetensors")
    save_file({"w": np.full(3, -3e38, np.float32), "v": np.zeros(1, np.float32)}, tmp_path / "minus.safetensors")
    assert (
        main(["merge", "large0.safetensors", "minus.safetensors", "-o", "o.safetensors", "--weights", "3", "-1"]) == 0
    )
    assert "w (3); of the models: none, the average left the range" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_equal_entries_are_taken_bit_for_bit(dtype):
    """As by `np.copyto`, also where bits stand for no number: NaNs keep theirs, a zero its sign."""
    rng = np.random.default_rng(0)
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    values, source = (np.frombuffer(rng.bytes(1000 * kind.itemsize), kind).copy() for _ in range(2))
    source[:2] = np.array([-0.0, np.nan]).astype(kind)
    where = rng.random(1000) < 0.4
    where[:2] = True
    expected = values.copy()
    np.copyto(expected, source, where=where)
    streaming.Blender(np.dtype(np.float32))._take(values, source, where)
    assert values.tobytes() == expected.tobytes()
