"""`tna merge --method`: the same values as the library's functions on trees, streamed; what options say of single tensors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.parameters import slow_but
from tests.tna_jax.programs.merge.folders import BASE, HEAD, folder, tensors
from tests.tna_jax.programs.merge.running import MODELS, refused, run
from tna_jax import merging
from tna_jax.io import tensor_headers
from tna_jax.merging.methods import METHODS
from tna_jax.programs.cli.choices import MergingMethod
from tna_jax.programs.cli.main import main
from tna_jax.programs.merge.options import FACTORS

pytestmark = pytest.mark.usefixtures("checkpoints")


def test_the_options_name_the_methods_of_the_library():
    assert list(METHODS) == list(MergingMethod.__args__)
    assert set(FACTORS) == {name for name, method in METHODS.items() if not method.normalized}


@pytest.mark.parametrize("name", slow_but(["ties", "dare_linear", "slerp"], list(METHODS)))
@pytest.mark.parametrize("scope", ["tensor", "model"])
def test_a_method_gives_what_the_library_gives(name, scope):
    method = METHODS[name]
    models = MODELS[:2] if method.max_models == 2 else MODELS
    base = tensors(3) if method.needs_base else None
    expected = merging.merge(name, [tensors(i) for i in range(len(models))], base, scope=scope)
    merged = run(*models, "--method", name, *(["--base", "base"] if base else []), "--scope", scope)
    for key in (BASE, HEAD):
        np.testing.assert_allclose(merged[key], expected[key], rtol=1e-6, atol=1e-7)
        assert (merged[BASE][0] == 1.5).all()  # what all models and the base share


def test_options_of_a_method_enter_and_stand_in_the_report():
    words = [
        *MODELS,
        "--base",
        "base",
        "--method",
        "ties",
        "--method-options",
        "density=0.5",
        "strength=0.3",
        "--weights",
        "2",
        "1",
        "1",
    ]
    merged = run(*words)
    expected = merging.merge("ties", [tensors(i) for i in range(3)], tensors(3), [2, 1, 1], density=0.5, strength=0.3)
    np.testing.assert_allclose(merged[HEAD], expected[HEAD], rtol=1e-6)
    assert merged[HEAD].tobytes() == run(*words)[HEAD].tobytes()
    report = json.loads(next(Path().glob("out*/merge.json")).read_text())
    assert report["method"] == "ties" and report["method_options"]["density"] == 0.5 and report["base"] == "base"
    assert report["weights"] == [0.5, 0.25, 0.25]


def test_draws_of_dare_are_the_same_whatever_the_shards(tmp_path):
    words = ["--base", "base", "--method", "dare_linear", "--method-options", "density=0.5", "seed=3"]
    one = run(*MODELS, *words)
    folder(tmp_path / "sharded", 0, shards=2)
    assert main(["merge", "sharded", "b", "c", *words, "-o", "parts"]) == 0
    two = {key: value for file in Path("parts").glob("*.safetensors") for key, value in load_file(file).items()}
    assert all(one[key].tobytes() == two[key].tobytes() for key in (BASE, HEAD))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("a b --method ties", "ties needs the base"),
        ("a b --method slerp --method-options density=1", "slerp has no option density"),
        ("a b c --method slerp", "slerp merges 2 models, got 3"),
        ("a b --base base --method ties --method-options density=0", "density must be in (0, 1], got 0"),
        ("a b --method tise", "did you mean 'ties'"),
        ("a b --base base --method ties --evaluate true", "not with --method"),
        ("a b --only nothing$", "no tensor is called so: --only 'nothing$'"),
        ("a b --skip [", "--skip must be regular expressions"),
        ("a b --weight layer=1", "--weight 'layer': 1 for 2 models"),
        (
            "gone b --method slerp --weights -0.5 1.5",
            "--weights: slerp stays between the models: its weights must not be negative",
        ),
        ("gone b --method slerp --weight layer=1.2,-0.2", "--weight 'layer': slerp stays between"),
        ("a b --weight layer", "must be written 'REGEX=0.7 0.3'"),
        ("a b --shard-size 5", "must be a size such as 5GB"),
        ("a b --evaluate-minutes 3", "--evaluate-minutes does nothing without --evaluate"),
        ("--recipe gone.yml a", "leave out MODEL"),
    ],
)
def test_bad_options_are_answered_in_a_line(capsys, words, expected):
    assert expected in refused(capsys, *words.split())


def test_tensors_of_a_pattern_are_merged_and_all_others_copied(capsys):
    a, b, base = tensors(0), tensors(1), tensors(3)
    merged = run("a", "b", "--only", r"^bert\.")
    assert merged[HEAD].tobytes() == a[HEAD].tobytes()
    np.testing.assert_allclose(merged[BASE], (a[BASE] + b[BASE]) / 2, rtol=1e-6)
    merged = run("a", "b", "--skip", "classifier", "--base", "base")
    assert merged[HEAD].tobytes() == base[HEAD].tobytes()
    merged = run("a", "b", "--weight", r"^bert=0.7 0.3", "classifier=0 1")
    assert merged[HEAD].tobytes() == b[HEAD].tobytes()
    np.testing.assert_allclose(merged[BASE], 0.7 * a[BASE] + 0.3 * b[BASE], rtol=1e-6)


def test_heads_that_differ_may_stay_out(tmp_path):
    folder(tmp_path / "other", 7, held=tensors(7) | {HEAD: np.zeros((5, 8), np.float32)}, id2label=None, label2id=None)
    merged = run("a", "other", "--skip", "classifier", "--allow-different", "id2label")
    assert merged[HEAD].tobytes() == tensors(0)[HEAD].tobytes()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_models_of_two_dtypes_merge_in_the_dtype_that_is_named(tmp_path, capsys, dtype):
    folder(tmp_path / "half", 1, held=tensors(1, dtype=np.float16))
    assert "is F32 in a but F16 in half; --dtype says in which one to write" in refused(capsys, "a", "half")
    assert main(["merge", "a", "half", "--dtype", dtype, "-o", "out"]) == 0
    held = tensor_headers.open_checkpoint("out").tensors[HEAD]
    wide = np.float64 if dtype == "float64" else np.float32
    exact = (tensors(0)[HEAD].astype(wide) + tensors(1, dtype=np.float16)[HEAD].astype(wide)) / 2
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    assert held.dtype == kind
    np.testing.assert_allclose(
        held.read().astype(np.float64), exact.astype(np.float64), rtol=2 * float(ml_dtypes.finfo(kind).eps) + 1e-7
    )


def test_shards_of_a_size(tmp_path):
    assert main(["merge", "a", "b", "-o", "out", "--shard-size", "0.3kB"]) == 0
    index = json.loads(Path("out", tensor_headers.INDEX).read_text())
    assert set(index["weight_map"].values()) == {f"model-0000{i}-of-00002.safetensors" for i in (1, 2)}
    assert index["metadata"]["total_size"] == 320 and not Path("out/model.safetensors").exists()
    one = tensor_headers.open_checkpoint("out")
    assert set(one.tensors) == {BASE, HEAD} and Path("out/config.json").exists()
    assert main(["merge", "out", "a", "-o", "again", "--shard-size", "1GB"]) == 0
    assert Path("again/model.safetensors").exists() and not Path("again", tensor_headers.INDEX).exists()


def test_a_dry_run_checks_everything_and_writes_nothing(capsys):
    before = sorted(os.listdir())
    assert main(["merge", "a", "b", "-o", "out", "--dry-run", "--skip", "classifier"]) == 0
    said = capsys.readouterr().out
    assert sorted(os.listdir()) == before
    for part in (BASE, "8x8", "F32", "copied", "2 tensors, 320 bytes in 1 file", "of memory", "nothing was written"):
        assert part in said
    assert main(["merge", "a", "gone", "-o", "out", "--dry-run"]) == 2


def test_tied_heads_and_integer_buffers_do_not_stop_a_merge(tmp_path, capsys):
    def held(seed, more):
        embedding = tensors(seed)[BASE]
        return {"embed.weight": embedding, "other.weight": 2 * embedding} | more(embedding)

    folder(tmp_path / "x", 0, held=held(0, lambda e: {"lm_head.weight": e, "position_ids": np.arange(4)}))
    folder(tmp_path / "y", 1, held=held(1, lambda e: {}))
    merged = run("x", "y")
    assert merged["lm_head.weight"].tobytes() == merged["embed.weight"].tobytes()
    assert merged["position_ids"].tolist() == [0, 1, 2, 3]
    told = " ".join(capsys.readouterr().err.split())
    assert (
        "lm_head.weight is embed.weight (tied); only x write it twice" in told
        and "position_ids is an integer buffer" in told
    )
    folder(tmp_path / "z", 2, held=held(2, lambda e: {"lm_head.weight": -e}))
    assert "lm_head.weight is not in y" in refused(capsys, "z", "y")


def test_a_candidate_without_a_score_is_left_out_and_scores_are_kept(tmp_path):
    script = tmp_path / "score.py"
    script.write_text(
        "import sys, time\nfrom pathlib import Path\np = Path(sys.argv[1])\n"
        "if p.name == 'c': time.sleep(60)\nif p.name == 'b': sys.exit('no memory')\nprint(len(p.name))\n"
    )
    words = ["--evaluate", f"{sys.executable} {script}", "--evaluate-minutes", "0.02"]
    assert main(["merge", *MODELS, "base", "-o", "out", *words]) == 0
    report = json.loads(Path("out/merge.json").read_text())
    assert [bool(weight) for weight in report["weights"]] == [True, False, False, True]
    assert "b was left out" in " ".join(report["warnings"]) and "longer than 0.02 minutes" in " ".join(
        report["warnings"]
    )
    scores = {entry["candidate"]: entry["score"] for entry in json.loads(Path("out.scores.json").read_text())["scores"]}
    assert scores["a"] == 1 and scores["b"] is None and scores["c"] is None and any("soup" in name for name in scores)


def test_a_merge_of_files_loads_no_jax():
    """Half of the time of a small merge was its start."""
    code = (
        "import sys; from tna_jax.programs.cli.main import main; assert main(['merge', 'a', 'b', '-o', 'out']) == 0; "
        "print([name for name in ('jax', 'flax', 'optax', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_what_is_said_twice_to_load_no_jax_is_the_same():
    from tna_jax.programs.merge import metadata
    from tna_jax.programs.training import backbone
    from tna_jax.programs.training.initial_models import ModelSpec

    assert metadata.PRETRAINING == backbone.ABOUT and ModelSpec._fields == metadata.OF_MODEL
