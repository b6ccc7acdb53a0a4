"""ViT, BERT and RoBERTa: against a plain NumPy forward pass, padding without influence, dropout, remat, dtypes, sizes."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from tests.parameters import slow, slow_but
from tna_jax import models
from tna_jax.models import transformer, vit

SIZES = {"width": 12, "depth": 2, "heads": 3, "mlp": 20}
VIT = SIZES | {"patch": 4, "num_classes": 5}
BERT = SIZES | {"vocab": 30, "positions": 16, "types": 2, "num_classes": 4}
ROBERTA = BERT | {"pad_id": 1}
SHALLOW = {"depth": 1}
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def compiled_quickly():
    """Compiling is nearly all these tests take."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def images(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tokens(pad=0):
    """Ids from 3 on, with padding at different places of rows 1 to 3."""
    ids = np.random.default_rng(2).integers(3, 30, (4, 7)).astype(np.int32)
    ids[1, 5:] = ids[2, 2:4] = ids[3, 1:] = pad
    return ids


def random_params(model, *inputs):
    """Values that keep the signal's size; no leaf is 0 or 1 throughout."""
    draws = np.random.default_rng(0)

    def draw(path, leaf):
        spread = leaf.shape[-2] ** -0.5 if path[-1].key == "kernel" else 0.3
        return jnp.asarray(draws.normal(size=leaf.shape, scale=spread) + (path[-1].key == "scale"), jnp.float32)

    return jax.tree.map_with_path(draw, jax.eval_shape(lambda: model.init(KEY, *inputs))["params"])


def run(model, params, *inputs, **more):
    static = {name: more.pop(name) for name in ("train",) if name in more}
    return np.asarray(
        jax.jit(lambda p, *x, **more: model.apply({"params": p}, *x, **static, **more))(params, *inputs, **more)
    )


# A forward pass in NumPy, float64, one token and one head after the other.


def dense(p, x):
    return x @ np.asarray(p["kernel"], np.float64) + np.asarray(p.get("bias", 0), np.float64)


