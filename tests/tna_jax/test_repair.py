"""A repaired network has its ends' moments in every layer, and only then."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import slow, slow_but
from tests.tna_jax.normed_networks import KEY, Normed, close, normed, perturbed, quick_jit, some_inputs
from tna_jax import interpolation, models, repair
from tna_jax.models.layers import Conv


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


class Mixed(nn.Module):
    """A convolution without bias, one of slices with bias, a dense layer without bias, a head."""

    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), use_bias=False, dtype=self.dtype, name="first")(x))
        x = nn.relu(Conv(6, (3, 3), (2, 2), dtype=self.dtype, implementation="slices", name="second")(x))
        x = nn.relu(nn.Dense(5, use_bias=False, dtype=self.dtype, name="third")(x.reshape(x.shape[0], -1)))
        return nn.Dense(3, dtype=self.dtype, name="head")(x).astype(jnp.float32)


RESNET = [f"stage{s}_block{b}/conv{c}" for s in (1, 2, 3) for b in (0, 1, 2) for c in (1, 2)]
RESNET += [f"stage{s}_block0/shortcut" for s in (2, 3)]
NETS = {  # module, shape, layers but the head, those without a bias
    "mlp": (models.create("mlp", num_classes=3, depth=3, width=7), (6,), ["Dense_0", "Dense_1", "Dense_2"], []),
    "mixed": (Mixed(), (6, 6, 2), ["first", "second", "third"], ["first", "third"]),
    "cnn": (models.create("cnn", num_classes=4), (18, 18, 3), ["conv1", "conv2", "conv3", "dense"], []),
    "resnet20": (models.create("resnet20", num_classes=4), (8, 8, 3), ["stem", *RESNET], ["stem", *RESNET]),
}
SMALL = ["mlp", "mixed"]


def two_ends(name, count=16):
    module, shape, *_ = NETS[name]
    inputs = np.random.default_rng(5).normal(0.5, 1, (count, *shape)).astype(np.float32)
    shapes = jax.eval_shape(module.init, KEY, inputs)["params"]

    def end(seed):  # as initialised, but with biases that are not 0
        generator = np.random.default_rng(seed)

        def draw(leaf):
            size = np.prod(leaf.shape[:-1]) ** -0.5 if leaf.ndim > 1 else 0.1
            return jnp.asarray(generator.normal(0, size, leaf.shape), jnp.float32)

        return jax.tree.map(draw, shapes)

    return module, jnp.asarray(inputs), end(1), end(2)


@functools.partial(jax.jit, static_argnums=0)
def forward(module, params, inputs, shift=None):
    """Logits, and mean and deviation of every layer's outputs with `shift` added: the test's own measurement."""
    shift, found = shift or {}, {}

    def look(call, arguments, options, context):
        output = call(*arguments, **options)
        if isinstance(context.module, nn.Conv | nn.Dense) and context.method_name == "__call__":
            path = "/".join(context.module.path)
            if path in shift:
                output = output + jnp.broadcast_to(shift[path], output.shape)
            axes = tuple(range(output.ndim - 1))
            found[path] = jnp.stack([jnp.mean(output, axes), jnp.std(output, axes)])
        return output

    with nn.intercept_methods(look):
        logits = module.apply({"params": params}, inputs)
    return logits, found


@functools.cache
def programs(network, **options):
    """`repair.repair` and `Repaired.apply` of a network, each as one program, and where the first says which layers it repaired."""
    layers = []

    @jax.jit
    def run(params, ends, weights, inputs):
        made = repair.repair(network, params, ends, weights, inputs, **options)
        layers[:] = made.layers
        return made.params, made.shift

    return run, jax.jit(lambda params, shift, x: repair.Repaired(params, shift, ()).apply(network, x)), layers


def repaired(network, params, ends, weights, inputs, **options):
    """`repair.repair`, compiled: run operation by operation it compiles each of them."""
    run, _, layers = programs(network, **options)
    params, shift = run(params, ends, np.array(weights, np.float32), inputs)
    return repair.Repaired(params, shift, tuple(layers))


def repaired_line(network, a, b, alpha, inputs, **options):
    return repaired(network, line(a, b, alpha), [a, b], [1 - alpha, alpha], inputs, **options)


def applied(network, made, inputs):
    return programs(network)[1](made.params, made.shift, inputs)


line = jax.jit(interpolation.line)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", *slow("mixed", "cnn", "resnet20")])
def test_repaired_layers_have_the_weighted_moments_of_the_ends(name):
    module, inputs, a, b = two_ends(name, count=8)
    *_, layers, without_bias = NETS[name]
    repaired_layers = []

    @quick_jit
    def results(a, b, inputs):
        made = repair.repair_line(module, a, b, 0.3, inputs)
        repaired_layers.extend(made.layers)
        middle, none = interpolation.line(a, b, 0.3), jax.tree.map(jnp.zeros_like, made.shift)
        each = [(a, none), (b, none), (middle, none), (made.params, none), (made.params, made.shift)]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
        measured = jax.lax.map(lambda model: forward(module, model[0], inputs, model[1]), stacked)
        return made.params, middle, made.shift, made.apply(module, inputs), measured

    params, middle, shift, logits, (own_logits, measured) = results(a, b, inputs)
    assert sorted(repaired_layers) == sorted(layers)
    assert sorted(shift) == sorted(without_bias)
    for path in layers:
        first, second, before, _, after = measured[path]
        goal = 0.7 * first + 0.3 * second
        np.testing.assert_allclose(after, goal, rtol=1e-4, atol=1e-4, err_msg=path)
        assert np.abs(before - goal).max() > 0.01, path  # the control
    (last,) = set(measured) - set(layers)
    close(params[last], middle[last])
    close(logits, own_logits[4], 1e-4, 1e-5)
    by_params_alone = np.allclose(own_logits[3], logits, rtol=1e-4, atol=1e-5)
    assert by_params_alone == (not without_bias)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", *slow("mixed")])
def test_many_ends_with_any_weights(name):
    module, inputs, a, b = two_ends(name)
    ends, weights = [a, b, perturbed(a, 8)], [0.5, 0.2, 0.3]
    fused = jax.tree.map(lambda *leaves: sum(np.float32(w) * x for w, x in zip(weights, leaves, strict=True)), *ends)
    made = repaired(module, fused, ends, weights, inputs)
    measured = [forward(module, end, inputs)[1] for end in ends]
    after = forward(module, made.params, inputs, made.shift)[1]
    for path in made.layers:
        goal = sum(w * m[path] for w, m in zip(weights, measured, strict=True))
        np.testing.assert_allclose(after[path], goal, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*slow("mlp"), "mixed"])
@pytest.mark.slow
def test_one_end_or_equal_ends_give_the_model_back(name):
    module, inputs, a, b = two_ends(name)
    plain = forward(module, a, inputs)[0]
    for ends, weights in (([a], [1.0]), ([a, b], [1.0, 0.0]), ([a, a], [0.25, 0.75])):
        made = repaired(module, a, ends, weights, inputs)
        close(made.params, a, 1e-4, 1e-5)
        close(made.shift, jax.tree.map(jnp.zeros_like, made.shift), atol=1e-5)
        close(made.apply(module, inputs), plain, 1e-4, 1e-5)
    changed = repair.repair(module, a, [a, b], [0.5, 0.5], inputs)  # the control
    assert np.abs(changed.apply(module, inputs) - plain).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", [*slow("mlp"), "mixed"])
def test_the_ends_of_a_repaired_line_are_the_ends(name):
    module, inputs, a, b = two_ends(name)
    for alpha, end in ((0.0, a), (1.0, b)):
        made = repaired_line(module, a, b, alpha, inputs)
        close(made.params, end, 1e-4, 1e-5)
        close(applied(module, made, inputs), forward(module, end, inputs)[0], 1e-4, 1e-5)


@pytest.mark.parametrize("name", slow_but(["mlp"], SMALL))
def test_inputs_of_repair_are_not_changed(name):
    module, inputs, a, b = two_ends(name)
    fused = line(a, b, 0.5)
    before = jax.tree.map(np.array, (fused, a, b))
    made = repair.repair(module, fused, [a, b], [0.5, 0.5], inputs)  # operation by operation
    assert same((fused, a, b), before)
    assert not same(made.params, fused)


SKIPS = {
    "the last layer (default)": (None, ["first", "second", "third"]),
    "one more": (lambda path: path in ("second", "head"), ["first", "third"]),
    "nothing": (lambda path: False, ["first", "second", "third", "head"]),
    "everything": (lambda path: True, []),
}


@pytest.mark.parametrize(("skip", "expected"), slow_but([SKIPS["one more"]], SKIPS.values()), ids=SKIPS)
def test_skip(skip, expected):
    module, inputs, a, b = two_ends("mixed")
    fused = line(a, b, 0.5)
    made = repaired(module, fused, [a, b], [0.5, 0.5], inputs, skip=skip)
    assert list(made.layers) == expected  # in the order of the network
    ends = [forward(module, end, inputs)[1] for end in (a, b)]
    after = forward(module, made.params, inputs, made.shift)[1]
    for path in fused:
        assert same(made.params[path], fused[path]) == (path not in expected)
        goal = 0.5 * (ends[0][path] + ends[1][path])
        assert np.allclose(after[path], goal, rtol=1e-4, atol=1e-4) == (path in expected)


@pytest.mark.slow
@pytest.mark.parametrize("bias", [*slow(0.0, 0.1), -123.4])
def test_constant_units_are_shifted_not_rescaled(bias):
    module, inputs, a, b = two_ends("mlp", count=1000)  # so many that their mean is not the constant, by rounding
    fused = jax.tree.map(np.array, line(a, b, 0.5))
    layer = fused["Dense_0"]
    layer["kernel"][:, 2] = 0
    layer["bias"][2] = bias
    made = repaired(module, fused, [a, b], [0.5, 0.5], inputs)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(made.params))
    np.testing.assert_array_equal(made.params["Dense_0"]["kernel"][:, 2], 0)
    ends = [forward(module, end, inputs)[1]["Dense_0"] for end in (a, b)]
    goal = 0.5 * (ends[0] + ends[1])
    np.testing.assert_allclose(made.params["Dense_0"]["bias"][2], goal[0, 2], rtol=1e-4, atol=1e-4)
    after = forward(module, made.params, inputs)[1]["Dense_0"]
    others = np.arange(7) != 2
    np.testing.assert_allclose(after[:, others], goal[:, others], rtol=1e-4, atol=1e-4)
    assert goal[1, 2] > 0.1 and after[1, 2] < 1e-4


def test_a_layer_behind_dead_units_stays_finite():
    module, inputs, a, b = two_ends("mixed")
    dead = jax.tree.map(np.array, line(a, b, 0.5))
    dead["first"]["kernel"][:] = 0
    for ends in ([a, b], [dead, dead], [dead, b]):
        made = repaired(module, dead, ends, [0.5, 0.5], inputs)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((made.params, made.shift)))
        assert np.isfinite(applied(module, made, inputs)).all()


@pytest.mark.slow
def test_half_precision_parameters_and_compute_keep_their_dtypes():
    _, inputs, a, b = two_ends("mixed")

    def results(module, a, b):
        made = repair.repair_line(module, a, b, 0.5, inputs)
        return made.params, made.shift, made.apply(module, inputs)

    results = quick_jit(results, static_argnums=0)
    halves = [jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), end) for end in (a, b)]
    params, shift, logits = results(Mixed(jnp.bfloat16), *halves)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in shift.values()} == {jnp.dtype(jnp.float32)}
    exact = results(Mixed(), a, b)[2]
    np.testing.assert_allclose(logits, exact, atol=0.01)
    assert np.abs(exact - Mixed().apply({"params": interpolation.line(a, b, 0.5)}, inputs)).max() > 0.05


@pytest.mark.slow
def test_preprocess_is_run_on_the_inputs_of_repair():
    module, inputs, a, b = two_ends("mlp")
    stored = np.round(np.asarray(inputs) * 20).astype(np.int8)

    def scaled(x):
        return x.astype(np.float32) / np.float32(20)

    expected = repaired_line(module, a, b, 0.5, scaled(stored))
    close(repaired_line(module, a, b, 0.5, stored, preprocess=scaled).params, expected.params)
    other = repaired_line(module, a, b, 0.5, stored).params  # the control
    assert np.abs(other["Dense_1"]["bias"] - expected.params["Dense_1"]["bias"]).max() > 0.1


class Twice(nn.Module):
    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(4, name="layer")
        return nn.Dense(2, name="head")(layer(nn.relu(layer(x))))


@pytest.mark.slow
def test_a_layer_that_runs_twice_is_refused_unless_skipped():
    inputs = jnp.asarray(some_inputs())
    params = jax.jit(Twice().init)(KEY, inputs)["params"]
    a, b = (perturbed(params, seed) for seed in (1, 2))
    with pytest.raises(ValueError, match="'layer' runs more than once.*skip it"):
        repair.repair_line(Twice(), a, b, 0.5, inputs)
    made = repaired_line(Twice(), a, b, 0.5, inputs, skip=lambda path: path == "layer")
    assert made.layers == ("head",)


@pytest.mark.parametrize(
    ("ends", "weights", "words"),
    [
        (2, [1.0], r"1 or more ends, got \(1,\) for 2"),
        (1, [0.5, 0.5], r"got \(2,\) for 1"),
        (0, [], r"got \(0,\) for 0"),
    ],
)
def test_wrong_number_of_weights(ends, weights, words):
    module, inputs, a, b = two_ends("mlp")
    with pytest.raises(ValueError, match=words):
        repair.repair(module, a, [a, b][:ends], weights, inputs)


@pytest.mark.parametrize(
    ("inputs", "words"), [(np.ones((0, 4)), "there are none"), (np.full((2, 4), np.nan), "8 entries of the inputs")]
)
def test_inputs_without_means_are_refused(inputs, words):
    with pytest.raises(ValueError, match=words):
        repair.repair(lambda params, x: x @ params["w"], {"w": np.eye(4)}, [{"w": np.eye(4)}], [1.0], inputs)


def test_batch_norm_is_referred_to_its_own_repair():
    _, params, _ = normed()
    with pytest.raises(ValueError, match="BatchNorm: use reset_batch_stats"):
        repair.repair(Normed(), params, [params], [1.0], jnp.asarray(some_inputs()))
