"""ViT, BERT and RoBERTa: against a plain NumPy forward pass, padding without influence, tokens as a set."""

import itertools

import jax
import numpy as np
import pytest

from tests.parameters import slow, slow_but
from tests.tna_jax.models.numpy_transformers import (
    BERT,
    ROBERTA,
    VIT,
    images,
    random_params,
    reference_bert,
    reference_vit,
    run,
    tokens,
)
from tna_jax import models
from tna_jax.models import transformer

pytestmark = pytest.mark.usefixtures("compiled_quickly")


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


def test_attention_is_jax_s():
    q, k, v = (images(2, 5, 3, 4, seed=i) for i in range(3))
    mask = np.array([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1]], bool)
    expected = jax.nn.dot_product_attention(q, k, v, mask=mask[:, None, None, :])
    np.testing.assert_allclose(transformer.attention(q, k, v, mask), expected, atol=1e-6)