def norm(p, x, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * np.asarray(p["scale"]) + np.asarray(
        p["bias"]
    )


def gelu(x):
    return x * np.vectorize(lambda v: 0.5 * (1 + math.erf(v / math.sqrt(2))))(x)


def attend(p, x, counts, heads):
    """One example: (T, D) and which tokens count (T,)."""
    query, key, value = (dense(p[name], x) for name in ("query", "key", "value"))
    size = x.shape[-1] // heads
    found = np.zeros_like(x)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(len(x)):
            weights = np.exp(key[counts, part] @ query[i, part] / math.sqrt(size))
            found[i, part] = (weights / weights.sum()) @ value[counts, part]
    return dense(p["out"], found)


def blocks(p, x, counts, eps, first):
    for i in range(SIZES["depth"]):
        q = p[f"layer_{i}"]
        if first:
            x = x + attend(q, norm(q["norm1"], x, eps), counts, SIZES["heads"])
            x = x + dense(q["down"], gelu(dense(q["up"], norm(q["norm2"], x, eps))))
        else:
            x = norm(q["norm1"], x + attend(q, x, counts, SIZES["heads"]), eps)
            x = norm(q["norm2"], x + dense(q["down"], gelu(dense(q["up"], x))), eps)
    return x


def reference_vit(p, x, head, eps=1e-12):
    body, patch, found = p["body"], VIT["patch"], []
    for image in np.asarray(x, np.float64):
        rows, columns = image.shape[0] // patch, image.shape[1] // patch
        cut = [
            image[r * patch : (r + 1) * patch, c * patch : (c + 1) * patch] for r in range(rows) for c in range(columns)
        ]
        kernel = np.asarray(body["patches"]["kernel"], np.float64)
        embedded = [np.tensordot(piece, kernel, 3) + np.asarray(body["patches"]["bias"]) for piece in cut]
        y = np.stack([np.asarray(body["cls_token"])[0, 0], *embedded]) + np.asarray(body["positions"])[0]
        y = norm(body["norm"], blocks(body, y, np.ones(len(y), bool), eps, True), eps)
        ends = {"classes": lambda y: dense(p["head"], y[0]), "none": lambda y: y,
                "pooled": lambda y: np.tanh(dense(body["pooler"]["dense"], y[0]))}  # fmt: skip
        found.append(ends[head](y))
    return np.stack(found)


def reference_bert(p, ids, types, head, kind, pad, eps=1e-12):
    body, found = p["body"], []
    tables = {name: np.asarray(body[name]["embedding"], np.float64) for name in ("words", "positions", "types")}
    for row, kinds in zip(ids, types, strict=True):
        places, place = [], pad
        for i, token in enumerate(row):
            place += token != pad
            places.append(i if kind == "bert" else place if token != pad else pad)
        y = tables["words"][row] + tables["positions"][places] + tables["types"][kinds]
        y = blocks(body, norm(body["norm"], y, eps), row != pad, eps, False)
        if head == "pooled" or (head, kind) == ("classes", "bert"):
            y = np.tanh(dense(body["pooler"]["dense"], y[0]))
        if head == "masked_lm":
            y = norm(p["head"]["norm"], gelu(dense(p["head"]["dense"], y)), eps)
            y = y @ tables["words"].T + np.asarray(p["head"]["bias"])
        elif head == "classes":
            y = (
                dense(p["head"], y)
                if kind == "bert"
                else dense(p["head"]["out"], np.tanh(dense(p["head"]["dense"], y[0])))
            )
        found.append(y)
    return np.stack(found)


@pytest.mark.parametrize("head", ["classes", *slow("pooled", "none")])
def test_a_vit_is_the_reference(head):
    x = images(2, 8, 12, 3)
    model = models.create("vit", **VIT, head=head)
    params = random_params(model, x)
    expected = reference_vit(params, x, head)
    np.testing.assert_allclose(run(model, params, x), expected, atol=2e-5)
    assert expected.std() > 0.1


@pytest.mark.parametrize(
    ("kind", "head"),
    slow_but(
        [("roberta", "masked_lm")],
        itertools.product(["bert", "roberta"], ["classes", "masked_lm", "pooled", "none"]),
    ),
)
def test_bert_and_roberta_are_the_reference(kind, head):
    options = {"bert": BERT, "roberta": ROBERTA}[kind]
    pad = options.get("pad_id", 0)
    ids = tokens(pad)
    types = np.random.default_rng(3).integers(0, 2, ids.shape).astype(np.int32)
    model = models.create(kind, **{"eps": 1e-12, **options}, head=head)
    params = random_params(model, ids)
    expected = reference_bert(params, ids, types, head, kind, pad)
    found = run(model, params, ids, types=types)
    kept = ids != pad if found.shape[:2] == ids.shape else slice(None)
    np.testing.assert_allclose(found[kept], expected[kept], atol=5e-5)
    np.testing.assert_allclose(found[3, :1], expected[3, :1], atol=5e-5)  # one token among padding
    assert expected.std() > 0.1
    assert np.abs(run(model, params, ids) - found)[0].max() > 1e-3  # the control: types matter


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", *slow("roberta")])
def test_padding_has_no_influence_and_gets_no_gradient(kind):
    options = {"bert": BERT, "roberta": ROBERTA}[kind]
    pad = options.get("pad_id", 0)
    model = models.create(kind, **options)
    short = np.random.default_rng(4).integers(3, 20, (2, 5)).astype(np.int32)
    params = random_params(model, short)
    longer = np.pad(short, ((0, 0), (0, 4)), constant_values=pad)
    logits = run(model, params, short)
    np.testing.assert_allclose(run(model, params, longer), logits, atol=1e-6)
    everything = np.ones(longer.shape, bool)
    assert np.abs(run(model, params, longer, mask=everything) - logits).max() > 1e-3  # the control

    other = longer.copy()
    other[:, 5:] = 25  # an id found only where the mask says that nothing counts
    mask = np.arange(9)[None] < np.array([[5], [5]])

    shallow = models.create(kind, **options | SHALLOW)

    def total(p, mask):
        return (shallow.apply({"params": p}, other, mask=mask) ** 2).sum()

    gradient = jax.jit(lambda mask: jax.grad(total)(params, mask)["body"]["words"]["embedding"])
    found = np.asarray(gradient(mask))
    assert not found[25].any() and found[short[0, 0]].any()
    assert np.asarray(gradient(everything))[25].any()  # the control


def test_an_example_that_is_all_padding_is_finite_and_harms_no_other():
    model = models.create("bert", **BERT)
    ids = tokens()
    params = random_params(model, ids)
    dead = np.concatenate([ids, np.zeros((1, 7), np.int32)])
    found = run(model, params, dead)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:4], run(model, params, ids), atol=1e-6)


