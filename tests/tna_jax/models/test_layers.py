"""Layers: convolutions by slices are the native ones, what is computed once, pools, statistics of batches."""

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
from tna_jax.models import layers, xla_cpu


def same(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


def close(a, b, tolerance):
    """Every leaf, relative to the leaf's largest entry."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * max(1e-3, np.abs(other).max()))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("kernel_size", "strides"),
    [*slow(((3, 3), (1, 1)), ((3, 3), (2, 2)), ((1, 1), (2, 2))), ((2, 3), (1, 2)), *slow(((2, 2), (3, 3)))],
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


@pytest.mark.slow
def test_the_cnn_with_sliced_convolutions_is_the_native_one():
    x = random_images(2, 2, 18, 18, 3)

    def run(conv):
        model = models.create("cnn", num_classes=4, conv=conv)
        return jax.jit(jax.value_and_grad(lambda p: (model.apply(p, x) ** 2).sum()))(random_variables(model, x))

    native = run("native")
    close(run("slices"), native, 1e-5)
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(native))  # the control: every gradient is there to compare


@pytest.mark.slow
def test_resnet20_with_sliced_convolutions_is_the_native_one():
    x = random_images(2, 2, 9, 8, 1)
    native, sliced = (models.create("resnet20", num_classes=4, conv=conv) for conv in ("native", "slices"))
    variables = random_variables(native, x)
    close(jax.jit(sliced.apply)(variables, x), jax.jit(native.apply)(variables, x), 1e-5)


@pytest.mark.parametrize("sides", [*slow(((2, 2),), ((1, 4),)), (3, 3)])
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


@pytest.mark.slow
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


@pytest.mark.slow
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
