"""repair of networks given as functions: their layers are found in the jaxpr, whatever framework they come from."""

import functools

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.parameters import slow_but
from tna_jax import interpolation, repair
from tna_jax.frameworks import from_equinox, from_linen, from_nnx
from tna_jax.matching import layers

KEY, SHAPE = jax.random.key(0), (6, 6, 2)


@pytest.fixture(autouse=True)
def frameworks_mix_dtypes_and_ranks_themselves():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


class LinenNet(nn.Module):
    """A convolution without bias, a strided one with, a dense layer, a head."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), use_bias=False, name="first")(x))
        x = nn.relu(nn.Conv(6, (3, 3), (2, 2), name="second")(x))
        x = nn.relu(nn.Dense(5, name="third")(x.reshape(len(x), -1)))
        return nn.Dense(3, name="head")(x)


class NnxNet(nnx.Module):
    def __init__(self, *, rngs):
        self.first = nnx.Conv(2, 4, (3, 3), use_bias=False, rngs=rngs)
        self.second = nnx.Conv(4, 6, (3, 3), strides=(2, 2), rngs=rngs)
        self.third, self.head = nnx.Linear(54, 5, rngs=rngs), nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.second(nnx.relu(self.first(x))))
        return self.head(nnx.relu(self.third(x.reshape(len(x), -1))))


class EquinoxNet(eqx.Module):
    first: eqx.nn.Conv2d
    second: eqx.nn.Conv2d
    third: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self, key):
        a, b, c, d = jax.random.split(key, 4)
        self.first = eqx.nn.Conv2d(2, 4, 3, padding=1, use_bias=False, key=a)
        self.second = eqx.nn.Conv2d(4, 6, 3, stride=2, padding=1, key=b)
        self.third, self.head = eqx.nn.Linear(54, 5, key=c), eqx.nn.Linear(5, 3, key=d)

    def __call__(self, x):
        x = jax.nn.relu(self.second(jax.nn.relu(self.first(jnp.moveaxis(x, -1, 0)))))
        return self.head(jax.nn.relu(self.third(x.ravel())))


MODELS = {
    "linen": lambda: from_linen(LinenNet(), SHAPE),
    "nnx": lambda: from_nnx(NnxNet),
    "equinox": lambda: from_equinox(EquinoxNet),
}


def images(count=16):
    return jnp.asarray(np.random.default_rng(7).normal(0.5, 1, (count, *SHAPE)), jnp.float32)


def perturbed(params, seed):
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda p: p + generator.normal(0, 0.2, p.shape).astype(np.float32), params)


def ends(model):
    params = model.init(KEY)[0]
    return [perturbed(params, seed) for seed in (1, 2)]


def moments(network, params, x, shift):
    """Mean and deviation of every layer's outputs with the shifts added, along the units wherever they are."""
    closed = jax.make_jaxpr(network)(params, x)
    (at, _), measured = layers.find_layers(closed, params, 1), {}

    def look(i, output):
        output = output + shift.get(at[i].name, np.float32(0))
        flat = output.reshape(-1, output.shape[-1])
        measured[at[i].name] = np.stack([flat.mean(0), flat.std(0)])
        return output

    layers.run_layers(closed, [*jax.tree.leaves(params), x], at, look)
    return measured


@pytest.mark.parametrize("framework", slow_but(["nnx"], MODELS))
@pytest.mark.slow
def test_layers_have_the_mean_moments_of_the_ends(framework):
    model, x = MODELS[framework](), images()
    a, b = ends(model)
    repaired = repair.repair_line(model.network, a, b, 0.3, x)
    assert repaired.layers == ("first", "second", "third") and list(repaired.shift) == ["first"]
    first, second = moments(model.network, a, x, {}), moments(model.network, b, x, {})
    before = moments(model.network, interpolation.line(a, b, 0.3), x, {})
    after = moments(model.network, repaired.params, x, repaired.shift)
    for name in repaired.layers:
        goal = 0.7 * first[name] + 0.3 * second[name]
        np.testing.assert_allclose(after[name], goal, rtol=1e-4, atol=1e-5)
        assert np.abs(before[name] - goal).max() > 0.01  # the control
    jax.tree.map(np.testing.assert_array_equal, head(repaired.params), head(interpolation.line(a, b, 0.3)))


