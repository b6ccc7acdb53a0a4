"""Layers whose anchored units get no kernel gradient: outputs, the other gradients and the live columns are those of the layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.parameters import slow
from tna_jax.packing import live_dot_general

QUICK = {"xla_backend_optimization_level": 0}
RANDOM = np.random.default_rng(0)


def columns(shape, rows: int) -> np.ndarray:
    """A mask whose output units are whole, every second anchored."""
    trains = np.arange(int(np.prod(shape[rows:]))).reshape(shape[rows:]) % 2 == 1
    return np.broadcast_to(trains, shape)


def linen(layer, mask, x):
    def gradients(dot_general):
        module = layer(dot_general)
        params = module.init(jax.random.key(0), x)["params"]
        loss = lambda p, x: jnp.sum(jnp.sin(module.apply({"params": p}, x)))  # noqa: E731
        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), compiler_options=QUICK)(params, x)

    return gradients(live_dot_general(mask)), gradients(jax.lax.dot_general)


def linear(mask, x):
    def gradients(dot_general):
        layer = nnx.Linear(12, 10, dot_general=dot_general, rngs=nnx.Rngs(0))
        graph, params = nnx.split(layer)
        loss = lambda p, x: jnp.sum(jnp.sin(nnx.merge(graph, p)(x)))  # noqa: E731
        value, (of_params, of_x) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), compiler_options=QUICK)(params, x)
        return value, ({"kernel": of_params["kernel"][...], "bias": of_params["bias"][...]}, of_x)

    return gradients(live_dot_general(mask)), gradients(jax.lax.dot_general)


LAYERS = {
    "Dense": (lambda dot: nn.Dense(10, dot_general=dot), (12, 10), 1, (5, 7, 12)),
    "heads": (lambda dot: nn.DenseGeneral((4, 3), dot_general=dot), (12, 4, 3), 1, (5, 12)),
    "of heads": (lambda dot: nn.DenseGeneral(10, axis=(-2, -1), dot_general=dot), (4, 3, 10), 2, (5, 4, 3)),
}


@pytest.mark.parametrize("name", ["Dense", *slow("heads", "of heads", "nnx")])
def test_everything_but_anchored_columns_is_as_it_was(name):
    layer, shape, rows, inputs = LAYERS.get(name, (None, (12, 10), 1, (5, 7, 12)))
    mask, x = columns(shape, rows), RANDOM.standard_normal(inputs).astype(np.float32)
    (value, (ours, of_x)), (plain, (whole, of_x_plain)) = linear(mask, x) if layer is None else linen(layer, mask, x)
    assert value == plain
    np.testing.assert_array_equal(of_x, of_x_plain)
    np.testing.assert_array_equal(ours["bias"], whole["bias"])
    kernel, reference = np.asarray(ours["kernel"]), np.asarray(whole["kernel"])
    assert kernel.shape == reference.shape == shape and np.all(kernel[~mask] == 0)
    np.testing.assert_allclose(kernel[mask], reference[mask], rtol=1e-5, atol=1e-5 * np.abs(reference).max())
    assert np.all(reference[~mask] != 0)  # the control


def test_the_program_forms_live_columns_only():
    mask, x, kernel = columns((12, 10), 1), jnp.ones((5, 12)), jnp.ones((12, 10))
    backward = jax.make_jaxpr(jax.grad(lambda w: live_dot_general(mask)(x, w, (((1,), (0,)), ((), ()))).sum()))(kernel)
    shapes = sorted(eqn.outvars[0].aval.shape for eqn in backward.jaxpr.eqns if eqn.primitive.name == "dot_general")
    assert (12, 5) in shapes or (5, 12) in shapes
    assert (12, 10) not in shapes and (10, 12) not in shapes


def test_unfit_use_is_refused():
    mask = columns((4, 6), 1)
    product = live_dot_general(mask)
    with pytest.raises(ValueError, match=r"kernel of shape \(4, 6\), got one of \(4, 5\)"):
        product(jnp.ones((2, 4)), jnp.ones((4, 5)), (((1,), (0,)), ((), ())))
    with pytest.raises(ValueError, match="without batch axes"):
        product(jnp.ones((2, 4)), jnp.ones((4, 6)), (((), ()), ((1,), (0,))))
    with pytest.raises(TypeError, match="float32"):
        live_dot_general(mask.astype(np.float32))
    with pytest.raises(TypeError, match="traced"):
        jax.eval_shape(
            lambda m: live_dot_general(m)(jnp.ones((2, 4)), jnp.ones((4, 6)), (((1,), (0,)), ((), ()))), mask
        )
    assert live_dot_general(np.ones((4, 6), bool)) is jax.lax.dot_general
