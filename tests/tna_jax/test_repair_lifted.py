"""REPAIR under lifted transformations and with boxes; layers that transform their kernel are refused, others are named."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import slow
from tna_jax import networks, repair

X = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)


class Cell(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.relu(nn.Dense(6)(x)), None


class Lifted(nn.Module):
    """Dense layers under one transformation, and a head."""

    kind: str

    @nn.compact
    def __call__(self, x):
        if self.kind == "scan":
            for axis in (0, 1):
                x, _ = nn.scan(Cell, variable_axes={"params": axis}, split_rngs={"params": True}, length=6)()(x, None)
        elif self.kind == "vmap":
            x = nn.vmap(nn.Dense, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, axis_size=2)(
                6
            )(x).sum(0)
        elif self.kind == "boxed":
            x = nn.relu(
                nn.Dense(6, kernel_init=nn.with_partitioning(nn.initializers.lecun_normal(), (None, "model")))(x)
            )
        else:
            x = nn.relu({"remat": nn.remat(nn.Dense), "jit": nn.jit(nn.Dense)}[self.kind](6)(x))
        return nn.Dense(3)(x)


class Plain(nn.Module):
    """`Lifted` written out."""

    layers: int

    @nn.compact
    def __call__(self, x):
        for i in range(self.layers):
            x = nn.relu(nn.Dense(6, name=f"layer{i}")(x))
        return nn.Dense(3)(x)


def two_ends(module):
    drawn = jax.jit(lambda key: module.init(key, X)["params"])
    return drawn(jax.random.key(1)), drawn(jax.random.key(2))


def repaired(network, a, b):
    """The repaired middle, in one program."""
    seen = []

    def run(a, b):
        made = repair.repair_line(network, a, b, 0.5, X)
        seen.append((made.layers, made.unknown))
        return made.params

    return jax.jit(run)(a, b), *seen[0]


def written_out(kind, params):
    """The parameters of `Plain`."""
    params = nn.unbox(params)
    if kind != "scan":
        layer = next(name for name in params if name != "Dense_0" or kind == "boxed")
        head = "Dense_1" if kind == "boxed" else "Dense_0"
        return {"layer0": params[layer], "Dense_0": params[head]}
    stacks = [(params["ScanCell_0"]["Dense_0"], 0), (params["ScanCell_1"]["Dense_0"], 1)]
    layers = [
        jax.tree.map(lambda x, i=i, axis=axis: jnp.take(x, i, axis % x.ndim), s) for s, axis in stacks for i in range(6)
    ]
    return {**{f"layer{i}": layer for i, layer in enumerate(layers)}, "Dense_0": params["Dense_0"]}


@pytest.mark.parametrize("kind", ["remat", "boxed", *slow("jit", "scan")])
def test_layers_under_transformations_are_repaired_as_if_written_out(kind):
    module = Lifted(kind)
    a, b = two_ends(module)
    lifted = jax.jit(lambda a, b: repair.repair_line(module, a, b, 0.5, X).params)(a, b)
    plain = Plain(12 if kind == "scan" else 1)
    expected = jax.jit(lambda a, b: repair.repair_line(plain, a, b, 0.5, X).params)(
        written_out(kind, a), written_out(kind, b)
    )
    assert jax.tree.structure(lifted) == jax.tree.structure(a)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), written_out(kind, lifted), expected
    )


class Transformed(nn.Module):
    """A layer whose kernel is transformed, or that is not known."""

    kind: str

    @nn.compact
    def __call__(self, x):
        if self.kind == "weight norm":
            x = nn.WeightNorm(nn.Dense(6, name="layer"))(x)
        elif self.kind == "standardized":
            x = Standardized(6, name="layer")(x)
        elif self.kind == "scaled":  # by a constant: rescaling is right
            x = Halved(6, name="layer")(x)
        elif self.kind == "spectral":
            x = nn.SpectralNorm(nn.Dense(6, name="layer"))(x, update_stats=False)
        else:
            x = nn.Einsum((6, 6), "bi,io->bo", name="layer")(x)
        return nn.Dense(3, name="head")(nn.Dense(4, name="middle")(nn.relu(x)))


class Standardized(nn.Dense):
    def param(self, name, *rest, **options):
        value = super().param(name, *rest, **options)
        return (value - value.mean(0, keepdims=True)) if name == "kernel" else value


class Halved(nn.Dense):
    def param(self, name, *rest, **options):
        value = super().param(name, *rest, **options)
        return value * np.float32(0.5) if name == "kernel" else value


@pytest.mark.parametrize(
    ("kind", "words"),
    [("weight norm", "transform their kernels.*layer"), ("standardized", "transform their kernels.*: layer;")],
)
def test_layers_that_transform_their_kernel_are_refused_by_name(kind, words):
    module = Transformed(kind)
    a, b = two_ends(module)
    with pytest.raises(ValueError, match=words):
        repair.repair_line(module, a, b, 0.5, X)


def test_spectral_norm_and_vmapped_layers_are_refused_by_name():
    module = Transformed("spectral")
    variables = jax.eval_shape(lambda key: module.init(key, X), jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), variables["params"])
    with pytest.raises(ValueError, match="spectrally normalized"):
        repair.repair_line(module, params, params, 0.5, X)
    vmapped = Lifted("vmap")
    a, b = two_ends(vmapped)
    with pytest.raises(ValueError, match="nn.vmap.*VmapDense_0"):
        repair.repair_line(vmapped, a, b, 0.5, X)


def test_layers_that_are_not_known_are_named_and_constant_factors_do_not_matter():
    module = Transformed("einsum")
    assert repaired(module, *two_ends(module))[1:] == (("middle",), ("layer",))

    def function(p, x):
        return jnp.tanh(jnp.einsum("bi,ihu->bhu", x, p["heads"]).reshape(len(x), -1) @ p["mid"]) @ p["out"]

    ends = [{"heads": w((6, 2, 3)), "mid": w((6, 4)), "out": w((4, 2))} for w in (draw(0), draw(1))]
    assert repaired(function, *ends)[1:] == (("mid",), ("heads",))
    halved = Transformed("scaled")
    a, b = two_ends(halved)
    params, layers, unknown = repaired(halved, a, b)
    assert layers == ("layer", "middle") and unknown == ()
    moments = [
        np.stack([h.mean(0), h.std(0)])
        for h in (X @ np.asarray(p["layer"]["kernel"]) / 2 + p["layer"]["bias"] for p in jax.device_get((a, b, params)))
    ]
    np.testing.assert_allclose(moments[2], (moments[0] + moments[1]) / 2, rtol=1e-3, atol=1e-4)


def draw(seed):
    draws = np.random.default_rng(seed)
    return lambda shape: draws.normal(size=shape).astype(np.float32)


def test_a_reset_touches_running_averages_alone():
    """Beside BatchNorm's statistics live the vector and the estimate of a spectral norm, and what is never written."""

    def train(params, state, inputs, weight):
        u = params @ (params.T @ state["u"])
        u = u / jnp.linalg.norm(u)
        sigma = u @ params @ (params.T @ u) / jnp.linalg.norm(params.T @ u)
        hidden = inputs @ (params / sigma)
        mean = np.float32(0.9) * state["average"] + np.float32(0.1) * hidden.mean(0)
        return hidden, {"average": mean, "u": u, "sigma": sigma, "table": state["table"] * 1}

    draws = draw(0)
    params, state = (
        draws((6, 4)),
        {"average": draws((4,)), "u": draws((6,)), "sigma": np.float32(3), "table": np.int32([1, 2])},
    )
    network = networks.Stateful(train, lambda p, s, x: x)
    fresh = jax.jit(lambda p, s: repair.reset_batch_stats(network, p, s, X, batch_size=12))(params, state)
    for name in ("u", "sigma", "table"):
        np.testing.assert_array_equal(fresh[name], state[name])
    expected = train(params, state, X, None)[0].mean(0)
    np.testing.assert_allclose(fresh["average"], expected, rtol=1e-4, atol=1e-5)


class Multiplies(nn.Module):
    """Activations times a parameter of its own, whatever it is called."""

    @nn.compact
    def __call__(self, x):
        return x @ self.param("w", nn.initializers.lecun_normal(), (x.shape[-1], 4))


class Unknown(nn.Module):
    """Layers that are none of Linen's: a module's, the root's, embeddings read as a kernel."""

    @nn.compact
    def __call__(self, x):
        words = nn.Embed(4, 4)
        x = Multiplies()(jnp.tanh(nn.Dense(4)(x)))
        x = jnp.tanh(x @ self.param("mixing", nn.initializers.lecun_normal(), (4, 4)))
        return nn.Dense(2)(jnp.tanh(words.attend(x)))


@pytest.mark.slow
def test_layers_that_are_not_known_are_named_whatever_their_parameters_are_called():
    x = jax.random.normal(jax.random.key(0), (16, 3))
    a, b = (Unknown().init(jax.random.key(i), x)["params"] for i in (1, 2))
    result = repair.repair_line(Unknown(), a, b, 0.5, x)
    assert result.layers == ("Dense_0",) and result.unknown == ("Multiplies_0", "mixing", "Embed_0")
