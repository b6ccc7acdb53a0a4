"""What mixes entries, or goes by shapes, is found by reading the program, and named; what does not passes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tna_jax.packing import elementwise

PARAMS = {"kernel": np.zeros((6, 8), np.float32), "bias": np.zeros(8, np.float32), "gain": np.float32(1.0)}
PACKED = [(5,), (), (1, 30)]  # in the order of the leaves: bias, gain, kernel


@pytest.fixture(autouse=True)
def optax_mixes_dtypes_itself():
    with jax.numpy_dtype_promotion("standard"):
        yield


def by_hand(function):
    """A transformation without a state from a function of the updates and parameters."""
    return optax.GradientTransformation(lambda params: optax.EmptyState(), lambda u, s, p=None: (function(u, p), s))


def by_leaf(function):
    return by_hand(lambda u, p: jax.tree.map(function, u, p))


PASS = {
    "decay": by_leaf(lambda u, p: u + 0.1 * p),
    "decay of matrices": by_leaf(lambda u, p: u + 0.1 * p if p.ndim > 1 else u),
    "a jitted function": by_leaf(jax.jit(lambda u, p: jnp.where(p > 0, u, jnp.sqrt(jnp.abs(u))))),
    "two branches": by_leaf(lambda u, p: jax.lax.cond(jnp.array(True), lambda x: x, lambda x: 2 * x, u)),
    "a number drawn for all": by_leaf(lambda u, p: u * jax.random.uniform(jax.random.key(0))),
    "many in one": optax.chain(
        optax.clip(1.0),
        optax.adamw(optax.cosine_decay_schedule(1.0, 9)),
        optax.masked(optax.trace(0.9), {"bias": True, "gain": False, "kernel": True}),
    ),
}
REFUSED = {
    "a norm": (by_leaf(lambda u, p: u / (1 + jnp.sum(u * u))), r"entries of (bias|gain|kernel)"),
    "the norm of all": (optax.clip_by_global_norm(1.0), "reduce"),
    "a sum in a cell": (by_leaf(jax.jit(lambda u, p: u * jnp.sum(p))), "entries of"),
    "a product of matrices": (by_hand(lambda u, p: u | {"kernel": u["kernel"] @ u["kernel"].T @ u["kernel"]}), "entries of kernel"),
    "neighbors": (by_leaf(lambda u, p: jnp.roll(u, 1)), "entries of"),
    "the order": (by_leaf(lambda u, p: jnp.sort(u)), "sort"),
    "sums along": (by_leaf(lambda u, p: jnp.cumsum(u.ravel()).reshape(u.shape)), "entries of"),
    "noise": (by_leaf(lambda u, p: u + jax.random.normal(jax.random.key(0), u.shape)), "noise"),
    "noise alone": (by_leaf(lambda u, p: jax.random.normal(jax.random.key(0), u.shape)), "values of its own"),
    "positions": (by_leaf(lambda u, p: u * jnp.arange(u.size, dtype=u.dtype).reshape(u.shape)), "values of its own"),
    "the size": (by_leaf(lambda u, p: u / u.size), "by its shape"),
    "the last axis": (by_leaf(lambda u, p: u + p if p.ndim and p.shape[-1] == 8 else u), "by its shape"),
    "two of one shape": (by_hand(lambda u, p: u | {"kernel": u["kernel"] + p["other"]}), "kernel and other|other and kernel"),
    "a branch of entries": (by_leaf(lambda u, p: jax.lax.cond(u.ravel()[0] > 0, lambda x: x, lambda x: 2 * x, u)), "entries of"),
    "a state that is drawn": (
        optax.GradientTransformation(
            lambda params: jax.tree.map(lambda p: jax.random.normal(jax.random.key(0), p.shape), params),
            lambda u, s, p=None: (jax.tree.map(jnp.multiply, u, s), s),
        ),
        "its state has an array",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PASS)
def test_entries_on_their_own_pass(name):
    elementwise.require_elementwise(PASS[name], PARAMS, PACKED)


@pytest.mark.parametrize("name", REFUSED)
def test_what_mixes_entries_is_refused_by_name(name):
    optimizer, message = REFUSED[name]
    params, packed = PARAMS, PACKED
    if name == "two of one shape":
        params, packed = PARAMS | {"other": PARAMS["kernel"]}, [*PACKED, (1, 30)]
    with pytest.raises(elementwise.NotElementwise, match=message):
        elementwise.require_elementwise(optimizer, params, packed)


def test_counts_and_rates_belong_to_no_parameter():
    """A count that all share does not make one parameter of all."""
    elementwise.require_elementwise(optax.inject_hyperparams(optax.adamw)(1e-3), PARAMS, PACKED)
    elementwise.require_elementwise(optax.MultiSteps(optax.adam(1e-3), 2).gradient_transformation(), PARAMS, PACKED)