@pytest.mark.slow
def test_tokens_are_a_set_but_for_their_positions():
    """Patches in another order with their positions in that order too: the same logits; and without: others."""
    model = models.create("vit", **VIT)
    x = images(2, 8, 8, 3)
    params = random_params(model, x)
    order = np.array([2, 0, 3, 1])
    cut = x.reshape(2, 2, 4, 2, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 4, 4, 4, 3)[:, order]
    turned = cut.reshape(2, 2, 2, 4, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(x.shape)
    positions = params["body"]["positions"]
    moved = positions[:, np.concatenate([[0], 1 + order])]
    other = params | {"body": params["body"] | {"positions": moved}}
    np.testing.assert_allclose(run(model, other, turned), run(model, params, x), atol=1e-5)
    assert np.abs(run(model, params, turned) - run(model, params, x)).max() > 1e-2
    np.testing.assert_allclose(run(model, params, x[::-1]), run(model, params, x)[::-1], atol=1e-6)


@pytest.mark.slow
def test_masked_positions_alone_have_the_logits_that_all_have():
    model = models.create("bert", **BERT, head="masked_lm")
    ids = tokens()
    params = random_params(model, ids)
    at = np.array([[0, 3], [4, 2], [6, 1], [0, 0]], np.int32)
    whole = run(model, params, ids)
    assert whole.shape == (4, 7, 30)
    np.testing.assert_allclose(run(model, params, ids, at=at), np.take_along_axis(whole, at[:, :, None], 1), atol=5e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [("vit", VIT | SHALLOW), ("roberta", ROBERTA | SHALLOW)])
def test_dropout_needs_training_and_a_key_and_is_off_by_default(name, options):
    x = images(2, 8, 8, 3) if name == "vit" else tokens(options.get("pad_id", 0))
    plain = models.create(name, **options)
    params = random_params(plain, x)
    expected = run(plain, params, x)
    np.testing.assert_array_equal(run(plain, params, x, train=True), expected)
    for rates in ({"dropout": 0.5}, {"attention_dropout": 0.5}):
        model = models.create(name, **options, **rates)
        np.testing.assert_array_equal(run(model, params, x), expected)
        with pytest.raises(Exception, match="dropout"):
            run(model, params, x, train=True)
        one, two, three = (run(model, params, x, train=True, rngs={"dropout": jax.random.key(i)}) for i in (0, 0, 1))
        np.testing.assert_array_equal(one, two)
        assert np.abs(one - expected).max() > 1e-2 and np.abs(one - three).max() > 1e-2


@pytest.mark.slow
def test_rematerialisation_changes_memory_and_nothing_else():
    x = tokens()
    plain, again = (models.create("bert", **BERT | SHALLOW, dropout=0.3, remat=remat) for remat in (False, True))
    params = random_params(plain, x)

    def step(model):
        def total(p):
            return (model.apply({"params": p}, x, train=True, rngs={"dropout": KEY}) ** 2).sum()

        return jax.value_and_grad(total)

    traced = [jax.jit(step(model)).trace(params) for model in (plain, again)]
    assert ["remat" in str(program.jaxpr) for program in traced] == [False, True]
    found = [program.lower().compile()(params) for program in traced]
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"), [("vit", VIT), *slow(("bert", BERT), ("roberta", ROBERTA | {"head": "masked_lm"}))]
)
def test_bfloat16_computes_products_only(name, options):
    """Parameters, softmax, norms and outputs are float32; nothing is compiled for the dtypes."""
    x = images(2, 8, 8, 3) if name == "vit" else tokens(options.get("pad_id", 0))
    full, half = models.create(name, **options), models.create(name, **options, dtype=jnp.bfloat16)
    params = random_params(half, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
    program = jax.make_jaxpr(half.apply)({"params": params}, x)
    kinds = dtypes(program.jaxpr, {})
    assert kinds["dot_general", "in"] == {jnp.dtype(jnp.bfloat16)}
    assert kinds["exp", "in"] == kinds["rsqrt", "in"] == {jnp.dtype(jnp.float32)}
    assert program.out_avals[0].dtype == jnp.float32
    exact, coarse = run(full, params, x), run(half, params, x)
    assert 0 < np.abs(exact - coarse).max() < 0.1 * np.abs(exact).max()


def dtypes(jaxpr, found):
    """Of the floating-point operands of every operation, by its name."""
    for equation in jaxpr.eqns:
        kinds = {atom.aval.dtype for atom in equation.invars if jnp.issubdtype(atom.aval.dtype, jnp.floating)}
        found.setdefault((equation.primitive.name, "in"), set()).update(kinds)
        for inner in jaxprs_in_params(equation.params):
            dtypes(inner, found)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [("vit", VIT), ("roberta", ROBERTA)])
def test_models_side_by_side_are_the_models_alone(name, options):
    x = images(3, 2, 8, 8, 3) if name == "vit" else np.stack([tokens(1), tokens(1)[::-1], tokens(1)])
    model = models.create(name, **options | SHALLOW)
    params = random_params(model, x[0])
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf[::-1], 2 * leaf]), params)

    def step(p, x):
        return jax.value_and_grad(lambda p: (model.apply({"params": p}, x) ** 2).sum())(p)

    side_by_side, alone = jax.jit(jax.vmap(step))(many, x), jax.jit(step)
    for i in range(3):
        one = alone(jax.tree.map(lambda leaf, i=i: leaf[i], many), x[i])
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(side_by_side), strict=True):
            np.testing.assert_allclose(b[i], a, rtol=1e-3, atol=1e-4 * max(1, np.abs(a).max()))


