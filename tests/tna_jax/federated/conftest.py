"""A federation small enough to be followed by hand: a softmax regression of 4 inputs and 3 classes, clients of unlike size."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tna_jax.federated import Federation

INPUTS, CLASSES = 4, 3
SIZES = (5, 12, 3, 9)


def linear(params, x):
    return x @ params["w"] + params["b"][None]


def features(params, state, x):
    return jnp.tanh(x @ params["w"] + params["b"][None])


@pytest.fixture(scope="session")
def small():
    """`federation(**options)`, `params`, data, and the rows of each client."""
    rng = np.random.default_rng(0)
    total = sum(SIZES)
    x = rng.normal(size=(total, INPUTS)).astype(np.float32)
    y = rng.integers(0, CLASSES, total).astype(np.int32)
    order, cuts = rng.permutation(total), np.cumsum(SIZES)[:-1]
    params = {"w": jnp.asarray(rng.normal(size=(INPUTS, CLASSES)), jnp.float32), "b": jnp.zeros(CLASSES, jnp.float32)}

    def federation(**options):
        given = {"epochs": 2, "batch_size": 4, "features": features, **options}
        return Federation(linear, len(SIZES), CLASSES, **given)

    rows = [np.sort(part).astype(np.int32) for part in np.split(order, cuts)]
    return SimpleNamespace(federation=federation, params=params, x=x, y=y, rows=rows, root=jax.random.key(7))


@pytest.fixture
def lenient():
    """optax itself promotes dtypes silently in Adam and its kin."""
    with jax.numpy_dtype_promotion("standard"):
        yield
