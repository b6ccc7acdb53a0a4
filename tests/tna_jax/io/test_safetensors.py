"""Safetensors files: round trips in every framework, exports and imports of runs, and files that a stranger made."""

import json
import shutil
import struct
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from tna_jax import masks, models
from tna_jax import trees as tree_paths
from tna_jax.io import restore, safetensors, tensor_headers
from tna_jax.io.errors import UsageError
from tna_jax.prng import Stream, stream
from tna_jax.programs.cli.main import main


def raw(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8), **more) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


SOUND = raw(
    {"__metadata__": {"a": "b"}, "x": entry(), "y": entry("BF16", (3, 1), (8, 14)), "z": entry("BOOL", (), (14, 15))},
    b"\1" * 15,
)


def refused(file: Path, data: bytes) -> str:
    file.write_bytes(data)
    with pytest.raises(UsageError) as error:
        safetensors.read(file)
    assert "\n" not in str(error.value)
    assert file.read_bytes() == data
    return str(error.value)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "its header should take 0 bytes, the file has 0"),
        (SOUND[:40], "its header should take"),
        (SOUND[:-1], "its arrays take 15 bytes, the file holds 14"),
        (SOUND + b"\0", "its arrays take 15 bytes, the file holds 16"),
        (raw({}, length=2**63), "its header should take 9223372036854775808 bytes"),
        (raw(b"[" * 500_000), "nested too deeply"),
        (raw(b"\xff{}"), "can't decode"),
        (raw([]), "is not a JSON object"),
        (raw({"x": 3}), "'x' must have dtype, shape, data_offsets"),
        (raw({"x": entry(extra=1)}, bytes(8)), "nothing else"),
        (raw({"x": entry("F33")}, bytes(8)), "the type 'F33'; known"),
        (raw({"x": entry(["F32"])}, bytes(8)), "'x' must have"),
        (raw({"x": entry(shape=(-2,))}, bytes(8)), "impossible shape"),
        (raw({"x": entry(shape=(2.0,))}, bytes(8)), "impossible shape"),
        (raw({"x": entry(shape=(True, 2))}, bytes(8)), "impossible shape"),
        (raw({"x": entry(shape=(2**47,) * 3)}, bytes(8)), "'x' has 8 bytes of data"),
        (raw({"x": entry(offsets=(8, 0))}, bytes(8)), "'x' has -8 bytes of data"),
        (raw({"x": entry(), "y": entry(offsets=(4, 12))}, bytes(12)), "'y' begins at byte 4 of the data, where 8"),
        (raw({"x": entry(), "y": entry(offsets=(9, 17))}, bytes(17)), "'y' begins at byte 9 of the data, where 8"),
        (raw(b'{"x":%b,"x":%b}' % ((json.dumps(entry()).encode(),) * 2), bytes(8)), "named more than once: 'x'"),
        (raw({"__metadata__": {"a": 1}, "x": entry()}, bytes(8)), "metadata must be text"),
        (raw(b'{"x":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', bytes(8)), "NaN is not a number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "file",
)  # fmt: skip
def test_hostile_files_are_refused_in_one_line(tmp_path, data, expected):
    assert expected in refused(tmp_path / "file", data)


