"""`tna merge --method`: the same values as the library's functions on trees, streamed; what options say of single tensors; recipes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.parameters import slow_but
from tests.tna_jax.programs.merge.folders import BASE, HEAD, folder, tensors
from tna_jax import merging
from tna_jax.io import tensor_headers
from tna_jax.merging.methods import METHODS
from tna_jax.programs.cli.choices import MergingMethod
from tna_jax.programs.cli.main import main
from tna_jax.programs.merge.options import FACTORS

MODELS = ("a", "b", "c")


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate((*MODELS, "base")):
        folder(tmp_path / name, i)


def run(*words: str) -> dict[str, np.ndarray]:
    out = f"out{len(os.listdir())}"
    assert main(["merge", *words, "-o", out]) == 0
    return load_file(f"{out}/model.safetensors")


def refused(capsys, *words: str) -> str:
    assert main(["merge", *words, "-o", "out"]) == 2 and not Path("out").exists()
    return " ".join(capsys.readouterr().err.split())


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
        ("a b --evaluate-minutes 3", "it needs --evaluate COMMAND"),
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


RECIPE = """
merge_method: ties
base_model: base
models:
  - model: base
  - model: a
    parameters: {weight: 2, density: 0.5}
  - model: b
    parameters:
      weight: 1
      density: 0.5
parameters:
  normalize: true
  lambda: 0.3
dtype: float32
"""


def test_a_recipe_of_mergekit_is_followed(tmp_path):
    Path("r.yml").write_text(RECIPE)
    assert main(["merge", "--recipe", "r.yml", "-o", "out"]) == 0
    expected = merging.merge("ties", [tensors(0), tensors(1)], tensors(3), [2, 1], density=0.5, strength=0.3)
    np.testing.assert_allclose(load_file("out/model.safetensors")[HEAD], expected[HEAD], rtol=1e-6)
    Path("s.yml").write_text(
        "{merge_method: slerp, base_model: a, models: [{model: a}, {model: b}], parameters: {t: 0.25}}"
    )
    assert main(["merge", "--recipe", "s.yml", "-o", "arc"]) == 0
    expected = merging.merge("slerp", [tensors(0), tensors(1)], None, [0.75, 0.25])
    np.testing.assert_allclose(load_file("arc/model.safetensors")[HEAD], expected[HEAD], rtol=1e-6)


@pytest.mark.parametrize("t", ["1.5", "-0.25", ".nan"])
def test_a_recipe_of_slerp_stays_between_its_models(capsys, t):
    Path("s.yml").write_text(
        f"merge_method: slerp\nbase_model: gone\nmodels: [{{model: gone}}, {{model: b}}]\nparameters:\n  t: {t}\n"
    )
    said = refused(capsys, "--recipe", "s.yml")
    assert f"line 5: t must lie in [0, 1], got {t.strip('.')}: slerp" in said and "linear and task_arithmetic" in said


@pytest.mark.parametrize("t", [0, 1])
def test_the_ends_of_a_recipe_of_slerp_are_its_models(t):
    Path("s.yml").write_text(
        f"{{merge_method: slerp, base_model: a, models: [{{model: a}}, {{model: b}}], parameters: {{t: {t}}}}}"
    )
    assert run("--recipe", "s.yml")[HEAD].tobytes() == tensors(t)[HEAD].tobytes()


def test_what_a_recipe_asks_and_cannot_be_done_is_named_with_its_line(capsys):
    text = RECIPE.replace("merge_method: ties", "merge_method: tied\nslices: []").replace("weight: 2", "weight: [0, 1]")
    Path("r.yml").write_text(
        text.replace("normalize: true", "chat: 3").replace("dtype: float32", "dtype: int4\ntokenizer_source: union")
    )
    message = refused(capsys, "--recipe", "r.yml")
    for part in ("line 3: slices is not among", "'tied' is not among linear", "line 8: weight must be one number", "line 14: chat is not",
                 "line 16: dtype must be", "line 17: a tokenizer is never built anew"):  # fmt: skip
        assert part in message, (part, message)
    for text, words in (
        ("[1]", "must be a mapping"),
        ("a: [", "is not YAML"),
        ("merge_method: ties", "must be a list of"),
    ):
        Path("bad.yml").write_text(text)
        assert words in refused(capsys, "--recipe", "bad.yml")
    Path("odd.yml").write_text(
        "{merge_method: task_arithmetic, base_model: d, models: [{model: a, parameters: {weight: true}}, {model: b}], parameters: {weight: [0, 1]}}"
    )
    assert refused(capsys, "--recipe", "odd.yml").count("weight must be one number") == 2


def of_mergekit(method: str, parameters: str = "", each: str = "", models: str = "a b", base: str = "base") -> Path:
    lines = [f"merge_method: {method}", f"base_model: {base}", "dtype: float32", "models:"]
    lines += [
        line for name in models.split() for line in (f"  - model: {name}", f"    parameters: {{weight: 1{each}}}")
    ]
    file = Path("theirs.yml")
    file.write_text("\n".join([*lines, f"parameters: {{{parameters}}}", ""]))
    return file


@pytest.mark.parametrize(
    ("method", "parameters", "each", "options"),
    [
        ("ties", "", "", {"density": 1.0}),
        ("dare_linear", "", "", {"density": 1.0, "strength": 1.0}),
        ("dare_ties", "normalize: true, rescale: true", ", density: 0.5", {"density": 0.5}),
        ("breadcrumbs", "", "", {"density": 1.0, "gamma": 0.0, "strength": 1.0}),
        ("breadcrumbs", "density: 0.8", "", {"density": 0.8, "gamma": 0.01, "strength": 1.0}),
        ("della_linear", "", "", {"density": 1.0, "epsilon": 0.0, "strength": 1.0}),
        ("della_linear", "", ", density: 0.5", {"density": 0.5, "epsilon": 0.3, "strength": 1.0}),
        ("della", "epsilon: 0.05, lambda: 0.5", ", density: 0.5", {"density": 0.5, "epsilon": 0.1, "strength": 0.5}),
        ("sce", "", "", {"density": 1.0}),
        ("sce", "select_topk: 0.3", "", {"density": 0.3}),
    ],
)
def test_a_recipe_means_what_it_means_to_mergekit(method, parameters, each, options):
    """Where it says nothing mergekit's defaults hold: density and select_topk 1, epsilon 0.15, half of ours."""
    merged = run("--recipe", str(of_mergekit(method, parameters, each)))
    expected = merging.merge(method, [tensors(0), tensors(1)], tensors(3), [1, 1], **options)
    for key in (BASE, HEAD):
        np.testing.assert_allclose(merged[key], expected[key], rtol=1e-6, atol=1e-7)


