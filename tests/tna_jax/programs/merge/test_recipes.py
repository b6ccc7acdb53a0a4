"""`tna merge --recipe`: recipes of mergekit mean what they mean to mergekit, or are refused by line."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.tna_jax.programs.merge.folders import BASE, HEAD, tensors
from tests.tna_jax.programs.merge.running import refused, run
from tna_jax import merging
from tna_jax.programs.cli.main import main

pytestmark = pytest.mark.usefixtures("checkpoints")


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
