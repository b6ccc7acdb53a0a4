"""`tna merge --match`: a permuted copy comes back bit for bit, heads included, in its own dtype; what cannot be matched is refused."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.parameters import slow_but
from tna_jax import matching, models, trees
from tna_jax.hf import loading
from tna_jax.hf.config import shapes_of
from tna_jax.hf.model_types import TYPES
from tna_jax.hf.names import place
from tna_jax.io.tensor_headers import open_checkpoint
from tna_jax.matching import axes
from tna_jax.programs.cli.main import main

SIZES = {"width": 8, "depth": 1, "heads": 2, "mlp": 12}
TEXT = SIZES | {"vocab": 11, "positions": 9}
IMAGE = SIZES | {"patch": 4, "image_size": 8}
NETWORKS = {
    "bert": ("bert", TEXT), "roberta": ("roberta", TEXT), "distilbert": ("distilbert", TEXT), "gpt2": ("gpt2", TEXT),
    "electra": ("electra", TEXT | {"embedding": 6}), "vit": ("vit", IMAGE), "deit": ("vit", IMAGE | {"distilled": True}),
    "dinov2": ("dinov2", IMAGE | {"mlp": 16, "image_size": 12}), "dinov2_with_registers": ("dinov2", IMAGE | {"mlp": 16, "registers": 2}),
    "llama": ("llama", TEXT | {"heads": 4, "kv_heads": 2, "head_dim": 4}),
    "qwen2": ("llama", TEXT | {"qkv_bias": True, "tied": True}), "xlm-roberta": ("roberta", TEXT),
}  # fmt: skip
HEADS = {
    "bert": "masked_lm",
    "gpt2": "causal_lm",
    "llama": "causal_lm",
    "qwen2": "causal_lm",
    "distilbert": "masked_lm",
}
STREAM = dict.fromkeys(("vit", "deit", "dinov2", "dinov2_with_registers"), "body/patches/bias")


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make(kind, head=None, seed=0):
    """A model with random values of every parameter, as a folder's own tensors, and where each leaf stands."""
    name, options = NETWORKS[kind]
    head = head or HEADS.get(kind, "classes")
    module = models.create(name, **options, head=head)
    draws = np.random.default_rng(seed)
    leaves = {path: draws.normal(size=shape).astype(np.float32) for path, shape in shapes_of(module, 3).items()}
    return module, leaves, {path: place(kind, head, path, leaf.ndim) for path, leaf in leaves.items()}


def spec_of(module, leaves):
    """Of what the heads compute; with head none the order of the last tokens is free too, for a head that reads them."""
    text = not hasattr(module, "patch")
    x = (
        np.arange(8).reshape(2, 4).astype(np.int32)
        if text
        else np.ones((2, module.image_size, module.image_size, 3), np.float32)
    )

    def network(params, x):
        outputs = module.apply({"params": params}, x)
        return (outputs**2).sum(-1) if module.head == "none" else outputs

    return matching.permutation_spec(network, loading.tree(leaves), x)


def folders(kind, dtype="float32", head=None, extra=None, architecture=None):
    """`a`, and `b`, the same with all hidden units in another order, those of each head in their own; `extra` tensors have the
    tokens' units on their axis."""
    module, leaves, _ = make(kind, head)
    spec = spec_of(module, leaves)
    order, draws = matching.random_permutation(spec, jax.random.key(3)), np.random.default_rng(4)
    nested = matching.nests(spec, loading.tree(leaves))
    assert nested
    for units, heads in nested.items():
        order[units] = np.concatenate([i * (n := spec.groups[units]) + draws.permutation(n) for i in order[heads]])
    other = matching.apply_head_permutation(spec, nested, order, loading.tree(leaves))
    (stream,) = axes.groups(
        next(a for p, a in spec.params.items() if trees.name(p) == STREAM.get(kind, "body/words/embedding"))[-1]
    )
    for folder, params in (("a", loading.tree(leaves)), ("b", other)):
        loading.save(folder, module, params, {"model_type": kind}, dtype=dtype)
        held = load_file(f"{folder}/model.safetensors")
        if extra or architecture:
            prefix = f"{TYPES[kind].prefix}."
            held = {n if n.startswith(prefix) or module.head != "none" else prefix + n: v for n, v in held.items()}
            for name, (array, axis) in (extra or {}).items():
                moved = array if folder == "a" or axis is None else array.take(order[stream.name], axis=axis)
                held[name] = moved.astype(held[next(iter(held))].dtype)
            save_file(held, f"{folder}/model.safetensors", {"format": "pt"})
            config = json.loads(Path(folder, "config.json").read_text()) | {"architectures": [architecture]}
            Path(folder, "config.json").write_text(json.dumps(config))
    return spec, order


def merged(*words):
    assert main(["merge", "a", "b", "-o", "out", *words]) == 0
    return load_file("out/model.safetensors"), json.loads(Path("out/merge.json").read_text())


def said_of_matching():
    """What the file's metadata and the model card say was done before the merge."""
    note = json.loads(open_checkpoint("out").metadata["model.safetensors"]["tna_merge"])
    return note.get("match"), Path("out/README.md").read_text().partition(" Matching brought ")[2].partition("\n")[0]


def equal(one, two):
    return one.keys() == two.keys() and all(
        one[n].tobytes() == two[n].tobytes() and one[n].dtype == two[n].dtype for n in one
    )