def test_a_recipe_whose_base_is_no_start_but_a_model_keeps_it_one():
    merged = run("--recipe", str(of_mergekit("karcher", models="a base b")))
    expected = merging.merge("karcher", [tensors(0), tensors(3), tensors(1)])
    np.testing.assert_allclose(merged[HEAD], expected[HEAD], rtol=1e-6, atol=1e-7)
    merged = run("--recipe", str(of_mergekit("slerp", "t: 0.25", models="b", base="a")))
    expected = merging.merge("slerp", [tensors(0), tensors(1)], None, [0.75, 0.25])
    np.testing.assert_allclose(merged[HEAD], expected[HEAD], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("method", "parameters", "each", "words"),
    [
        ("dare_ties", "", "", "mergekit does only with normalize: true"),
        ("della", "rescale: false", "", "line 9: della always rescales"),
        ("ties", "rescale: true", "", "line 9: ties never rescales"),
        ("ties", "", ", density: 0.5, density: 0.2", "line 6: density stands there again, after line 6"),
        ("ties", "epsilon: 0.1", "", "epsilon is not known to ties"),
        ("sce", "density: 0.5", "", "density is not known to sce"),
        ("task_arithmetic", "", ", density: 0.5", "density is not known to task_arithmetic"),
        ("linear", "t: 0.5", "", "t is not known to linear"),
        ("slerp", "", "", "slerp needs t"),
        ("slerp", "t: 0.5", "", "line 2: slerp begins at base_model"),
        ("linear", "1: 2", "", "line 9: 1 must be the name of an entry"),
        ("linear}\nmodels: {", "", "", "is not YAML"),
        ("linear\nmerge_method: ties", "", "", "line 2: merge_method stands there again, after line 1"),
        ("linear", "}\nparameters: [1] # {", "", "parameters stands there again"),
    ],
)
def test_a_recipe_that_would_come_out_otherwise_is_refused(capsys, method, parameters, each, words):
    assert words in refused(capsys, "--recipe", str(of_mergekit(method, parameters, each)))


@pytest.mark.parametrize(
    "other", ["parameters: [1]", "base_model: 3", "models: [{model: a, parameters: 1}, {model: b}]"]
)
def test_a_recipe_with_something_else_in_the_place_of_an_entry_is_refused(capsys, other):
    text = "merge_method: linear\n" + ("" if "models" in other else "models: [{model: a}, {model: b}]\n") + other
    Path("odd.yml").write_text(text)
    assert f"line {text.count(chr(10)) + 1}: {'base_model' if 'base' in other else 'parameters'} must be a" in refused(
        capsys, "--recipe", "odd.yml"
    )


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