def test_a_sound_file_is_read_as_the_reference_reads_it(tmp_path):
    (tmp_path / "file").write_bytes(SOUND)
    arrays, metadata = safetensors.read(tmp_path / "file")
    assert metadata == {"a": "b"}
    assert {n: (a.shape, str(a.dtype)) for n, a in arrays.items()} == {
        "x": ((2,), "float32"), "y": ((3, 1), "bfloat16"), "z": ((), "bool"),
    }  # fmt: skip
    assert arrays["x"].tobytes() == b"\1" * 8
    rng = np.random.default_rng(0)
    given = {str(kind): rng.integers(0, 2, (2, 3)).astype(kind) for kind in tensor_headers.DTYPES.values()}
    given["scalar"], given["empty"] = np.float32(3), np.zeros((0, 4), np.int32)
    given["turned"] = rng.normal(size=(3, 5)).T
    safetensors.write(tmp_path / "all", given, {"k": "v"})
    found = safetensors.read(tmp_path / "all")[0]
    assert {n: (a.dtype, a.shape, a.tobytes()) for n, a in found.items()} == {
        n: (np.asarray(a).dtype, np.shape(a), np.asarray(a).tobytes()) for n, a in given.items()
    }
    safetensors.write(tmp_path / "plain", {n: a for n, a in given.items() if np.asarray(a).dtype.isbuiltin == 1})
    for name, array in load_file(tmp_path / "plain").items():  # the reference
        assert array.tobytes() == np.asarray(given[name]).tobytes() and array.shape == np.shape(given[name])
    with pytest.raises(UsageError, match=r"keys cannot be kept .*jax.random.key_data of k"):
        safetensors.write(tmp_path / "k.safetensors", {"k": jax.random.key(0)})
    with pytest.raises(UsageError, match=r"metadata .* are texts, these are not: step \(int\)"):
        safetensors.write(tmp_path / "k.safetensors", {}, {"step": 3})
    with pytest.raises(UsageError, match=r"cannot be kept.*c \(complex128\)"):
        safetensors.write(tmp_path / "no", {"c": np.zeros(2, complex)})
    assert not (tmp_path / "no").exists()


class Layer(eqx.Module):
    weight: jax.Array
    bias: jax.Array


def trees() -> dict:
    linen = models.create("mlp", num_classes=3, depth=1, width=4).init(jax.random.key(0), jnp.zeros((1, 5)))["params"]
    boxed = nnx.state(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.Param)
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), linen)
    return {"linen": linen, "bfloat16": low, "nnx": boxed, "equinox": Layer(jnp.arange(6.0).reshape(2, 3), jnp.ones(2))}


@pytest.mark.parametrize("name", ["linen", "bfloat16", "nnx", "equinox"])
def test_every_framework_gets_its_tree_back(tmp_path, name):
    tree = trees()[name]
    safetensors.save(tmp_path / "file", {"params": tree})
    found = safetensors.load(tmp_path / "file", jax.tree.map(jnp.zeros_like, tree), part="params")
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    for old, new in zip(jax.tree.leaves(tree), jax.tree.leaves(found), strict=True):
        assert old.dtype == new.dtype and np.asarray(old).tobytes() == np.asarray(new).tobytes()
    shapes = jax.eval_shape(lambda: tree)
    assert (
        tree_paths.named_leaves(safetensors.load(tmp_path / "file", shapes, part="params"))[0][0]
        == tree_paths.named_leaves(tree)[0][0]
    )


def test_what_does_not_fit_is_listed_whole(tmp_path):
    safetensors.write(
        tmp_path / "file", {"a/w": np.zeros((2, 3), np.float32), "a/b": np.zeros(2), "c": np.zeros(1), "d": np.zeros(1)}
    )
    like = {"a": {"w": np.zeros((3, 2), np.float32), "b": np.zeros(2, np.float32)}, "e": np.zeros(1), "f": np.zeros(1)}
    with pytest.raises(UsageError) as error:
        safetensors.load(tmp_path / "file", like)
    for part in (
        "missing: e, f", "too many: c, d", "a/w (float32 [2, 3] instead of float32 [3, 2])",
        "a/b (float64 [2] instead of float32 [2])",
    ):  # fmt: skip
        assert part in str(error.value)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("export") / "run"
    words = [
        "--width",
        "8",
        "--depth",
        "1",
        "--members",
        "3",
        "--train-examples",
        "100",
        "--epochs",
        "1",
        "--ratio",
        "0.5",
    ]
    assert main(["train", *words, "--out", str(out), "--where", "kernel"]) == 0
    return out


def fails(capsys, *words: str) -> str:
    capsys.readouterr()
    assert main(list(words)) == 2
    *before, printed = capsys.readouterr().err.strip().splitlines()
    assert printed.startswith("tna ") and not any("Traceback" in line for line in before), before
    return printed