def test_cubic_interpolation_by_hand():
    row = [0.7734375, 0.2265625]  # weights -27/256, 225/256, 67/256, -9/256 of the taps at -1, 0, 1, 2, edges repeated
    outer = [1.10546875, -0.10546875]
    np.testing.assert_allclose(vit.cubic(2, 4), [outer, row, row[::-1], outer[::-1]], atol=1e-12)
    np.testing.assert_array_equal(vit.cubic(5, 5), np.eye(5))
    np.testing.assert_allclose(vit.cubic(7, 3).sum(1), 1)


@pytest.mark.slow
def test_a_vit_takes_images_of_other_sizes_only_if_told_to():
    small, large = images(2, 8, 8, 3), images(2, 12, 8, 3)
    params = random_params(models.create("vit", **VIT), small)
    same = models.create("vit", **VIT, image_size=8, interpolate=True)
    np.testing.assert_array_equal(run(same, params, small), run(models.create("vit", **VIT), params, small))
    assert run(same, params, large).shape == (2, 5)
    positions = vit.resize_positions(params["body"]["positions"], (2, 2), (3, 2))
    resized = params | {"body": params["body"] | {"positions": positions}}
    other = models.create("vit", **VIT, image_size=(12, 8))
    np.testing.assert_allclose(run(other, resized, large), run(same, params, large), atol=1e-6)
    np.testing.assert_array_equal(positions[:, 0], params["body"]["positions"][:, 0])
    with pytest.raises(ValueError, match="the images are 12x8, .* image_size 8: interpolate=True"):
        run(models.create("vit", **VIT, image_size=8), params, large)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vit", {"width": 10, "heads": 3}, "3 heads do not divide the width 10"),
        ("vit", {"depth": 0, "dropout": 1.0}, r"depth must be .* got 0; dropout must lie in \[0, 1\), got 1.0"),
        ("vit", {"head": "masked_lm"}, "unknown head 'masked_lm'; known: classes, pooled, none"),
        ("vit", {"act": "gelo"}, "unknown act 'gelo'; known: gelu,"),
        ("vit", {"image_size": 30}, "patches of 16x16 do not tile images of 30x30"),
        ("vit", {"interpolate": True}, "interpolate needs image_size"),
        ("vit_b16", {"width": 3}, "unknown option 'width'"),
        ("bert", {"vocab": True}, "vocab must be an integer"),
        ("bert", {"pad_id": 30522}, "pad_id must be an id, below 30522"),
        ("roberta", {"pad_id": None}, "pad_id must be an id"),
        ("bert", {"num_classes": 0}, "num_classes must be"),
        ("bert", {"kind": "roberta"}, "unknown option 'kind'"),
    ],
)
def test_impossible_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.create(name, **options)


@pytest.mark.parametrize(
    ("kind", "ids", "message"),
    [
        ("bert", np.zeros((2, 17), np.int32), "17 tokens, but the 16 position embeddings are for at most 16"),
        ("roberta", np.zeros((2, 15), np.int32), "15 tokens, but the 16 position embeddings are for at most 14"),
        ("bert", np.zeros((2, 3), np.float32), r"token ids are integers \(B, T\), got float32 \(2, 3\)"),
        ("bert", np.zeros(3, np.int32), r"got int32 \(3,\)"),
    ],
)
def test_impossible_inputs(kind, ids, message):
    model = models.create(kind, **{"bert": BERT, "roberta": ROBERTA}[kind])
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: model.init(KEY, ids))


@pytest.mark.slow
def test_no_embedding_is_left_out_of_the_longest_text():
    model = models.create("roberta", **ROBERTA | SHALLOW)
    ids = np.full((1, 14), 5, np.int32)
    found = jax.jit(jax.grad(lambda p: model.apply({"params": p}, ids)[0, 0]))(random_params(model, ids))
    rows = np.asarray(found["body"]["positions"]["embedding"]).any(1)
    assert rows.tolist() == [False, False, *[True] * 14]


def test_attention_is_jax_s():
    q, k, v = (images(2, 5, 3, 4, seed=i) for i in range(3))
    mask = np.array([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1]], bool)
    expected = jax.nn.dot_product_attention(q, k, v, mask=mask[:, None, None, :])
    np.testing.assert_allclose(transformer.attention(q, k, v, mask), expected, atol=1e-6)
