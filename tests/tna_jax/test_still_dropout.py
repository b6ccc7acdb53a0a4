"""Dropout that a module keeps switched off in training is refused, in Linen, NNX and Equinox; dropout that runs is not."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tna_jax import from_equinox, from_linen, from_nnx, networks
from tna_jax.frameworks import Model

SIZE, KEY = 6, jax.random.key(0)
INPUTS = np.ones((5, SIZE), np.float32)


@pytest.fixture(autouse=True)
def frameworks_mix_dtypes_and_ranks_themselves():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


class Linen(nn.Module):
    rate: float = 0.5
    still: bool = False
    attend: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        off = True if self.still else not train
        if self.attend:
            x = nn.MultiHeadDotProductAttention(2, dropout_rate=self.rate, deterministic=off)(x[:, None])[:, 0]
        else:
            x = nn.Dropout(self.rate, deterministic=off, name="drop")(x)
        return nn.Dense(3)(x)


class Nnx(nnx.Module):
    def __init__(self, rngs, rate=0.5, still=False):
        self.drop, self.head, self.still = nnx.Dropout(rate, rngs=rngs), nnx.Linear(SIZE, 3, rngs=rngs), still

    def __call__(self, x):
        return self.head(self.drop(x, deterministic=True) if self.still else self.drop(x))


class Equinox(eqx.Module):
    drop: eqx.nn.Dropout
    head: eqx.nn.Linear
    still: bool

    def __init__(self, rate=0.5, still=False):
        self.drop, self.head, self.still = eqx.nn.Dropout(rate), eqx.nn.Linear(SIZE, 3, key=KEY), still

    def __call__(self, x, *, key=None):
        return self.head(self.drop(x, key=key, inference=True) if self.still else self.drop(x, key=key))


def linen(**options) -> Model:
    return from_linen(Linen(**options), (SIZE,))


MAKERS = {
    "linen": linen,
    "attention": lambda **options: linen(attend=True, **options),
    "nnx": lambda **options: from_nnx(Nnx(nnx.Rngs(0), **options)),
    "equinox": lambda **options: from_equinox(Equinox(**options)),
}


def trained(model, key=KEY):
    return networks.train(model.network, model.params, model.state, jnp.asarray(INPUTS), None, key)[0]


@pytest.mark.parametrize("name", MAKERS)
def test_still_dropout_is_refused_and_other_dropout_runs(name):
    make = MAKERS[name]
    with pytest.raises(ValueError, match=r"dropout does not run in training: \w+"):
        jax.eval_shape(lambda: trained(make(still=True)))
    jax.eval_shape(lambda: trained(make(still=True, rate=0.0)))
    if name == "attention":
        jax.eval_shape(lambda: trained(make()))
        return
    model = make()
    dropped, evaluated = trained(model), networks.evaluate(model.network, model.params, model.state, INPUTS)
    assert not np.allclose(dropped, evaluated) and not np.allclose(dropped[0], dropped[1])


def test_linen_of_networks_runs_dropout():
    """A module that `tna_jax.models` does not have, with dropout or BatchNorm called in Flax's usual way."""
    network, init = networks.linen(Linen(), (SIZE,))
    params, state = init(KEY)
    assert networks.wants_key(network) and state == ()
    dropped = networks.train(network, params, state, jnp.asarray(INPUTS), None, KEY)[0]
    assert not np.allclose(dropped, networks.evaluate(network, params, state, INPUTS))

    class Normed(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(3)(nn.BatchNorm(use_running_average=not train)(x))

    network, init = networks.linen(Normed(), (SIZE,))
    assert isinstance(network, networks.Stateful)
    params, state = init(KEY)
    weight = jnp.array([1.0, 1.0, 1.0, 0.0, 0.0])
    new = jax.eval_shape(lambda: networks.train(network, params, state, jnp.asarray(INPUTS), weight)[1])
    assert jax.tree.structure(new) == jax.tree.structure(state)