def head(params):
    return params.head if isinstance(params, eqx.Module) else params["head"]


@pytest.mark.slow
def test_a_linen_module_and_its_function_are_repaired_alike():
    model, x = MODELS["linen"](), images()
    a, b = ends(model)
    layers = []

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def results(network, skip, a, b):
        made = repair.repair_line(network, a, b, 0.5, x, skip=skip)
        layers.append(made.layers)
        return made.params, made.shift, made.apply(network, x)

    for skip in (None, lambda path: path in ("second", "head")):
        by_module, by_function = (results(network, skip, a, b) for network in (LinenNet(), model.network))
        assert layers[-2] == layers[-1]
        jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-5, atol=1e-6), by_module, by_function)


@pytest.mark.slow
def test_repair_of_a_function_is_the_same_operation_by_operation():
    model, x = MODELS["linen"](), images()
    a, b = ends(model)
    jitted = jax.jit(lambda a, b: repair.repair_line(model.network, a, b, 0.5, x).params)(a, b)
    whole = repair.repair_line(model.network, a, b, 0.5, x).params
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-4, atol=1e-5), jitted, whole)


def dense(p, x):
    return x @ p["kernel"] + p["bias"]


def tree(*sizes, seed=0):
    rng = np.random.default_rng(seed)
    return {
        f"l{i}": {
            name: jnp.asarray(rng.normal(size=shape), jnp.float32)
            for name, shape in (("kernel", size), ("bias", size[1:]))
        }
        for i, size in enumerate(sizes)
    }


def twice(p, x):
    return dense(p["l1"], jnp.tanh(dense(p["l0"], jnp.tanh(dense(p["l0"], x)))))


def scanned(p, x):
    stacked = p["l0"]["kernel"][None]
    x, _ = jax.lax.scan(lambda x, kernel: (jnp.tanh(x @ kernel), None), x, stacked)
    return dense(p["l1"], x)


def normalized(p, x):
    kernel = p["l0"]["kernel"]
    return dense(p["l1"], jnp.tanh(x @ (kernel / jnp.linalg.norm(kernel, axis=0)) + p["l0"]["bias"]))


def demodulated(p, x):
    kernel = p["l0"]["kernel"]
    return dense(p["l1"], jnp.tanh(x @ kernel * (2 / jnp.linalg.norm(kernel, axis=0)) + p["l0"]["bias"]))


def one_bias(p, x):
    return dense(p["l1"], jnp.tanh(jnp.tanh(x @ p["l0"]["kernel"] + p["l0"]["bias"]) @ p["l2"] + p["l0"]["bias"]))


def before_and_after(p, x):
    product = x @ p["l0"]["kernel"]
    return dense(p["l1"], jnp.tanh(product + p["l0"]["bias"]) + product)


REFUSED = {
    "a layer that runs twice": (twice, "'l0' runs more than once.*skip it"),
    "a loop over layers": (scanned, "run by 'scan'.*write them out"),
    "weights made of others": (normalized, r"weights \(4, 4\) that are not one parameter as it stands"),
    "a factor of the kernel's norm": (demodulated, "would change more than their units: l0. Their kernels or biases"),
    "one bias of two layers": (one_bias, "would change more than their units: l0, l2. Their kernels or biases"),
    "an output without its bias": (before_and_after, "more than their units: l0. .* or their outputs before the bias"),
}


