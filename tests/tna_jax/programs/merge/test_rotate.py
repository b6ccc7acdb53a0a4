"""`tna merge --match --match-by rotation`: a turned copy merges with its model to that function; what cannot be turned is refused by name."""

import jax
import numpy as np
import pytest

from tests.parameters import slow_but
from tests.tna_jax.programs.merge.test_match import make, merged, said_of_matching
from tna_jax.hf import loading
from tna_jax.io.tensor_headers import open_checkpoint
from tna_jax.matching.orthogonal import LAYER_SCALES, NORMS, norm_form, residual_stream, rotations
from tna_jax.matching.permutations import permutation_spec
from tna_jax.programs.cli.main import main
from tna_jax.programs.merge import rotate


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def turned_folders(kind):
    """`a`, and `b`, the same function in a form of its own; returns the network, inputs and outputs of `a`."""
    module, leaves, _ = make(kind)
    leaves = {path: leaf * (0.5 if leaf.ndim > 1 else 1) for path, leaf in leaves.items()}
    of = {"deit": "vit", "dinov2_with_registers": "dinov2"}.get(kind, kind)
    params = loading.tree(leaves)
    x = (
        np.random.default_rng(1).normal(size=(2, module.image_size, module.image_size, 3)).astype(np.float32)
        if hasattr(module, "patch")
        else np.arange(8).reshape(2, 4).astype(np.int32)
    )
    apply = jax.jit(lambda params, x: module.apply({"params": params}, x))
    spec, centered = permutation_spec(apply, params, x), of != "llama"
    stream = residual_stream(spec, NORMS[of], LAYER_SCALES.get(of))
    draws = np.random.default_rng(2)
    rotation = rotations.procrustes(draws.normal(size=(stream.width, stream.width)), centered=centered)
    other = rotations.rotate(stream, rotation, norm_form(stream, params, centered=centered))
    for folder, each in (("a", params), ("b", other)):
        loading.save(folder, module, each, {"model_type": kind})
    return apply, x, np.asarray(apply(params, x))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dinov2_with_registers", "deit", "vit", "llama"])
def test_a_turned_copy_merges_to_the_same_function(kind, capsys):
    apply, x, expected = turned_folders(kind)
    plain, _ = merged()
    assert np.abs(np.asarray(apply(loading.load("out").params, x)) - expected).max() > 1e-2 * np.abs(expected).max()
    out, report = merged("--match", "--match-by", "rotation", "--overwrite")
    reached = np.asarray(apply(loading.load("out").params, x))
    np.testing.assert_allclose(reached, expected, atol=1e-4 * np.abs(expected).max())
    assert out.keys() == plain.keys() and report["matched"][0]["turned"]["units"] == 8
    how, card = said_of_matching()
    assert how == "rotation" and card.endswith("order of a before that and turned their residual streams.")
    assert "was turned" in " ".join(capsys.readouterr().out.split())


REFUSED = {
    "bert": (
        "bert has its norms after the sums, so that nothing can be turned; types with norms first: vit, gpt2, dinov2, llama"
    ),
    "gpt2": "gpt2 reads its words' embeddings as its head (tie_word_embeddings)",
    "qwen2": "qwen2 reads its words' embeddings as its head (tie_word_embeddings)",
}


@pytest.mark.parametrize("kind", slow_but(["gpt2"], REFUSED))
def test_what_cannot_be_turned_is_refused_by_name(kind, capsys):
    module, leaves, _ = make(kind)
    for folder in "ab":
        loading.save(folder, module, loading.tree(leaves), {"model_type": kind})
    assert main(["merge", "a", "b", "-o", "out", "--match", "--match-by", "rotation"]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert f"--match-by rotation: {REFUSED[kind]}" in message and "Permutations go: leave it out" in message


@pytest.mark.slow
def test_a_body_without_a_head_and_values_beyond_a_dtype_are_refused_by_name(capsys):
    module, leaves, _ = make("vit", "none")
    for folder in "ab":
        loading.save(folder, module, loading.tree(leaves), dtype="float16")
    assert main(["merge", "a", "b", "-o", "out", "--match", "--match-by", "rotation"]) == 2
    assert "these models have no head: what they give out is the stream itself" in " ".join(
        capsys.readouterr().err.split()
    )
    checkpoint = open_checkpoint("a")
    name = next(iter(checkpoint.tensors))
    values = {name: np.full(checkpoint.tensors[name].shape, 1e5)}
    with pytest.raises(Exception, match=f"turned values leave the range of their dtype: {name}"):
        rotate.rewritten(checkpoint, values)
    kept = rotate.rewritten(checkpoint, {name: values[name] / 1e5}).tensors[name].read()
    assert kept.dtype == np.float16 and (kept == 1).all()


def test_the_way_needs_what_it_is_of(capsys):
    assert main(["merge", "a", "b", "-o", "out", "--match-by", "rotation"]) == 2
    assert "--match-by does nothing without --match" in " ".join(capsys.readouterr().err.split())
