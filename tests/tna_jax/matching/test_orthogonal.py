"""A turned and permuted copy of a Transformer is found again, and whatever is turned stays the same function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import slow
from tna_jax import models, networks
from tna_jax.matching import heads, permutations
from tna_jax.matching.orthogonal import (
    LAYER_SCALES,
    NORMS,
    norm_form,
    orthogonal_matching,
    residual_stream,
    rotations,
    untied,
    untied_params,
)
from tna_jax.matching.permutations import function_gap, permutation_spec

WORDS, TOKENS, WIDTH, HEADS, UNITS, HIDDEN = 7, 5, 6, 2, 2, 8
IDS = np.random.default_rng(0).integers(0, WORDS, (3, TOKENS)).astype(np.int32)
READERS = {"norm1": ("query", "key", "value"), "norm2": ("up",), "norm": ("head",)}


@jax.numpy_rank_promotion("allow")
def decoder(p, ids, centered=True):
    """One block with norms first, in plain JAX; a layer has a bias, and a sublayer layer scale, where the parameters have them."""

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True) if centered else x
        x = x / jnp.sqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6) * p[name]["scale"]
        return x + p[name].get("bias", 0)

    def dense(x, name):
        return x @ p[name]["kernel"] + p[name].get("bias", 0)

    x = p["words"]["embedding"][ids] + p["positions"]
    normed = norm(x, "norm1")
    query, key, value = (dense(normed, name).reshape(*ids.shape, HEADS, UNITS) for name in ("query", "key", "value"))
    mixed = jnp.einsum("bhts,bshu->bthu", jax.nn.softmax(jnp.einsum("bthu,bshu->bhts", query, key)), value)

    def scaled(x, name):
        return x * p[name]["gamma"] if name in p else x

    x = x + scaled(dense(mixed.reshape(*ids.shape, -1), "out"), "scale1")
    x = x + scaled(dense(jnp.tanh(dense(norm(x, "norm2"), "up")), "down"), "scale2")
    x = norm(x, "norm")
    return dense(jnp.concatenate([x[:, 0], x.mean(1)], -1) if "scale1" in p else x, "head")


def weights(seed, biases=True):
    draws = np.random.default_rng(seed)

    def array(*shape, mean=0.0):
        return (mean + draws.normal(0, 0.5, shape)).astype(np.float32)

    sizes = {"query": (WIDTH, 4), "key": (WIDTH, 4), "value": (WIDTH, 4), "out": (4, WIDTH), "up": (WIDTH, HIDDEN),
             "down": (HIDDEN, WIDTH), "head": (WIDTH, WORDS)}  # fmt: skip
    params = {name: {"kernel": array(*size), "bias": array(size[1])} for name, size in sizes.items()}
    params |= {name: {"scale": array(WIDTH, mean=1.5), "bias": array(WIDTH)} for name in READERS}
    params |= {"words": {"embedding": array(WORDS, WIDTH)}, "positions": array(1, TOKENS, WIDTH)}
    if not biases:
        params = {name: {k: v for k, v in layer.items() if k != "bias"} if isinstance(layer, dict) else layer
                  for name, layer in params.items()}  # fmt: skip
    return params


@pytest.fixture(scope="module")
def spec():
    return permutation_spec(jax.jit(decoder), weights(0), IDS)


def turned_copy(spec, params, norms, centered, layer_scales=None, seed=4):
    """A turned and permuted copy, in the form without scales; heads have units in orders of their own."""
    stream, draws = residual_stream(spec, norms, layer_scales), np.random.default_rng(seed)
    rotation = rotations.procrustes(draws.normal(size=(stream.width, stream.width)), centered=centered)
    copy = rotations.rotate(stream, rotation, norm_form(stream, params, centered=centered))
    order = {name: draws.permutation(size) for name, size in spec.groups.items() if name != stream.group}
    nested = heads.nests(spec, params)
    for units, group in nested.items():
        size = spec.groups[units]
        order[units] = np.concatenate([i * size + draws.permutation(size) for i in order[group]])
    return heads.apply_head_permutation(spec, nested, order, copy)


def found_again(spec, params, norms, centered=True, layer_scales=None):
    copy = turned_copy(spec, params, norms, centered, layer_scales)
    permutations.check_function(spec, params, copy)
    match = orthogonal_matching(spec, params, copy, norms=norms, centered=centered, layer_scales=layer_scales)
    difference = [
        np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (match.reference, match.params)), strict=True)
    ]
    assert max(difference) < 1e-5
    return match


def test_a_turned_and_permuted_copy_is_found_again_and_averages_in_the_same_network(spec):
    params = weights(0)
    match = found_again(spec, params, READERS)
    assert function_gap(spec, params, jax.tree.map(lambda a, b: (a + b) / 2, match.reference, match.params)) < 1e-4
    assert np.allclose(match.rotation @ match.rotation.T, np.eye(WIDTH), atol=1e-12)
    assert np.allclose(match.rotation.sum(0), 1)  # the mean stays apart
    other = orthogonal_matching(spec, params, weights(1), norms=READERS)
    assert (np.concatenate([other.params[name]["scale"] for name in READERS]) == 1).all()
    assert not np.concatenate([other.params[name]["bias"] for name in READERS]).any()
    stream = residual_stream(spec, READERS)
    forms = [norm_form(stream, weights(seed), centered=True) for seed in (0, 1)]
    renamed = heads.head_matching(spec, *forms, check=False).matching
    constant = len(READERS) * WIDTH  # the scales, which are 1 in both, count there
    assert other.objective > renamed.objective - constant


def test_what_is_not_the_same_function_is_refused(spec):
    params = weights(0)
    stream = residual_stream(spec, READERS)
    form = norm_form(stream, params, centered=True)
    permutations.check_function(spec, params, form)
    any_rotation = rotations.procrustes(np.random.default_rng(0).normal(size=(WIDTH, WIDTH)), centered=False)
    assert function_gap(spec, params, rotations.rotate(stream, any_rotation, form)) > 1e-2  # it moves the mean
    for wrong in ({"norms": READERS, "centered": False}, {"norms": {n: READERS[n] for n in ("norm1", "norm2")}}):
        with pytest.raises(ValueError, match=r"another function.*norms="):
            orthogonal_matching(spec, params, weights(1), **wrong)
    orthogonal_matching(spec, params, weights(1), norms=READERS, centered=False, tolerance=10.0)  # as the user says


def test_streams_that_are_not_there_are_named(spec):
    with pytest.raises(ValueError, match="no leaf under the norm layer_\\*/norm1"):
        residual_stream(spec, {"layer_*/norm1": ("query",)})
    with pytest.raises(ValueError, match="words/embedding is written into the stream as well as read: untie it"):
        residual_stream(spec, {**READERS, "norm": ("words",)})
    with pytest.raises(ValueError, match="heads has 0 leaves that are multiplied"):
        residual_stream(spec, {**READERS, "norm": ("heads",)})
    with pytest.raises(ValueError, match="restarts must be at least 1"):
        orthogonal_matching(spec, weights(0), weights(1), norms=READERS, restarts=0)


def test_a_bias_that_no_reader_takes_stays_and_turns():
    params = weights(0)
    del params["head"]["bias"]
    spec = permutation_spec(jax.jit(decoder), params, IDS)
    match = found_again(spec, params, READERS)
    assert match.params["norm"]["bias"].any()
    params["norm"]["scale"][2] = 0
    with pytest.raises(ValueError, match="scales near 0: norm/scale"):
        norm_form(residual_stream(spec, READERS), params, centered=True)


def test_layer_scale_goes_into_the_layers_before_it_and_a_head_may_read_two_tokens():
    """As in DINOv2, whose classifier reads the class token beside the mean of the patches."""
    params, draws = weights(0), np.random.default_rng(3)
    params |= {name: {"gamma": draws.normal(size=WIDTH).astype(np.float32)} for name in ("scale1", "scale2")}
    params["head"]["kernel"] = draws.normal(size=(2 * WIDTH, WORDS)).astype(np.float32)
    declared = {"scale1": ("out",), "scale2": ("down",)}
    spec = permutation_spec(jax.jit(decoder), params, IDS)
    rotation = rotations.procrustes(draws.normal(size=(WIDTH, WIDTH)), centered=True)

    def turned(stream):
        form = norm_form(stream, params, centered=True)
        return form, rotations.rotate(stream, rotation, form)

    form, copy = turned(residual_stream(spec, READERS, declared))
    assert (np.concatenate([p[name]["gamma"] for p in (form, copy) for name in declared]) == 1).all()
    permutations.check_function(spec, params, copy)
    assert function_gap(spec, params, turned(residual_stream(spec, READERS))[1]) > 1e-2  # the control: not declared
    with pytest.raises(
        ValueError,
        match=r"no leaf under the layer scale scale3; up, which the layer scale scale1 multiplies, has no leaf",
    ):
        residual_stream(spec, READERS, {"scale3": ("out",), "scale1": ("up",)})


def test_a_tied_head_is_untied():
    params = {"words": {"embedding": np.ones((3, 2), np.float32)}}
    apart = untied_params(params, "words/embedding")
    assert {k: v.shape for k, v in apart["head"].items()} == {"kernel": (2, 3), "bias": (3,)}
    with pytest.raises(ValueError, match="no leaf 'word/embedding'; leaves: words/embedding"):
        untied_params(params, "word/embedding")
    with pytest.raises(ValueError, match="have a 'head': they are not tied"):
        untied_params(apart, "words/embedding")


def library_network(name):
    """A network of the library, its parameters, inputs, and whether its norms subtract the mean."""
    sizes = {"width": 12, "depth": 2, "heads": 2, "mlp": 10}
    ids = np.random.default_rng(1).integers(0, WORDS, (2, 6)).astype(np.int32)
    draws = np.random.default_rng(2)
    if name == "vit":
        x = draws.normal(size=(2, 8, 8, 3)).astype(np.float32)
        net, init = networks.linen(models.create("vit", num_classes=5, patch=4, **sizes), x.shape[1:])
    elif name == "dinov2":
        x = draws.normal(size=(2, 8, 8, 3)).astype(np.float32)
        net, init = networks.linen(models.create("dinov2", num_classes=5, patch=4, registers=1, **sizes), x.shape[1:])
    elif name == "gpt2":
        x, options = ids, {"vocab": WORDS, "positions": 6, **sizes}
        tied, init = networks.linen(models.create("gpt2", **options), (6,), dtype=jnp.int32)
        net = untied(networks.linen(models.create("gpt2", head="none", **options), (6,), dtype=jnp.int32)[0])
    else:
        heads_of_values = {"heads": 4, "kv_heads": 2} if name == "llama, shared" else {}
        x, options = ids, {"vocab": WORDS, "positions": 6, **sizes, "width": 16, **heads_of_values}
        net, init = networks.linen(models.create("llama", **options), (6,), dtype=jnp.int32)
    shapes = jax.eval_shape(init, jax.random.key(0))[0]
    params = jax.tree.map(lambda leaf: (draws.normal(0, 0.4, leaf.shape) + (leaf.ndim == 1)).astype(np.float32), shapes)
    if name == "gpt2":
        logits = tied(params, ids)
        params = untied_params(params, "body/words/embedding")
        assert np.allclose(logits, net(params, ids), atol=1e-4)
    return net, params, x, not name.startswith("llama")


@pytest.mark.parametrize("name", slow("vit", "dinov2", "gpt2", "llama", "llama, shared"))
def test_networks_of_the_library_are_found_again(name):
    net, params, x, centered = library_network(name)
    kind = name.partition(",")[0]
    found_again(permutation_spec(net, params, x), params, NORMS[kind], centered, LAYER_SCALES.get(kind))
