"""ViT, BERT and RoBERTa: images of other sizes, and options and inputs that are refused."""

import jax
import numpy as np
import pytest

from tests.tna_jax.models.numpy_transformers import BERT, KEY, ROBERTA, VIT, images, random_params, run
from tna_jax import models
from tna_jax.models import vit

pytestmark = pytest.mark.usefixtures("compiled_quickly")


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
