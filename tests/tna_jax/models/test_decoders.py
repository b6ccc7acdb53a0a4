"""GPT-2 and Llama: against a plain NumPy forward pass, the future without influence, heads, what is refused."""

import jax
import numpy as np
import pytest

from tests.parameters import slow
from tna_jax import models
from tna_jax.models import llama

SIZES = {"vocab": 20, "positions": 8, "width": 8, "depth": 1, "heads": 2, "mlp": 12, "num_classes": 3, "pad_id": 0}
GROUPED = SIZES | {"heads": 4, "kv_heads": 2, "window": 4, "qkv_bias": True, "rope_scaling": (4.0, 1.0, 4.0, 16)}
IDS = np.random.default_rng(0).integers(1, 20, (3, 7)).astype(np.int32)
IDS[1, 5:] = 0
MASK = IDS != 0


@pytest.fixture(autouse=True)
def compiled_quickly():
    """Compiling is nearly all these tests take."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def random_params(model):
    draws = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), IDS))["params"]
    return jax.tree.map(lambda leaf: draws.normal(scale=0.4, size=leaf.shape).astype(np.float32), shapes)


def dense(p, x):
    return x @ p["kernel"].astype(np.float64) + p.get("bias", 0)


def softmax(x):
    x = np.exp(x - x.max())
    return x / x.sum()


def mix(query, key, value, mask, window=99):
    """One head of one example, a token after the other: (T, E) each."""
    rows = []
    for i in range(len(query)):
        seen = [j for j in range(i + 1) if mask[j] and i - j < window]
        weights = softmax(np.array([query[i] @ key[j] for j in seen]) / query.shape[1] ** 0.5)
        rows.append(sum(w * value[j] for w, j in zip(weights, seen, strict=True)))
    return np.stack(rows)


def gpt2(p, ids, mask):
    def norm(q, x):
        centered = x - x.mean(-1, keepdims=True)
        return centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5) * q["scale"] + q["bias"]

    x = p["words"]["embedding"][ids].astype(np.float64) + p["positions"]["embedding"][: len(ids)]
    layer = p["layer_0"]
    query, key, value = np.split(dense(layer["qkv"], norm(layer["norm1"], x)), 3, axis=1)
    heads = [mix(query[:, s], key[:, s], value[:, s], mask) for s in (slice(0, 4), slice(4, 8))]
    x = x + dense(layer["out"], np.concatenate(heads, 1))
    up = dense(layer["up"], norm(layer["norm2"], x))
    up = 0.5 * up * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)))
    return norm(p["norm"], x + dense(layer["down"], up))


def turned(x, stretched):
    """Rotates a head's entries (T, E): entry i with entry i + E / 2 as a complex number, by the angle of its place."""
    size = x.shape[1]
    speeds = 10000.0 ** -(np.arange(size // 2) * 2 / size)
    if (
        stretched
    ):  # by 4, but for those that turn more often than 4 times within 16 tokens; between 1 and 4 times a mean
        times = 16 * speeds / (2 * np.pi)
        smooth = (times - 1) / 3
        speeds = np.where(
            times < 1, speeds / 4, np.where(times > 4, speeds, (1 - smooth) * speeds / 4 + smooth * speeds)
        )
    pairs = (x[:, : size // 2] + 1j * x[:, size // 2 :]) * np.exp(1j * np.arange(len(x))[:, None] * speeds)
    return np.concatenate([pairs.real, pairs.imag], 1)


def reference_llama(p, ids, mask, kv_heads, heads, window, stretched):
    def norm(q, x):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * q["scale"]

    x = p["words"]["embedding"][ids].astype(np.float64)
    layer, size = p["layer_0"], 8 // heads
    query, key, value = (dense(layer[n], norm(layer["norm1"], x)) for n in ("query", "key", "value"))

    def part(y, i):
        return y[:, i * size : (i + 1) * size]

    rows = []
    for i in range(heads):
        k = i * kv_heads // heads
        rows.append(
            mix(turned(part(query, i), stretched), turned(part(key, k), stretched), part(value, k), mask, window)
        )
    x = x + dense(layer["out"], np.concatenate(rows, 1))
    y = norm(layer["norm2"], x)
    gate = dense(layer["gate"], y)
    return norm(p["norm"], x + dense(layer["down"], gate / (1 + np.exp(-gate)) * dense(layer["up"], y)))


CASES = {
    "gpt2": ("gpt2", SIZES, gpt2),
    "llama": ("llama", GROUPED, lambda *a: reference_llama(*a, 2, 4, 4, True)),
    "llama, plain": ("llama", SIZES, lambda *a: reference_llama(*a, 2, 2, 99, False)),
}


@pytest.mark.parametrize("case", ["gpt2", "llama", *slow("llama, plain")])
def test_a_decoder_computes_what_numpy_does_for_every_head(case):
    name, options, reference = CASES[case]
    tied = models.create(name, **options, **({"tied": True} if name == "llama" else {}))
    params = random_params(tied)
    score = {"kernel": np.random.default_rng(1).normal(size=(8, 3)).astype(np.float32)}

    def every_head(params):
        bare = tied.clone(head="none").apply({"params": params}, IDS, mask=MASK)
        classes = tied.clone(head="classes").apply({"params": params | {"head": score}}, IDS, mask=MASK)
        return tied.apply({"params": params}, IDS, mask=MASK), bare, classes

    logits, tokens, classes = jax.jit(every_head)(params)
    for i, (ids, mask) in enumerate(zip(IDS, MASK, strict=True)):
        expected = reference(params["body"], ids, mask)
        assert np.abs(expected).max() > 0.5
        np.testing.assert_allclose(tokens[i][mask], expected[mask], atol=2e-5)
        np.testing.assert_allclose(
            logits[i][mask], (expected @ params["body"]["words"]["embedding"].T)[mask], atol=1e-4
        )
        np.testing.assert_allclose(classes[i], dense(score, expected[mask][-1]), atol=1e-4)


def test_a_head_of_its_own_is_not_the_table_of_words():
    nets = [models.create("llama", **SIZES, tied=tied) for tied in (False, True)]
    shapes = [jax.eval_shape(net.init, jax.random.key(0), IDS) for net in nets]
    assert shapes[0]["params"]["head"]["kernel"].shape == (8, 20) and "head" not in shapes[1]["params"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gpt2", {"head": "pooled"}, "unknown head 'pooled'"),
        ("gpt2", {"pad_id": 20}, "pad_id must be an id, below 20"),
        ("llama", {"kv_heads": 3, "heads": 4}, "3 kv_heads do not divide 4 heads"),
        ("llama", {"head_dim": 3}, "heads must have an even size, got 3"),
        ("llama", {"window": 0}, "window must be an integer of at least 1"),
        ("llama", {"theta": 0.0}, "theta must be above 0"),
    ],
)
def test_what_cannot_be_is_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.create(name, **SIZES | options)


def test_inputs_that_cannot_be_are_named():
    model = models.create("gpt2", **SIZES)
    for ids, message in ((np.zeros((2, 9), np.int32), "9 tokens, but there are 8 positions"),
                         (np.zeros((2, 3)), "token ids are integers")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(model.init, jax.random.key(0), ids)
    assert llama.rotations(3, 4, 100.0, None)[0].shape == (3, 4)