@pytest.mark.parametrize("kind", slow_but(["bert", "llama"], NETWORKS))
def test_a_permuted_copy_comes_back_bit_for_bit(kind, capsys):
    dtype = {"bert": "float16", "llama": "bfloat16"}.get(kind, "float32")
    spec, order = folders(kind, dtype)
    plain = load_file("a/model.safetensors")
    out, report = merged("--match")
    assert equal(out, plain) and not equal(load_file("b/model.safetensors"), plain)
    (found,) = report["matched"]
    assert {group: entry["units"] for group, entry in found["groups"].items()} == {g: len(o) for g, o in order.items()}
    assert found["units"] > sum(spec.groups.values())  # units of heads are counted in each
    for group, entry in found["groups"].items():
        assert entry["moved"] == (order[group] != np.arange(len(order[group]))).sum()
    assert found["moved"] == sum(entry["moved"] for entry in found["groups"].values()) > 0
    assert said_of_matching() == ("permutation", "their hidden units into the order of a before that.")
    printed = capsys.readouterr()
    assert "moved in b" in printed.out and "matched b: " in printed.err
    assert all(group in printed.out for group, entry in found["groups"].items() if entry["moved"])


def test_the_same_model_and_the_base_of_a_method_are_matched_too():
    """The base in the order of `b`: its task vectors are those of `a` itself."""
    folders("gpt2")
    Path("b").rename("base")
    held = load_file("a/model.safetensors")
    Path("b").mkdir()
    Path("b/config.json").write_bytes(Path("a/config.json").read_bytes())
    save_file({name: array + np.float32(1) for name, array in held.items()}, "b/model.safetensors", {"format": "pt"})
    out, report = merged("--match", "--method", "task_arithmetic", "--base", "base", "--method-options", "strength=0.5")
    assert [entry["model"] for entry in report["matched"]] == ["b", "base"]
    assert report["matched"][0]["moved"] == 0 < report["matched"][1]["moved"]
    for name, array in out.items():
        np.testing.assert_allclose(array, held[name] + 0.5, atol=1e-5)


READERS = {
    "BertForQuestionAnswering": ("bert", "qa_outputs", (2, 8)),
    "RobertaForTokenClassification": ("roberta", "classifier", (3, 8)),
    "ViTForMaskedImageModeling": ("vit", "decoder.0", (48, 8, 1, 1)),
    "LlamaForTokenClassification": ("llama", "score", (3, 8)),
}


@pytest.mark.parametrize("named", slow_but(["BertForQuestionAnswering"], READERS))
def test_heads_that_are_not_known_here_are_permuted_with_what_they_read(named):
    kind, name, shape = READERS[named]
    draws = np.random.default_rng(5)
    extra = {f"{name}.weight": (draws.normal(size=shape), 1), f"{name}.bias": (draws.normal(size=shape[:1]), None)}
    folders(kind, head="none", extra=extra, architecture=named)
    out, _ = merged("--match")
    assert equal(out, load_file("a/model.safetensors"))
    assert not np.array_equal(out[f"{name}.weight"], load_file("b/model.safetensors")[f"{name}.weight"])


def test_tied_copies_of_the_words_are_permuted_with_them():
    words = make("gpt2")[1]["body/words/embedding"]
    folders("gpt2", extra={"lm_head.weight": (words, 1)}, architecture="GPT2LMHeadModel")
    out, _ = merged("--match")
    assert equal(out, load_file("a/model.safetensors"))
    assert np.array_equal(out["lm_head.weight"], out["transformer.wte.weight"])


def test_models_in_one_order_merge_as_without(capsys):
    module, leaves, _ = make("bert", "none")
    for folder, shift in (("a", 0.0), ("b", 0.01)):
        loading.save(folder, module, loading.tree({path: leaf + shift for path, leaf in leaves.items()}))
    plain, _ = merged()
    assert said_of_matching() == (None, "")
    out, report = merged("--match", "--overwrite")
    assert equal(out, plain) and report["matched"][0]["moved"] == 0
    assert "moved in b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "t5"}, "--match: a is a t5; b is a t5; model types that can be matched: vit, deit, dinov2"),
        ({"model_type": None}, "a is without a config.json that names its model_type"),
        (
            {"num_hidden_layers": 2},
            "--match: a does not hold what its config.json says; missing: bert.encoder.layer.1.",
        ),
        ({}, "tensors of a of which it is not known what they read: my.dense.weight [8, 8]"),
    ],
)
def test_what_cannot_be_matched_is_refused_by_name(capsys, change, message):
    module, leaves, _ = make("bert")
    for folder in "ab":
        loading.save(folder, module, loading.tree(leaves))
        config = json.loads(Path(folder, "config.json").read_text()) | change
        Path(folder, "config.json").write_text(json.dumps(config))
        if not change:
            held = load_file(f"{folder}/model.safetensors")
            save_file(held | {"my.dense.weight": np.ones((8, 8), np.float32)}, f"{folder}/model.safetensors")
    assert main(["merge", "a", "b", "-o", "out", "--match"]) == 2
    assert message in " ".join(capsys.readouterr().err.split()) and not Path("out").exists()


def test_a_type_that_cannot_be_matched_is_refused_before_jax_is_loaded():
    for folder in "ab":
        Path(folder).mkdir()
        save_file({"w": np.full(3, ord(folder), np.float32)}, f"{folder}/model.safetensors")
        Path(folder, "config.json").write_text('{"model_type": "mamba"}')
    code = ("import sys; from tna_jax.programs.cli.main import main; code = main(['merge', 'a', 'b', '-o', 'out', '--match']); "
            "print(code, 'jax' in sys.modules)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "2 False" and "is a mamba" in done.stderr
