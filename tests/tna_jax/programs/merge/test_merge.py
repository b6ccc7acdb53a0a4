"""`tna merge` on real safetensors files: the same bytes as the library's average, anchors bit for bit, nothing half written."""

import json
import os
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tna_jax import masks, weighted_average
from tna_jax.io import tensor_headers
from tna_jax.prng import Stream, stream
from tna_jax.programs.cli.main import main
from tna_jax.programs.merge import run as merge
from tna_jax.programs.merge import streaming
from tna_jax.programs.merge.plan import Output

MODELS = 3


def tensors(seed: int, dtype=np.float32) -> dict[str, np.ndarray]:
    """Two floating-point tensors whose first halves are equal in all models, a scalar, an empty one, and integers."""
    same, own = np.random.default_rng(99), np.random.default_rng(seed)
    made = {}
    for name, shape in (("body.weight", (40, 25)), ("head", (64,))):
        leaf = np.concatenate([draws.normal(size=np.prod(shape) // 2) for draws in (same, own)])
        made[name] = leaf.reshape(shape).astype(dtype)
    return made | {"scale": np.array(own.normal(), dtype), "none": np.zeros((0, 3), dtype), "ids": np.arange(5) + 3}


@pytest.fixture
def files(tmp_path):
    names = [str(tmp_path / f"{i}.safetensors") for i in range(MODELS)]
    for i, name in enumerate(names):
        save_file(tensors(i), name, {"format": "pt"})
    return names


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(streaming, "PIECE", 64)


def fails(capsys, *words: str) -> str:
    assert main(["merge", *words]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "Traceback" not in message
    return message


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


def shard(folder, seed):
    folder.mkdir()
    own = tensors(seed)
    parts = {
        "model-00001-of-00002.safetensors": ["head", "ids"],
        "model-00002-of-00002.safetensors": ["body.weight", "none", "scale"],
    }
    for name, held in parts.items():
        save_file({key: own[key] for key in held}, folder / name, {"format": "pt"})
    where = {key: name for name, held in parts.items() for key in held}
    (folder / tensor_headers.INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"old")


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


def test_every_difference_is_named_and_nothing_is_written(tmp_path, files, capsys):
    odd = tensors(1)
    del odd["scale"]
    odd |= {
        "more": np.zeros(2, np.float32),
        "head": np.zeros((2, 32), np.float32),
        "none": np.zeros((0, 3), np.float16),
    }
    save_file(odd, tmp_path / "odd.safetensors")
    assert main(["merge", *files, str(tmp_path / "odd.safetensors"), "-o", "new/out.safetensors"]) == 2
    message = capsys.readouterr().err
    for part in (
        "differ in 4 places",
        "more is not in",
        "scale is not in",
        "head is [64]",
        "but [2, 32] in",
        "none is F32",
    ):
        assert part in message
    assert not os.path.exists("new")


def test_damaged_files_are_refused(tmp_path, files, capsys):
    whole = Path(files[0]).read_bytes()
    cases = {
        "the file holds 4299": whole[:-1],
        "not a sound safetensors file": b"\x08" + b"\0" * 7 + b"nonsense",
        "its header should take": b"abc",
        "the type 'F31'; known: ": whole.replace(b'"F32"', b'"F31"'),
        "has 256 bytes": whole.replace(b'"shape":[64]', b'"shape":[65]'),
    }
    for i, (message, content) in enumerate(cases.items()):
        assert content != whole
        (tmp_path / f"bad{i}").write_bytes(content)
        assert message in fails(capsys, files[0], str(tmp_path / f"bad{i}"), "-o", "out.safetensors"), message
    shard(tmp_path / "a", 0)
    index = tmp_path / "a" / tensor_headers.INDEX
    index.write_text(index.read_text().replace("model-00001-of-00002", "../0"))
    assert "outside its folder: ../0.safetensors" in fails(
        capsys, files[0], str(tmp_path / "a"), "-o", "out.safetensors"
    )
    index.write_text(json.dumps({"weight_map": {"head": "model-00002-of-00002.safetensors"}}))
    message = fails(capsys, files[0], str(tmp_path / "a"), "-o", "out.safetensors")
    assert "do not agree on these tensors: head, body.weight, none, scale" in message


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("A -o out.safetensors", "two or more models to merge, got 1"),
        ("A B", "--out"),
        ("A B -o A", "exists"),
        ("A B -o A --overwrite", "is one of the models to merge"),
        ("A B -o out --weights 1", "--weights: 1 for 2 models"),
        ("A B -o out --weights 1 -1", "their sum not 0"),
        ("A B -o out --weights 1 nan", "must be finite"),
        ("A B -o out --accumulate float23", "did you mean 'float32'"),
        ("A B -o out --ties kep --evaluate true", "did you mean 'keep'"),
        ("A B -o out --weights 1 1 --evaluate true", "exclude each other"),
        ("A B -o out --ties drop", "--ties drop is for greedy soups: it needs --evaluate COMMAND"),
        (
            "A B -o pytorch_model.bin",
            "only safetensors are written; name a file that ends in .safetensors, or a folder",
        ),
        ("A B gone -o out", "there is no file or folder gone"),
        ("A . -o out", "has neither model.safetensors.index.json nor model.safetensors"),
        ("A B -o out --evaluate false", "--evaluate false"),
        ("A B -o out --evaluate echo", "must print a number in its last line, printed"),
        ("A B -o out --evaluate no-such-command", "no-such-command"),
    ],
)
def test_bad_options_are_answered_in_one_line(files, capsys, words, expected):
    paths = {"A": files[0], "B": files[1]}
    message = fails(capsys, *(paths.get(word, word) for word in words.split()))
    assert expected in message
    assert not os.path.exists("out.safetensors")


def test_a_greedy_soup_is_found_by_a_command_and_leaves_no_candidate(files, tmp_path, capsys):
    """The command scores how near the mean of the head is to that of models 0 and 2 together."""
    goal = float(np.mean([tensors(i)["head"].mean() for i in (0, 2)]))
    script = tmp_path / "score.py"
    script.write_text(
        "import sys\nfrom safetensors.numpy import load_file\n"
        f"print('some talk')\nprint(-abs(float(load_file(sys.argv[1])['head'].mean()) - {goal!r}))\n"
    )
    assert main(["merge", *files, "-o", "out.safetensors", "--evaluate", f"{sys.executable} {script}"]) == 0
    report = json.loads(Path("out.merge.json").read_text())
    assert report["weights"] == [0.5, 0, 0.5]
    assert [step["kept"] for step in report["trail"]].count(True) == 2
    assert report["score"] >= max(step["own"] for step in report["trail"])
    assert "soup with it" in capsys.readouterr().out
    assert sorted(os.listdir()) == sorted(
        [*map(os.path.basename, files), "out.merge.json", "out.merge.scores.json", "out.safetensors", "score.py"]
    )
    assert main(["merge", files[0], files[2], "-o", "two.safetensors"]) == 0
    one, two = load_file("out.safetensors"), load_file("two.safetensors")
    assert all(one[name].tobytes() == two[name].tobytes() for name in ("head", "ids"))


def test_an_interrupted_merge_leaves_nothing(files, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(streaming.os, "fsync", stop)
    assert main(["merge", *files, "-o", "new.safetensors"]) == 130
    assert sorted(os.listdir()) == sorted(map(os.path.basename, files))


def exported(file, values, ratio=0.4, seed=3):
    """A file as `tna export` writes it."""
    about = {"mask": {"kind": "bernoulli", "ratio": ratio, "seed": seed, "where": None}}
    named = {f"params/{layer}/{leaf}": value for layer, held in values.items() for leaf, value in held.items()}
    save_file(named | {"state/norm/mean": np.zeros(4, np.float32)}, file, {"tna_jax": json.dumps(about)})


def test_anchors_named_by_the_files_recipe_are_verified(capsys):
    draws = np.random.default_rng(0)
    start = {"dense": {"kernel": draws.normal(size=(20, 4)).astype(np.float32), "bias": np.zeros(4, np.float32)}}
    mask = masks.bernoulli(stream(3, Stream.RUN_MASK), start, 0.4)

    def trained(leaf, free):
        return np.where(free, leaf + draws.normal(size=leaf.shape).astype(np.float32), leaf)

    for name in ("a", "b"):
        exported(f"{name}.safetensors", jax.tree.map(trained, start, mask))
    assert main(["merge", "a.safetensors", "b.safetensors", "-o", "ab.safetensors"]) == 0
    anchored = sum(int((~m).sum()) for m in jax.tree.leaves(mask))
    assert f"the {anchored} anchors that the files' recipe names" in capsys.readouterr().out
    assert json.loads(Path("ab.merge.json").read_text())["anchors_verified"]["anchored"] == anchored
    moved = jax.tree.map(lambda leaf: leaf + np.float32(1), start)
    exported("moved.safetensors", moved)
    message = fails(capsys, "a.safetensors", "moved.safetensors", "-o", "no.safetensors")
    assert "anchors are shared" in message and "params/dense/kernel (" in message and "params/dense/bias (" in message
    exported("other.safetensors", moved, seed=4)  # another mask: nothing is promised, nothing verified
    assert main(["merge", "a.safetensors", "other.safetensors", "-o", "other_mask.safetensors"]) == 0
    assert json.loads(Path("other_mask.merge.json").read_text())["anchors_verified"] is None


def test_integers_that_differ_are_the_first_models_and_said(tmp_path, capsys):
    for i in range(2):
        save_file({"w": np.ones(2, np.float32) * i, "ids": np.arange(3) + i}, tmp_path / f"{i}.safetensors")
    assert main(["merge", "0.safetensors", "1.safetensors", "-o", "out.safetensors"]) == 0
    assert "0.safetensors's were taken: ids" in capsys.readouterr().err.replace("\n", " ")
    assert load_file("out.safetensors")["ids"].tolist() == [0, 1, 2]


def test_memory_does_not_grow_with_the_files(tmp_path):
    """Buffers are a few pieces, however large a tensor is."""
    blender = streaming.Blender(np.dtype(np.float32))
    save_file({"w": np.ones(10_000, np.float32)}, tmp_path / "w.safetensors")
    held = (tensor_headers.open_checkpoint(str(tmp_path / "w.safetensors")).tensors["w"],) * 2
    for output, first, size in streaming.pieces([Output("w", "F32", held, (1.0, 1.0))]):
        assert len(blender.piece(output, first, size).values) <= 64
    assert sum(buffer.nbytes for buffer in blender.buffers.values()) <= 4 * 64 * 4
    blender.close()
    assert merge.WIDE["float32"] == np.float32


def test_no_input_is_written_over_whatever_its_name(tmp_path, files, capsys):
    (tmp_path / "d").mkdir()
    for i, name in enumerate("ab"):
        save_file(tensors(i), tmp_path / "d" / f"{name}.safetensors")
    for i, name in enumerate("AB"):
        (tmp_path / "e" / name).mkdir(parents=True)
        save_file(tensors(i), tmp_path / "e" / name / tensor_headers.SINGLE)
        (tmp_path / "e" / name / "config.json").write_text(f'{{"of": "{name}"}}')
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "d" / "b.safetensors")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for words, named in (
        (("d/a.safetensors", "d/b.safetensors", "-o", "d"), "d/a.safetensors"),
        (("e/A", "e/B", "-o", "e/A/model.safetensors"), "e/A/model.safetensors"),
        (("e/A", "e/B/model.safetensors", "-o", "e/B"), "e/B/model.safetensors"),
        (("d/a.safetensors", "d/b.safetensors", "-o", "link.safetensors"), "link.safetensors"),
    ):
        message = fails(capsys, *words, "--overwrite")
        assert named in message and ("write over" in message or "one of the models" in message), words
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_model_that_is_named_twice_is_refused(tmp_path, files, capsys):
    (tmp_path / "a").mkdir()
    save_file(tensors(0), tmp_path / "a" / tensor_headers.SINGLE)
    os.link(files[0], tmp_path / "link.safetensors")
    assert f"named more than once: {files[0]};" in fails(capsys, files[0], files[1], files[0], "-o", "out.safetensors")
    for other in ("./0.safetensors", "link.safetensors"):
        assert f"named more than once: {Path(other)} is {files[0]}" in fails(
            capsys, files[0], other, "-o", "o.safetensors"
        )
    assert "a/model.safetensors is a" in fails(capsys, "a", "a/model.safetensors", "-o", "out.safetensors")


def test_every_file_that_cannot_be_merged_is_named(tmp_path, files, capsys):
    (tmp_path / "cut.safetensors").write_bytes(Path(files[0]).read_bytes()[:-1])
    save_file({}, tmp_path / "empty.safetensors")
    message = fails(capsys, files[0], "cut.safetensors", "gone", "empty.safetensors", "-o", "out.safetensors")
    for part in ("cut.safetensors is not a sound", "no file or folder gone", "empty.safetensors holds no tensors"):
        assert part in message


def test_of_many_differences_the_first_are_named_after_what_the_models_are(tmp_path, capsys):
    for name in ("vit", "bert"):
        (tmp_path / name).mkdir()
        held = {f"{name}.{i:02}": np.zeros(1, np.float32) for i in range(20)}
        save_file(held, tmp_path / name / tensor_headers.SINGLE)
        (tmp_path / name / "config.json").write_text(json.dumps({"model_type": name}))
    assert main(["merge", "vit", "bert", "-o", "out"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[0] == "tna merge: vit is a vit, bert is a bert: these are other networks; they differ in 40 places:"
    assert len(lines) == 12 and lines[1] == "  bert.00 is not in vit" and lines[-1] == "  ... and 30 more"


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


def test_a_merge_says_that_it_is_one(capsys):
    draws = np.random.default_rng(0)
    start = {"dense": {"kernel": draws.normal(size=(20, 4)).astype(np.float32)}}
    mask = masks.bernoulli(stream(3, Stream.RUN_MASK), start, 0.4)
    free = jax.tree.map(lambda leaf, m: np.where(m, leaf + np.float32(1), leaf), start, mask)
    config = {"model": "mlp", "dataset": "digits", "epochs": 3, "seed": 3, "ratio": 0.4}

    def write(file, values, seed=3, order=0, **other):
        recipe = {"kind": "bernoulli", "ratio": 0.4, "seed": seed, "where": None}
        told = {"seed": seed, "ratio": 0.4, "method": "tna", "start": 0, "order": order}
        about = {"format": 1, "config": config | other, "model": told, "mask": recipe, "checkpoint": 3}
        held = {f"params/dense/{leaf}": value for leaf, value in values["dense"].items()}
        save_file(held, file, {"tna_jax": json.dumps(about), "format": "pt", "title": str(order)})

    def merged(*names):
        assert main(["merge", *names, "-o", "out.safetensors", "--overwrite"]) == 0
        metadata = tensor_headers.read_header(Path("out.safetensors"))[1]
        assert metadata["format"] == "pt" and "title" not in metadata
        assert json.loads(metadata["tna_merge"])["models"] == list(names)
        return json.loads(metadata["tna_jax"]) if "tna_jax" in metadata else None

    write("a", start)
    write("b", free, order=1, epochs=4)
    write("c", start, seed=4, order=2)
    write("d", start, order=3, dataset="mnist")
    about = merged("a", "b")  # the anchors are the same in both: the merge has them
    assert about["mask"] == {"kind": "bernoulli", "ratio": 0.4, "seed": 3, "where": None}
    assert about["model"] == {
        "merged": ["a", "b"], "weights": [0.5, 0.5], "seed": 3, "ratio": 0.4, "method": "tna", "start": 0,
    }  # fmt: skip
    assert about["config"] == {"model": "mlp", "dataset": "digits", "seed": 3, "ratio": 0.4}
    about = merged("a", "c")  # other anchors: no recipe, no seed
    assert about["mask"] is None and about["model"] == {"merged": ["a", "c"], "weights": [0.5, 0.5]}
    assert about["config"] == {"model": "mlp", "dataset": "digits", "epochs": 3}
    assert merged("a", "d") is None  # of other data: nothing that `tna import` could read
    capsys.readouterr()
    assert main(["import", "out.safetensors"]) == 2
    assert "a merge of models that are not all exports of one network and data" in capsys.readouterr().err


def test_a_merged_folder_has_a_record_of_its_own(tmp_path):
    for i, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        save_file(tensors(i), tmp_path / name / tensor_headers.SINGLE)
        for file in ("config.json", "README.md"):
            (tmp_path / name / file).write_text("{}")
        (tmp_path / name / "pretraining.json").write_text(json.dumps({"in_words": f"seed {i}", "seed": i}))
    assert main(["merge", "a", "b", "-o", "ab", "--weights", "3", "1"]) == 0
    assert sorted(os.listdir("ab")) == [
        "README.md",
        "config.json",
        "merge.json",
        "model.safetensors",
        "pretraining.json",
    ]
    record = json.loads(Path("ab/pretraining.json").read_text())
    assert record["in_words"] == "a merge of a, b" and "seed" not in record
    assert [one["pretraining"]["seed"] for one in record["merged"]] == [0, 1]
    assert [one["weight"] for one in record["merged"]] == [0.75, 0.25]