@pytest.mark.slow
def test_a_model_goes_out_and_comes_back(run, tmp_path, capsys):
    for i in (1, 2):
        assert main(["export", str(run), "--model", str(i), "-o", f"m{i}.safetensors"]) == 0
    assert "too" not in fails(capsys, "export", str(run), "--model", "1", "-o", "m1.safetensors")
    arrays, metadata = safetensors.read("m1.safetensors")
    saved = restore.arrays(run / "checkpoints", 1)
    assert set(arrays) == {
        "params/Dense_0/bias",
        "params/Dense_0/kernel",
        "params/Dense_1/bias",
        "params/Dense_1/kernel",
    }
    for name, array in arrays.items():
        assert array.tobytes() == saved[name][1].tobytes()
    about = json.loads(metadata["tna_jax"])
    assert about["mask"] == {"kind": "bernoulli", "ratio": 0.5, "seed": 0, "where": "kernel", "soft": None}
    # the recipe gives the anchors, which members share
    recipe, params = (
        about["mask"],
        safetensors.load("m1.safetensors", jax.eval_shape(lambda: trees_like(arrays)), "params"),
    )
    mask = masks.bernoulli(stream(recipe["seed"], Stream.RUN_MASK), params, recipe["ratio"], recipe["where"])
    other = safetensors.load("m2.safetensors", params, "params")
    for m, a, b in zip(*map(jax.tree.leaves, (mask, params, other)), strict=True):
        frozen = ~np.asarray(m)
        assert np.asarray(a)[frozen].tobytes() == np.asarray(b)[frozen].tobytes()
        assert not np.array_equal(a, b)
    assert main(["import", "m1.safetensors", "m2.safetensors", "--out", "imported"]) == 0
    again = restore.arrays(Path("imported/checkpoints").absolute(), 1)
    assert {n: a.tobytes() for n, a in again.items()} == {n: saved[n][1:].tobytes() for n in again}
    assert main(["barrier", "imported", "--alphas", "3"]) == 0
    assert main(["barrier", str(run), "--alphas", "3", "--pairs", "1-2"]) == 0
    one, two = (json.loads((folder / "barrier.json").read_text())["rows"] for folder in (run, Path("imported")))
    assert [row["loss_path"] for row in one] == [row["loss_path"] for row in two]
    assert "imported holds imported models, which do not train" in fails(capsys, "resume", "imported")


def trees_like(arrays: dict) -> dict:
    tree: dict = {}
    for name, array in arrays.items():
        _, layer, leaf = name.split("/")
        tree.setdefault(layer, {})[leaf] = jnp.asarray(array)
    return tree


@pytest.mark.parametrize(
    ("change", "words", "expected"),
    [
        (None, "export RUN", "has 3 models: choose one with --model, 0 to 2"),
        (None, "export RUN --model 3", "--model must lie in 0 to 2, got 3"),
        (None, "export RUN --model 0 -o gone/file", "there is no folder gone"),
        (None, "export gone", "gone is not a run folder"),
        (None, "import gone.safetensors", "cannot read gone.safetensors: No such file"),
        (("plan.json", lambda plan: {**plan, "models": 3}), "export RUN --model 0", "models must be a list"),
        (("plan.json", lambda plan: {**plan, "models": [1]}), "barrier RUN", "models must be a list"),
        (("plan.json", lambda plan: {**plan, "models": plan["models"][:2]}), "export RUN --model 0", "params/Dense_0/kernel [3, 64, 8]"),
        (("plan.json", lambda plan: {**plan, "at_once": "1"}), "resume RUN", "at_once must be a number above 0"),
        (("plan.json", lambda plan: []), "barrier RUN", "expected a JSON object, found list"),
        (("config.json", lambda c: {**c, "format": 2}), "resume RUN", "has format 2, this version reads up to 1"),
        (("config.json", lambda c: {**c, "format": "1"}), "barrier RUN", "format is '1', expected a number"),
        (("config.json", lambda c: {**c, "width": "wide"}), "barrier RUN", "wide"),
        (("config.json", lambda c: {**c, "width": 9}), "barrier RUN", "params/Dense_0/kernel (float32 [3, 64, 8] instead of float32 [3, 64, 9])"),
        (("config.json", lambda c: {**c, "width": {"a": 1}}), "resume RUN", 'width cannot be {"a": 1}'),
        (("config.json", lambda c: {**c, "program": "trian"}), "resume RUN", "did you mean 'train'"),
        (("config.json", lambda c: {**c, "program": 3}), "resume RUN", "does not name the program"),
        (("config.json", lambda c: {**c, "started_with": {"out": "x"}}), "resume RUN", "started_with must hold options among"),
        (("config.json", lambda c: {**c, "epochs": 2, "depth": 2}), "train --out RUN --resume", "depth was 2"),
    ],
)  # fmt: skip
def test_runs_with_wrong_contents_are_refused_in_one_line(run, tmp_path, capsys, change, words, expected):
    shutil.copytree(run, "copy")
    if change is not None:
        file = Path("copy") / change[0]
        file.write_text(json.dumps(change[1](json.loads(file.read_text()))))
    before = {path: path.read_bytes() for path in Path("copy").rglob("*") if path.is_file() and path.name != ".lock"}
    assert expected in fails(capsys, *words.replace("RUN", "copy").split())
    assert before == {
        path: path.read_bytes() for path in Path("copy").rglob("*") if path.is_file() and path.name != ".lock"
    }


