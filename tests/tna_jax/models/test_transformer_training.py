"""ViT, BERT and RoBERTa in training: gradients of padding and embeddings, dropout, remat, dtypes, models side by side."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from tests.parameters import slow
from tests.tna_jax.models.numpy_transformers import BERT, KEY, ROBERTA, SHALLOW, VIT, images, random_params, run, tokens
from tna_jax import models

pytestmark = pytest.mark.usefixtures("compiled_quickly")


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


@pytest.mark.slow
def test_no_embedding_is_left_out_of_the_longest_text():
    model = models.create("roberta", **ROBERTA | SHALLOW)
    ids = np.full((1, 14), 5, np.int32)
    found = jax.jit(jax.grad(lambda p: model.apply({"params": p}, ids)[0, 0]))(random_params(model, ids))
    rows = np.asarray(found["body"]["positions"]["embedding"]).any(1)
    assert rows.tolist() == [False, False, *[True] * 14]