def adapter(path: Path, seed: int, alpha: float, **config) -> tuple[np.ndarray, np.ndarray]:
    """A LoRA adapter of the layer, as PEFT saves it."""
    path.mkdir()
    r = np.random.default_rng(seed)
    a, b = r.normal(size=(2, 8)).astype(np.float32), r.normal(size=(8, 2)).astype(np.float32)
    b[0] = 0
    name = f"base_model.model.{BASE.removesuffix('.weight')}"
    save_file({f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}, path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": alpha} | config))
    return a, b


@pytest.mark.parametrize(
    "config", [{}, {"use_rslora": True}, {"fan_in_fan_out": True}, {"alpha_pattern": {"layer": 7}}]
)
def test_adapters_are_merged_through_their_products(tmp_path, capsys, config):
    base = tensors(3)
    deltas = []
    for name, seed, alpha in (("x", 5, 4), ("y", 6, 16)):
        a, b = adapter(tmp_path / name, seed, alpha, **config)
        scale = config.get("alpha_pattern", {}).get("layer", alpha) / (2**0.5 if "use_rslora" in config else 2)
        deltas.append(scale * ((b @ a).T if "fan_in_fan_out" in config else b @ a))
    assert "the average of factors is not that of their products" in refused(capsys, "x", "y")
    merged = run("x", "y", "--base", "base")
    np.testing.assert_allclose(merged[BASE], base[BASE] + (deltas[0] + deltas[1]) / 2, rtol=1e-5, atol=1e-5)
    assert merged[HEAD].tobytes() == base[HEAD].tobytes()
    one = run("x", "--base", "base", "--method", "task_arithmetic", "--method-options", "strength=1")
    np.testing.assert_allclose(one[BASE], base[BASE] + deltas[0], rtol=1e-5, atol=1e-5)
    beside = run("a", "x", "--base", "base")  # an adapter beside a whole model
    np.testing.assert_allclose(beside[BASE], (tensors(0)[BASE] + base[BASE] + deltas[0]) / 2, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"lora_alpha": "x"}, "lora_alpha is 'x'"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
        ({"alpha_pattern": [1]}, "alpha_pattern of adapter_config.json must be a mapping of layers, got [1]"),
        ({"alpha_pattern": {"layer": True, "(": 4}}, "layer is True; ( is no regular expression"),
    ],
)
def test_scales_of_adapters_that_are_no_numbers_are_refused(tmp_path, capsys, config, said):
    adapter(tmp_path / "x", 5, 4, **config)
    assert said in refused(capsys, "x", "a", "--base", "base")


def test_an_adapter_without_a_scale_has_that_of_peft(tmp_path):
    a, b = adapter(tmp_path / "x", 5, 4)
    (tmp_path / "x" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2}))
    merged = run("x", "--base", "base", "--method", "task_arithmetic", "--method-options", "strength=1")
    np.testing.assert_allclose(merged[BASE], tensors(3)[BASE] + 8 / 2 * (b @ a), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"r": 8}, "layer: its factors have rank 2, adapter_config.json says 8 (r, rank_pattern)"),
        ({"rank_pattern": {"layer": 4}}, "its factors have rank 2, adapter_config.json says 4"),
        ({"rank_pattern": [2]}, "rank_pattern of adapter_config.json must be a mapping of layers, got [2]"),
        ({"r": "2"}, "r is '2'"),
        ({"r": 8, "rank_pattern": {"layer": 2}}, ""),
        ({"r": 8, "rank_pattern": {"other|layer": 2, "layer": 4}}, ""),  # PEFT takes the first that fits
        ({"rank_pattern": {"ayer": 4}}, ""),
    ],
)
def test_adapters_whose_rank_is_not_the_written_one_are_refused(tmp_path, capsys, config, said):
    a, b = adapter(tmp_path / "x", 5, 4, **config)
    if said:
        assert said in refused(capsys, "x", "a", "--base", "base")
        return
    merged = run("x", "--base", "base", "--method", "task_arithmetic", "--method-options", "strength=1")
    np.testing.assert_allclose(merged[BASE], tensors(3)[BASE] + 4 / 2 * (b @ a), rtol=1e-5, atol=1e-5)


def test_adapters_that_cannot_be_folded_are_refused_by_name(tmp_path, capsys):
    adapter(tmp_path / "x", 5, 4)
    adapter(tmp_path / "dora", 6, 4, use_dora=True)
    adapter(tmp_path / "ia3", 6, 4, peft_type="IA3")
    assert "dora is an adapter of the kind DoRA" in refused(capsys, "x", "dora", "--base", "base")
    assert "ia3 is an adapter of the kind IA3" in refused(capsys, "x", "ia3", "--base", "base")
    save_file(
        {"base_model.model.gone.lora_A.weight": np.ones((2, 8), np.float32)},
        tmp_path / "x" / "adapter_model.safetensors",
    )
    assert "the base has no gone.weight" in refused(capsys, "x", "a", "--base", "base")


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
