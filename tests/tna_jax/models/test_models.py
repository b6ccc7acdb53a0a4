"""The networks by name: parameter counts by hand, the common interface, the two convolutions, padding, errors."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from tna_jax import models
from tna_jax import placement as placement_lib
from tna_jax.models import layers, xla_cpu


def shapes(name, image=(32, 32, 3), num_classes=10, **options):
    model = models.create(name, num_classes=num_classes, **options)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *image))))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def paths(tree):
    return {jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(tree)}


def random_images(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def random_variables(model, x):
    """Values for every leaf, of about the initial ones' size (compiling `init` would take most of the tests' time)."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        spread = np.prod(leaf.shape[:-1]) ** -0.5 if path[-1].key == "kernel" else 0.1
        values = rng.normal(size=leaf.shape, scale=spread) + (path[-1].key in {"scale", "var"})
        return jnp.asarray(values, jnp.float32)

    return jax.tree.map_with_path(draw, jax.eval_shape(lambda: model.init(jax.random.key(0), x)))


def same(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


def close(a, b, tolerance):
    """Every leaf, relative to the leaf's largest entry."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * max(1e-3, np.abs(other).max()))


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
        ("vgg13", {}, 9_225_610 + 36_928 + 147_584),
        ("vgg16", {}, 9_410_122 + 590_080 + 2 * 2_359_808),
        ("vgg19", {}, 14_719_818 + 590_080 + 2 * 2_359_808),
        ("resnet20", {}, 270_906),
        ("resnet20", {"image": (28, 28, 1)}, 270_906 - 16 * 9 * 2),
        ("resnet20", {"norm": "batch"}, 270_906 + 2 * (7 * 16 + 7 * 32 + 7 * 64)),
        ("resnet20", {"norm": "layer"}, 270_906 + 2 * (7 * 16 + 7 * 32 + 7 * 64)),
        ("resnet20", {"norm": "group"}, 270_906 + 2 * (7 * 16 + 7 * 32 + 7 * 64)),
        ("resnet20_option_a", {"norm": "none"}, 270_906 - 16 * 32 - 32 * 64),
        ("resnet20_option_a", {}, 268_346 + 2 * (7 * 16 + 6 * 32 + 6 * 64)),
        ("resnet32", {}, 9 * 3 * 16 + (378 * 5 - 80) * 16**2 + 65 * 10),
        ("resnet44", {}, 9 * 3 * 16 + (378 * 7 - 80) * 16**2 + 65 * 10),
        ("resnet56", {}, 851_514),
        ("resnet110", {}, 9 * 3 * 16 + (378 * 18 - 80) * 16**2 + 65 * 10),
        ("wrn56_2", {}, 3_403_882),
        ("wrn56_4", {}, 13_611_210),
        ("wrn56_8", {}, 54_436_234),
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
        ("vit_b32", {"num_classes": 1000}, 88_224_232),
        ("vit_l16", {"num_classes": 1000}, 304_326_632),
        ("vit_l32", {"num_classes": 1000}, 306_535_400),
        ("vit_s16", {"num_classes": 1000}, 22_050_664),
        ("vit_s32", {"num_classes": 1000}, 22_050_664 + (3 * 3 * 16**2 - 196 + 49) * 384),
        ("vit_ti16", {"num_classes": 1000}, 5_717_416),
        ("vit_ti32", {"num_classes": 1000}, 5_717_416 + (3 * 3 * 16**2 - 196 + 49) * 192),
        ("vit", {"num_classes": 10, "image": (32, 32, 3), "patch": 4, "width": 96, "depth": 6, "heads": 3, "mlp": 200},
         (48 + 1 + 1 + 65) * 96 + encoder(96, 6, 200) + 2 * 96 + 97 * 10),
        ("bert_base", {"head": "pooled"}, 109_482_240),
        ("bert_base", {"head": "masked_lm"}, 109_514_298),
        ("bert_base", {"num_classes": 2}, 109_482_240 + 769 * 2),
        ("bert_large", {"head": "pooled"}, 335_141_888),
        ("roberta_base", {"head": "pooled"}, 124_645_632),
        ("roberta_base", {"num_classes": 2}, 124_645_632 + 769 * 2),  # its head has the pooler's dense layer
        ("roberta_large", {"head": "pooled"}, 355_359_744),
        ("bert", {"head": "none", "vocab": 100, "positions": 20, "width": 64, "depth": 2},
         (100 + 20 + 2 + 2) * 64 + encoder(64, 2, 256)),
        ("roberta", {"head": "none", "vocab": 100, "positions": 20, "width": 64, "depth": 2},
         (100 + 20 + 1 + 2) * 64 + encoder(64, 2, 256)),
    ],
)  # fmt: skip
def test_parameter_counts_of_the_transformers(name, options, expected):
    image, options = options.get("image", (224, 224, 3)), {k: v for k, v in options.items() if k != "image"}
    model = models.create(name, **options)
    x = jnp.zeros((1, *image)) if name.startswith("vit") else jnp.zeros((1, 4), jnp.int32)
    assert count(jax.eval_shape(lambda: model.init(jax.random.key(0), x))) == expected


def test_every_network_of_the_registry_is_counted_above():
    tests = (test_parameter_counts_of_the_convolutional_networks, test_parameter_counts_of_the_transformers)
    marks = [mark for test in tests for mark in test.pytestmark]
    assert {case[0] for mark in marks for case in mark.args[1]} | {"mlp"} == set(models.MODELS)


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


@pytest.mark.parametrize("norm", layers.NORMS)
@pytest.mark.parametrize("name", ["cnn", "vgg11", "resnet20_option_a"])
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


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("kernel_size", "strides"),
    [((3, 3), (1, 1)), ((3, 3), (2, 2)), ((1, 1), (2, 2)), ((2, 3), (1, 2)), ((2, 2), (3, 3))],
)
def test_sliced_convolution_is_the_native_one(kernel_size, strides, padding):
    """Two models batched, on an even and an odd side; values and gradients by parameters and inputs."""
    x = random_images(1, 2, 3, 8, 7, 3)
    params = {"kernel": random_images(2, 2, *kernel_size, 3, 5), "bias": random_images(3, 2, 5)}

    def run(implementation):
        conv = layers.Conv(5, kernel_size, strides, padding, implementation=implementation)

        def loss(p, x):
            y = jax.vmap(lambda p, x: conv.apply({"params": p}, x))(p, x)
            return (y**2).sum(), y

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, x)

    close(run("slices"), run("native"), 1e-5)


def test_both_convolutions_start_from_the_same_values():
    x = random_images(1, 1, 4, 4, 3)
    native, sliced = (layers.Conv(5, (3, 3), implementation=i).init(jax.random.key(0), x) for i in layers.CONVS)
    assert same(native, sliced) and np.asarray(native["params"]["kernel"]).any()


def test_the_cnn_with_sliced_convolutions_is_the_native_one():
    x = random_images(2, 2, 18, 18, 3)

    def run(conv):
        model = models.create("cnn", num_classes=4, conv=conv)
        return jax.jit(jax.value_and_grad(lambda p: (model.apply(p, x) ** 2).sum()))(random_variables(model, x))

    native = run("native")
    close(run("slices"), native, 1e-5)
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(native))  # the control: every gradient is there to compare


def test_resnet20_with_sliced_convolutions_is_the_native_one():
    x = random_images(2, 2, 9, 8, 1)
    native, sliced = (models.create("resnet20", num_classes=4, conv=conv) for conv in ("native", "slices"))
    variables = random_variables(native, x)
    close(jax.jit(sliced.apply)(variables, x), jax.jit(native.apply)(variables, x), 1e-5)


@pytest.mark.parametrize("sides", [(2, 2), (1, 4), (3, 3)])
def test_images_smaller_than_the_kernel_are_convolved_as_xla_does(sides):
    x = random_images(1, 2, *sides, 3)
    params = {"kernel": random_images(2, 3, 3, 3, 5), "bias": random_images(3, 5)}

    def run(conv):
        return jax.value_and_grad(lambda p, x: (conv.apply({"params": p}, x) ** 2).sum(), (0, 1))(params, x)

    close(run(layers.Conv(5, (3, 3))), run(nn.Conv(5, (3, 3))), 1e-5)
    form = str(jax.make_jaxpr(layers.Conv(5, (3, 3)).apply)({"params": params}, x))
    assert ("conv_general_dilated" in form) == (min(sides) >= 3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_what_is_computed_once_is_the_same_bit_for_bit(dtype):
    x = jnp.asarray(random_images(1, 2, 3, 3, 4)).astype(dtype).at[0, 0, 0, 0].set(-0.0)
    kept = jax.jit(lambda x: xla_cpu.no_recompute(x, xla_cpu.opaque_one(x)))(x)
    bits = np.dtype(f"u{x.dtype.itemsize}")
    np.testing.assert_array_equal(np.asarray(kept).view(bits), np.asarray(x).view(bits))


def compiled(model, x, devices: int) -> str:
    """The program of the gradient, a model on each device."""
    mesh = Mesh(jax.devices()[:devices], (placement_lib.AXIS,))
    one = random_variables(model, x)
    many = placement_lib.shard(jax.tree.map(lambda leaf: np.stack([leaf] * devices), one), mesh)
    step = placement_lib.shard_map_single(jax.grad(lambda p, x: model.apply(p, x).sum()), mesh, 1)
    return jax.jit(step).lower(many, placement_lib.replicate(x, mesh)).compile().as_text()


@pytest.mark.cpu_only("a work-around for the compiler for CPUs")
@pytest.mark.slow
def test_a_residual_stream_is_not_summed_again_for_each_block(monkeypatch):
    """ReLUs of the compiled program, as often as they are computed again, grow with the depth, not with its square."""

    def relus(network):
        return compiled(models.create(network, num_classes=2), random_images(1, 1, 16, 16, 1), 1).count(" maximum(")

    assert relus("resnet44") / relus("resnet20") < 44 / 20 * 1.3
    monkeypatch.setattr(xla_cpu, "no_recompute", lambda x, one: x)
    assert relus("resnet44") / relus("resnet20") > 44 / 20 * 1.3  # the control


@pytest.mark.cpu_only("a work-around for the compiler for CPUs")
@pytest.mark.slow
def test_a_residual_stream_is_not_summed_again_on_several_devices_either():
    """Their programs are simplified as if all numbers were real."""
    vit = models.create("vit", num_classes=2, image_size=16, width=32, heads=2, patch=4, depth=4)
    alone, side_by_side = (compiled(vit, random_images(1, 4, 16, 16, 3), n).count(" multiply(") for n in (1, 2))
    assert side_by_side < 1.3 * alone


def test_tied_entries_share_the_gradient_of_a_max_pool():
    x = jnp.array([[1.0, 1.0, 5.0], [0.0, 1.0, 5.0]]).reshape(1, 2, 3, 1)
    found = jax.grad(lambda x: 6 * xla_cpu.max_pool(x).sum())(x)
    np.testing.assert_array_equal(found.reshape(2, 3), [[2, 2, 0], [0, 2, 0]])


def test_max_pool_is_the_windowed_one_and_its_gradient_goes_to_the_largest():
    x = random_images(5, 2, 7, 6, 3)
    np.testing.assert_array_equal(xla_cpu.max_pool(x), nn.max_pool(x, (2, 2), (2, 2)))
    ours = jax.grad(lambda x: (xla_cpu.max_pool(x) ** 2).sum())(x)
    np.testing.assert_array_equal(ours, jax.grad(lambda x: (nn.max_pool(x, (2, 2), (2, 2)) ** 2).sum())(x))


def test_padding_enters_no_batch_statistic():
    """Filled up with any numbers at weight 0, a batch has the statistics and logits of its real examples alone."""
    model = models.create("cnn", num_classes=4, norm="batch")
    x = random_images(3, 5, 18, 18, 1)
    garbage = np.full((3, 18, 18, 1), 1e6, np.float32)
    variables = random_variables(model, x)
    step = jax.jit(lambda x, weight: model.apply(variables, x, train=True, weight=weight, mutable=["batch_stats"]))
    filled = np.concatenate([x, garbage])
    logits, state = step(x, None)
    kept = jnp.arange(8) < 5
    for weight in (kept, kept.astype(jnp.float32), kept.astype(jnp.float32) * np.float32(0.5)):
        padded_logits, padded_state = step(filled, weight)
        close(padded_state, state, 1e-5)
        close(padded_logits[:5], logits, 1e-5)
    _, wrong = step(filled, jnp.ones(8, bool))  # the control: counted, they would show
    assert np.abs(wrong["batch_stats"]["norm1"]["mean"]).max() > 100


def test_statistics_follow_the_batch_in_training_and_stand_in_evaluation():
    """The running average is 0.9 * old + 0.1 * batch, from (0, 1): the first norm of the CNN, by NumPy."""
    model = models.create("cnn", num_classes=4, norm="batch")
    x = random_images(4, 3, 18, 18, 1)
    params = random_variables(model, x)["params"]
    widths = {"norm1": 32, "norm2": 64, "norm3": 64}
    start = {name: {"mean": jnp.zeros(width), "var": jnp.ones(width)} for name, width in widths.items()}
    variables = {"params": params, "batch_stats": start}
    _, updated = jax.jit(lambda v: model.apply(v, x, train=True, mutable=["batch_stats"]))(variables)
    first = layers.Conv(32, (3, 3), padding="VALID").apply({"params": params["conv1"]}, x)
    found = updated["batch_stats"]["norm1"]
    np.testing.assert_allclose(found["mean"], 0.1 * np.mean(first, (0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(found["var"], 0.9 + 0.1 * np.var(first, (0, 1, 2)), atol=1e-6)
    _, unchanged = jax.jit(lambda v: model.apply(v, x, mutable=["batch_stats"]))(variables)
    assert same(unchanged["batch_stats"], variables["batch_stats"])


def test_an_unknown_model_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="unknown model 'mpl': did you mean 'mlp'"):
        models.create("mpl", num_classes=10)
    with pytest.raises(ValueError, match="unknown model 'resnet18': did you mean 'resnet110'"):
        models.create("resnet18", num_classes=10)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mlp", {"norm": "batch"}, "unknown option 'norm'; options: num_classes, depth, width, dtype"),
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
