"""Real weights: against transformers layer by layer, and found again after their units were permuted. They run where `tna fetch` has put them."""

import functools
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.xla_flags import require
from tna_jax import hf, matching, trees
from tna_jax.hf import cache
from tna_jax.hf.checkpoints import CHECKPOINTS

pytestmark = pytest.mark.slow
CACHE = Path(os.environ.get("TNA_CACHE_DIR") or Path.home() / ".cache" / "tna_jax")
"""The user's own: tests have another one."""


@pytest.fixture(params=CHECKPOINTS)
def name(request, monkeypatch):
    monkeypatch.setenv("TNA_CACHE_DIR", str(CACHE))
    if not cache.place(request.param).is_dir():
        pytest.skip(f"{request.param} is not in {CACHE}: tna fetch {request.param}")
    return request.param


def inputs(name):
    draws = np.random.default_rng(0)
    if name == "minilm":
        texts = ["the cat sat on the mat", "a dog, and ANOTHER unusual dog!", "no"]
        encoded = hf.load_tokenizer(name).encode(texts, length=16)
        return {"x": encoded.ids, "mask": encoded.mask}
    return {"x": draws.normal(size=(2, 98, 98, 3)).astype(np.float32)}


@functools.cache
def classifier(name, dtype):
    """With a new head, and the network as a function of parameters and inputs."""
    size = {} if name == "minilm" else {"image_size": 98}
    loaded = hf.load(name, head="new", num_classes=4, key=jax.random.key(3), **size)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), loaded.params)

    def network(params, x):
        return loaded.module.apply({"params": params}, **x)

    return network, params


def test_hidden_states_are_those_of_transformers(name):
    torch = pytest.importorskip("torch", reason="needs the extra parity: torch and transformers")
    transformers = pytest.importorskip("transformers", reason="needs the extra parity: torch and transformers")
    model = transformers.AutoModel.from_pretrained(cache.place(name)).eval()
    x = inputs(name)
    if name == "minilm":
        theirs = {
            "input_ids": torch.from_numpy(x["x"].astype(np.int64)),
            "attention_mask": torch.from_numpy(x["mask"].astype(np.int64)),
        }
        tokens = transformers.AutoTokenizer.from_pretrained(cache.place(name))(
            ["the cat sat on the mat", "a dog, and ANOTHER unusual dog!", "no"], padding="max_length", max_length=16
        )
        np.testing.assert_array_equal(x["x"], tokens["input_ids"])
    else:
        theirs = {"pixel_values": torch.from_numpy(x["x"]).permute(0, 3, 1, 2)}
    with torch.no_grad():
        expected = model(**theirs, output_hidden_states=True)
    loaded = hf.load(name, head="none")
    kept = x["mask"].astype(bool) if "mask" in x else slice(None)

    def is_layer(module, method):
        return method == "__call__" and (module.name or "").startswith("layer_")

    @jax.jit
    def run(params, x):
        return loaded.module.apply({"params": params}, **x, capture_intermediates=is_layer, mutable=["intermediates"])

    tokens, captured = run(loaded.params, x)
    layers = captured["intermediates"]["body"]
    assert len(layers) == loaded.module.depth
    for i in range(loaded.module.depth):
        (ours,) = layers[f"layer_{i}"]["__call__"]
        close(ours, expected.hidden_states[i + 1].numpy(), kept, f"layer {i}")
    close(tokens, expected.last_hidden_state.numpy(), kept, "the last one")


def close(ours, theirs, kept, where):
    """As a share of the largest entry: a few channels of real models are large."""
    ours, theirs = np.asarray(ours)[kept], theirs[kept]
    assert np.abs(ours - theirs).max() <= 1e-4 * max(1.0, np.abs(theirs).max()), where


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@jax.numpy_dtype_promotion("standard")
def test_permuted_units_compute_the_same_and_a_wrong_one_does_not(name, dtype):
    require(dtype)
    network, params = classifier(name, jnp.dtype(dtype))
    spec = matching.permutation_spec(network, params, inputs(name))
    depth = sum(name.startswith("layer_") for name in params["body"])
    assert len(spec.groups) == 1 + 4 * depth + (name == "minilm")  # the stream; heads, units twice, an MLP; a pooler
    moved = matching.apply_permutation(spec, matching.random_permutation(spec, jax.random.key(0)), params)
    matching.check_function(spec, params, moved)
    kernel = moved["body"]["layer_0"]["up"]["kernel"]
    wrong = trees.like(moved, [leaf[:, ::-1] if leaf is kernel else leaf for _, leaf in trees.named_leaves(moved)])
    with pytest.raises(ValueError, match="another function|differ"):
        matching.check_function(spec, params, wrong)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@jax.numpy_dtype_promotion("standard")
def test_a_permuted_copy_is_found_again(name, dtype):
    """Bit for bit. Weights alone leave some heads of DINOv2 exchanged, a local optimum; with an order of units for each head they do not."""
    require(dtype)
    network, params = classifier(name, jnp.dtype(dtype))
    spec = matching.permutation_spec(network, params, inputs(name))
    moved = matching.apply_permutation(spec, matching.random_permutation(spec, jax.random.key(0)), params)
    if name == "minilm":
        found = matching.weight_matching(spec, params, moved).params
    else:
        found = matching.head_matching(spec, params, moved).matching.params
    for (path, one), two in zip(trees.named_leaves(found), jax.tree.leaves(params), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(two).tobytes(), trees.name(path)
