"""The networks by name: parameter counts by hand, the common interface, the two convolutions, padding, errors."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from tests.parameters import slow
from tests.tna_jax.models.variables import random_images, random_variables
from tna_jax import models
from tna_jax import placement as placement_lib
from tna_jax.models import layers


def shapes(name, image=(32, 32, 3), num_classes=10, **options):
    model = models.create(name, num_classes=num_classes, **options)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *image))))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def paths(tree):
    return {jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(tree)}


@pytest.mark.parametrize(
    ("inputs", "depth", "width", "expected"),
    [
        (784, 1, 200, 159_010),
        (784, 2, 200, 199_210),
        (784, 8, 200, 440_410),
        (784, 2, 1600, 3_833_610),
        (3072, 2, 200, 656_810),
    ],
)
def test_parameter_counts_of_the_mlp(inputs, depth, width, expected):
    assert count(shapes("mlp", (inputs,), depth=depth, width=width)) == expected


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("cnn", {}, 122_570),
        ("cnn", {"num_classes": 100}, 128_420),
        ("cnn", {"image": (28, 28, 1)}, 93_322),  # 576 weights fewer in conv1, 576 instead of 1024 inputs of dense
        ("cnn", {"norm": "group"}, 122_570 + 2 * (32 + 64 + 64)),
        ("cnn", {"widen": 2}, 2 * 896 + (18_432 + 36_864 + 65_536) * 4 + 2 * (64 + 64 + 64) + 1_290),
        ("vgg11", {}, 9_225_610),
        ("vgg11", {"norm": "batch"}, 9_231_114),
        ("vgg11", {"image": (28, 28, 1)}, 9_225_610 - 64 * 9 * 2),
        ("vgg19", {}, 14_719_818 + 590_080 + 2 * 2_359_808),
        ("resnet20", {}, 270_906),
        ("resnet20", {"image": (28, 28, 1)}, 270_906 - 16 * 9 * 2),
        ("resnet20", {"norm": "batch"}, 270_906 + 2 * (7 * 16 + 7 * 32 + 7 * 64)),
        ("resnet20_option_a", {"norm": "none"}, 270_906 - 16 * 32 - 32 * 64),
        ("resnet20_option_a", {}, 268_346 + 2 * (7 * 16 + 6 * 32 + 6 * 64)),
        ("resnet32", {}, 9 * 3 * 16 + (378 * 5 - 80) * 16**2 + 65 * 10),
        *slow(
            ("resnet44", {}, 9 * 3 * 16 + (378 * 7 - 80) * 16**2 + 65 * 10),
            ("resnet56", {}, 851_514),
            ("wrn56_2", {}, 3_403_882),
            ("resnet20", {"norm": "layer"}, 270_906 + 2 * (7 * 16 + 7 * 32 + 7 * 64)),
            ("resnet20", {"norm": "group"}, 270_906 + 2 * (7 * 16 + 7 * 32 + 7 * 64)),
            ("vgg13", {}, 9_225_610 + 36_928 + 147_584),
            ("vgg16", {}, 9_410_122 + 590_080 + 2 * 2_359_808),
            ("resnet110", {}, 9 * 3 * 16 + (378 * 18 - 80) * 16**2 + 65 * 10),
            ("wrn56_4", {}, 13_611_210),
            ("wrn56_8", {}, 54_436_234),
        ),
    ],
)
def test_parameter_counts_of_the_convolutional_networks(name, options, expected):
    variables = shapes(name, **options)
    assert count(variables["params"]) == expected
    norm = options.get("norm", "batch" if name == "resnet20_option_a" else "none")
    assert ("batch_stats" in variables) == (norm == "batch")


def encoder(width, depth, mlp):
    """Parameters of `depth` blocks: four square dense layers and two of the mlp with biases, two norms."""
    return depth * (4 * (width + 1) * width + 2 * width * mlp + mlp + width + 4 * width)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("vit_b16", {"num_classes": 1000}, 86_567_656),
        *slow(("vit_b32", {"num_classes": 1000}, 88_224_232),
        ("vit_l16", {"num_classes": 1000}, 304_326_632),
        ("vit_l32", {"num_classes": 1000}, 306_535_400),
        ("vit_s16", {"num_classes": 1000}, 22_050_664),
        ("vit_s32", {"num_classes": 1000}, 22_050_664 + (3 * 3 * 16**2 - 196 + 49) * 384),
        ("vit_ti16", {"num_classes": 1000}, 5_717_416),
        ("vit_ti32", {"num_classes": 1000}, 5_717_416 + (3 * 3 * 16**2 - 196 + 49) * 192)),
        ("vit", {"num_classes": 10, "image": (32, 32, 3), "patch": 4, "width": 96, "depth": 6, "heads": 3, "mlp": 200},
         (48 + 1 + 1 + 65) * 96 + encoder(96, 6, 200) + 2 * 96 + 97 * 10),
        *slow(("dinov2_s", {"head": "none", "image": (518, 518, 3)}, 22_056_576 - 384),  # as published, but the mask token
              ("dinov2_b", {"head": "none", "image": (518, 518, 3)}, 86_580_480 - 768),
              ("dinov2_l", {"head": "none", "image": (518, 518, 3)}, 304_368_640 - 1024)),
        ("dinov2", {"num_classes": 10, "image": (56, 56, 3), "width": 96, "depth": 2, "registers": 4},
         (3 * 14 * 14 + 1 + 1 + 17 + 4) * 96 + encoder(96, 2, 384) + 2 * 2 * 96 + 2 * 96 + (2 * 96 + 1) * 10),
        *slow(("bert_base", {"head": "pooled"}, 109_482_240)),
        ("bert_base", {"head": "masked_lm"}, 109_514_298),
        *slow(("bert_base", {"num_classes": 2}, 109_482_240 + 769 * 2), ("bert_large", {"head": "pooled"}, 335_141_888),
              ("roberta_base", {"head": "pooled"}, 124_645_632),
              ("roberta_base", {"num_classes": 2}, 124_645_632 + 769 * 2),  # its head has the pooler's dense layer
              ("roberta_large", {"head": "pooled"}, 355_359_744)),
        ("bert", {"head": "none", "vocab": 100, "positions": 20, "width": 64, "depth": 2},
         (100 + 20 + 2 + 2) * 64 + encoder(64, 2, 256)),
        ("roberta", {"head": "none", "vocab": 100, "positions": 20, "width": 64, "depth": 2},
         (100 + 20 + 1 + 2) * 64 + encoder(64, 2, 256)),
        *slow(("distilbert", {"width": 768, "depth": 6, "head": "none"}, 66_362_880),
              ("electra", {"width": 256, "depth": 12, "mlp": 1024, "embedding": 128}, 13_549_314),  # small, with two classes
              ("gpt2", {"width": 768}, 124_439_808)),
        ("llama", {"width": 2048, "depth": 22, "heads": 32, "kv_heads": 4, "mlp": 5632}, 1_100_048_384),  # TinyLlama
    ],
)  # fmt: skip
def test_parameter_counts_of_the_transformers(name, options, expected):
    image, options = options.get("image", (224, 224, 3)), {k: v for k, v in options.items() if k != "image"}
    model = models.create(name, **options)
    x = jnp.zeros((1, *image)) if name.startswith(("vit", "dinov2")) else jnp.zeros((1, 4), jnp.int32)
    assert count(jax.eval_shape(lambda: model.init(jax.random.key(0), x))) == expected


def test_every_network_of_the_registry_is_counted_above():
    tests = (test_parameter_counts_of_the_convolutional_networks, test_parameter_counts_of_the_transformers)
    marks = [mark for test in tests for mark in test.pytestmark]
    cases = [getattr(case, "values", case) for mark in marks for case in mark.args[1]]
    assert {case[0] for case in cases} | {"mlp"} == set(models.MODELS)


def test_names_of_the_submodules():
    block = {f"{layer}/kernel" for layer in ("conv1", "conv2")}
    block |= {f"{layer}/{leaf}" for layer in ("norm1", "norm2") for leaf in ("scale", "bias")}
    change = {"shortcut/kernel", "shortcut_norm/scale", "shortcut_norm/bias"}
    expected = {"stem/kernel", "stem_norm/scale", "stem_norm/bias", "head/kernel", "head/bias"}
    for stage in (1, 2, 3):
        for i in range(3):
            here = block | change if stage > 1 and i == 0 else block
            expected |= {f"stage{stage}_block{i}/{leaf}" for leaf in here}
    assert paths(shapes("resnet20", norm="layer")["params"]) == expected
    both = ("conv1", "conv2", "conv3", "dense", "head")
    assert paths(shapes("cnn")["params"]) == {f"{layer}/{leaf}" for layer in both for leaf in ("kernel", "bias")}
    vgg = paths(shapes("vgg16", norm="batch"))
    assert {"params/stage5_conv3/kernel", "batch_stats/stage5_norm3/var", "params/head/bias"} <= vgg
    assert {path.split("/")[0] for path in paths(shapes("mlp", depth=2)["params"])} == {"Dense_0", "Dense_1", "Dense_2"}
    normed = shapes("mlp", (784,), depth=2, width=200, norm="layer")["params"]
    assert {path.split("/")[0] for path in paths(normed)} == {"Dense_0", "Dense_1", "Dense_2", "norm_0", "norm_1"}
    assert count({"params": normed}) == 199_210 + 2 * 2 * 200


@pytest.mark.parametrize("norm", layers.NORMS)
@pytest.mark.parametrize("name", ["cnn", *slow("vgg11", "resnet20_option_a")])
@pytest.mark.parametrize(
    ("image", "dtype", "conv"), [((28, 28, 1), None, "native"), ((32, 32, 3), jnp.bfloat16, "slices")]
)
def test_logits_parameters_and_statistics_are_float32_whatever_the_compute_dtype(name, norm, image, dtype, conv):
    """Shapes and dtypes only, in training and evaluation, under strict promotion: nothing is compiled."""
    model = models.create(name, num_classes=7, norm=norm, conv=conv, dtype=dtype)
    x, weight = jnp.zeros((2, *image)), jnp.ones(2)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    step = jax.make_jaxpr(
        lambda v: model.apply(v, x, train=True, weight=weight, mutable=["batch_stats"]), return_shape=True
    )
    program, (logits, updated) = step(variables)
    for found in (logits, jax.eval_shape(lambda v: model.apply(v, x), variables)):
        assert found.shape == (2, 7) and found.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, updated))} == {np.dtype("float32")}
    assert ("batch_stats" in updated) == (norm == "batch")
    assert ("conv_general_dilated" in str(program)) == (conv == "native")
    assert ("bf16[2,7]" in str(program)) == (dtype is jnp.bfloat16)  # the control: the head did compute in bfloat16


@pytest.mark.parametrize("kind", layers.NORMS)
def test_norm_layers_return_the_compute_dtype(kind):
    class One(nn.Module):
        @nn.compact
        def __call__(self, x):
            return layers.norm(kind, 8, jnp.bfloat16, True, None, "norm")(x)

    found, _ = jax.eval_shape(lambda: One().init_with_output(jax.random.key(0), jnp.zeros((2, 3, 3, 16), jnp.bfloat16)))
    assert found.dtype == jnp.bfloat16


def test_the_mlp_has_the_common_interface():
    model = models.create("mlp", num_classes=3, depth=2, width=8)
    x = random_images(0, 4, 8, 8, 1)
    variables = random_variables(model, x)
    logits = model.apply(variables, x)
    padded = model.apply(variables, x, train=True, weight=jnp.zeros(4))
    np.testing.assert_array_equal(logits, padded)
    half = models.create("mlp", num_classes=3, depth=2, width=8, dtype=jnp.bfloat16)
    products = [eqn for eqn in jax.make_jaxpr(half.apply)(variables, x).eqns if eqn.primitive.name == "dot_general"]
    assert [eqn.outvars[0].aval.dtype for eqn in products] == [jnp.bfloat16] * 3
    coarse = half.apply(variables, x)
    assert coarse.dtype == jnp.float32 and (coarse != logits).any()
    np.testing.assert_allclose(coarse, logits, atol=0.05)


def compiled(model, x, devices: int) -> str:
    """The program of the gradient, a model on each device."""
    mesh = Mesh(jax.devices()[:devices], (placement_lib.AXIS,))
    one = random_variables(model, x)
    many = placement_lib.shard(jax.tree.map(lambda leaf: np.stack([leaf] * devices), one), mesh)
    step = placement_lib.shard_map_single(jax.grad(lambda p, x: model.apply(p, x).sum()), mesh, 1)
    return jax.jit(step).lower(many, placement_lib.replicate(x, mesh)).compile().as_text()


def test_an_unknown_model_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="unknown model 'mpl': did you mean 'mlp'"):
        models.create("mpl", num_classes=10)
    with pytest.raises(ValueError, match="unknown model 'resnet18': did you mean 'resnet110'"):
        models.create("resnet18", num_classes=10)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mlp", {"groups": 2}, "unknown option 'groups'; options: num_classes, depth, width, dtype, norm"),
        ("mlp", {"norm": "group"}, "unknown norm of an mlp 'group'; known: none, batch, layer"),
        ("cnn", {"depth": 3, "width": 9}, "unknown options 'depth', 'width'; options: num_classes, dtype, norm"),
        ("resnet20", {"depth": 32}, "unknown option 'depth'; options: num_classes, dtype, norm, groups, widen, conv"),
        ("resnet20_option_a", {"shortcut": "conv"}, "unknown option 'shortcut'"),
        ("wrn56_2", {"widen": 4}, "unknown option 'widen'"),
        ("vgg11", {"norm": "instance"}, "unknown norm 'instance'; known: none, batch, layer, group"),
        ("cnn", {"conv": "fft"}, "unknown conv 'fft'; known: native, slices"),
        ("cnn", {"widen": 1.5}, "widen must be an integer of at least 1, got 1.5"),
        ("cnn", {"num_classes": 0}, "num_classes must be an integer of at least 1, got 0"),
    ],
)  # fmt: skip
def test_options_that_do_not_exist_are_refused_at_construction(name, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        models.create(name, **{"num_classes": 10, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.VGG(10, depth=12), "unknown depth of a VGG 12; known: 11, 13, 16, 19"),
        (lambda: models.ResNet(10, depth=18), "unknown depth of a ResNet 18; known: 20, 32, 44, 56, 110"),
        (lambda: models.ResNet(10, shortcut="c"), "unknown shortcut 'c'; known: conv, zeros"),
        (lambda: layers.Conv(4, (3, 3), padding="CIRCULAR"), "unknown padding 'CIRCULAR'; known: SAME, VALID"),
        (lambda: shapes("cnn", (8, 8, 1)), "sides of at least 18, got 8 x 8"),
        (lambda: shapes("cnn", (32, 17, 1)), "sides of at least 18, got 32 x 17"),
        (lambda: shapes("vgg11", (784,)), r"images \(B, H, W, C\), got the shape \(1, 784\)"),
        (lambda: shapes("resnet20", norm="group", groups=5), "5 groups do not divide the 16 channels of stem_norm"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_least_images():
    """The errors' other side: 18x18 gives the CNN's last convolution one position; VGG skips pools at a side of 1."""
    assert shapes("cnn", (18, 18, 1))["params"]["dense"]["kernel"].shape == (64, 64)
    for side, positions in ((1, 1), (8, 1), (28, 1), (32, 1), (64, 4)):
        assert shapes("vgg11", (side, side, 1))["params"]["head"]["kernel"].shape == (512 * positions, 10)