@pytest.mark.parametrize(("network", "words"), slow_but(list(REFUSED.values())[1:4], REFUSED.values()), ids=REFUSED)
def test_networks_whose_layers_cannot_be_repaired_are_refused(network, words):
    a, b, x = tree((4, 4), (4, 2)), tree((4, 4), (4, 2), seed=1), images()[:, 0, :2].reshape(16, 4)
    if network is one_bias:
        a, b = ({**p, "l2": p["l0"]["kernel"].T} for p in (a, b))
    with pytest.raises(ValueError, match=words):
        repair.repair_line(network, a, b, 0.5, x)


def test_weights_that_sum_to_something_else_and_complex_layers_are_refused():
    a, x = tree((4, 4), (4, 2)), images()[:, 0, :2].reshape(16, 4)
    with pytest.raises(ValueError, match=r"must sum to 1, got 1\.0, 1\.0"):
        repair.repair(twice, a, [a, a], [1.0, 1.0], x)
    complex_kernel = {"w": a["l0"]["kernel"].astype(jnp.complex64), "o": a["l1"]["kernel"]}
    with pytest.raises(ValueError, match="complex"):
        repair.repair(lambda p, x: jnp.abs(x @ p["w"]) @ p["o"], complex_kernel, [complex_kernel], [1.0], x)


@pytest.mark.slow
def test_tied_kernels_and_those_of_experts_are_left_and_named():
    a, b = ({**tree((4, 4), (4, 2), seed=i), "experts": jnp.ones((3, 4, 4)) * (1 + i)} for i in (0, 1))

    def tied(p, x):
        return dense(p["l1"], jnp.tanh(jnp.tanh(x @ p["l0"]["kernel"]) @ p["l0"]["kernel"].T))

    def experts(p, x):
        each = jnp.einsum("ebi,eij->ebj", jnp.stack([dense(p["l0"], x)] * 3), p["experts"])
        return dense(p["l1"], jnp.tanh(each).sum(0))

    x = images()[:, 0, :2].reshape(16, 4)
    for network, known, unknown in ((tied, (), ("l0/kernel",)), (experts, ("l0",), ("experts",))):
        repaired = repair.repair_line(network, a, b, 0.5, x)
        assert repaired.layers == known and repaired.unknown == unknown


@pytest.mark.slow
def test_one_unit_positions_and_residuals():
    """A sum with another layer's output or with positions is no bias; one unit is one unit; several kernels of a module."""

    def network(p, x):  # B, 4, 4
        x = x @ p["l0"]["kernel"] + p["positions"]
        x = x + dense(p["l1"], jnp.tanh(x))
        x = jnp.tanh(x.mean(1))
        both = x @ p["cell"]["in"] + jnp.tanh(x) @ p["cell"]["out"]
        return dense(p["l2"], both) * dense(p["l3"], both)

    def params(seed):
        made = tree((4, 5), (5, 5), (5, 3), (5, 1), seed=seed)
        keys = jax.random.split(jax.random.key(seed), 3)
        cell = {"in": jax.random.normal(keys[0], (5, 5)), "out": jax.random.normal(keys[1], (5, 5))}
        return {**made, "positions": jax.random.normal(keys[2], (4, 5)), "cell": cell}

    a, b, x = params(1), params(2), jax.random.normal(KEY, (32, 4, 4))
    nothing = repair.repair_line(network, a, b, 0.5, x, skip=lambda path: False)
    assert nothing.layers == ("l0", "l1", "cell/in", "cell/out", "l2", "l3")
    assert sorted(nothing.shift) == ["cell/in", "cell/out", "l0", "l3"]  # the bias of one unit could be any scalar
    again = repair.repair(network, a, [a, b], [1.0, 0.0], x, skip=lambda path: False)
    np.testing.assert_allclose(again.apply(network, x), network(a, x), rtol=1e-3, atol=1e-3)
    first, second, after = (moments(network, p, x, s) for p, s in ((a, {}), (b, {}), (nothing.params, nothing.shift)))
    for name in nothing.layers[:-1]:
        np.testing.assert_allclose(after[name], (first[name] + second[name]) / 2, rtol=1e-3, atol=1e-4)