BASE = np.arange(24, dtype=np.float32).reshape(4, 6)


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(BASE), BASE.T, BASE[::-2, ::-3], np.broadcast_to(np.float32(3), (2, 3)), np.array(3, np.float32), BASE[:0],
        BASE.astype(">f4"), np.asfortranarray(BASE.astype(">f8")), np.array([2**40 + 3, -5], ">i8"), np.array([2**63 + 1], np.uint64),
        np.asarray(jnp.asarray(BASE, jnp.bfloat16)).T, np.array([1 + 1e-12]), np.array([True, False])[::-1],
    ],
)  # fmt: skip
def test_an_array_of_any_layout_comes_back_as_it_was(tmp_path, array):
    safetensors.save(tmp_path / "a", {"x": array})
    back = safetensors.load(tmp_path / "a", like={"x": np.empty(array.shape, array.dtype.newbyteorder("="))})["x"]
    assert isinstance(back, np.ndarray) and back.dtype == array.dtype.newbyteorder("=")
    assert back.shape == array.shape and back.tolist() == array.tolist()


def test_what_jax_would_cut_to_32_bits_is_refused_by_name(tmp_path):
    tree = {"steps": np.array([2**40 + 3]), "w": np.array([1 + 1e-12]), "fine": np.ones(1, np.float32)}
    safetensors.save(tmp_path / "a", tree)
    like = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in tree.items()}
    with pytest.raises(UsageError, match=r"fewer bits: steps \(int64\), w \(float64\); set jax_enable_x64"):
        safetensors.load(tmp_path / "a", like=like)


def test_numbers_have_no_types_by_which_a_file_could_be_read(tmp_path):
    safetensors.write(tmp_path / "a.safetensors", {"w": np.ones(2, np.float32), "rate": np.float32(1)})
    with pytest.raises(UsageError, match="leaves of `like` must be arrays or shapes .*: rate, scale$"):
        safetensors.load(tmp_path / "a.safetensors", {"w": np.ones(2, np.float32), "rate": 1.0, "scale": "x"})


@pytest.mark.parametrize("name", ["__metadata__", "\ud800"])
def test_names_that_the_format_cannot_hold_are_refused(tmp_path, name):
    with pytest.raises(UsageError, match="no array can be called so"):
        safetensors.write(tmp_path / "a", {name: BASE})
    assert not (tmp_path / "a").exists()


def test_two_paths_of_one_name_are_refused(tmp_path):
    with pytest.raises(UsageError, match="several leaves would be called a/b"):
        safetensors.save(tmp_path / "a", {"a": {"b": BASE}, "a/b": BASE})
