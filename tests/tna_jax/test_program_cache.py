"""Programs are found by what an object holds: a changed object is another program, an unchanged one is not compiled twice."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import tna_jax.federated as F
from tna_jax.connectivity import evaluate
from tna_jax.program_cache import by_contents, contents

X, Y = jnp.ones((4, 2)), jnp.arange(4) % 2


class Scaled:
    def __init__(self, scale):
        self.scale, self.table, self.inner = scale, np.ones(2), {"k": [1]}

    def apply(self, params, x):
        return x @ params["w"] * np.float32(self.scale)

    __call__ = apply


class Slotted:
    __slots__ = ("scale",)

    def apply(self, params, x):
        return x


@pytest.mark.parametrize("of", [lambda o: o.apply, lambda o: o, lambda o: functools.partial(o.apply)])
def test_contents_follow_an_object(of):
    net = Scaled(1.0)
    before = contents(of(net))
    assert before == contents(of(net)) and hash(before) == hash(contents(of(net)))
    for change in (
        lambda: setattr(net, "scale", 2.0), lambda: net.table.__setitem__(0, 5), lambda: net.inner["k"].append(2)
    ):  # fmt: skip
        last = contents(of(net))
        change()
        assert contents(of(net)) != last
    assert contents(of(Scaled(1.0))) != before  # another object


def test_contents_of_modules_and_slots():
    assert contents(nn.Dense(3).apply) == contents(nn.Dense(3).apply) != contents(nn.Dense(4).apply)
    layer = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    before = contents(layer.__call__)
    layer(X)
    assert contents(layer.__call__) == before
    layer.kernel.set_value(layer.kernel.get_value() + 1)
    assert contents(layer.__call__) != before
    slotted = Slotted()
    slotted.scale = 0.0
    before = contents(slotted.apply)
    slotted.scale = -0.0
    assert contents(slotted.apply) != before


def test_the_least_used_is_forgotten():
    made = []
    program = by_contents(2)(lambda x: made.append(x) or x)
    assert [program(x) for x in (1, 2, 1, 3, 1, 2)] == [1, 2, 1, 3, 1, 2]
    assert made == [1, 2, 3, 2]


@pytest.mark.parametrize("placement", ["map", pytest.param("loop", marks=pytest.mark.slow)])
def test_a_changed_object_is_measured_as_it_is_now(placement):
    net, members = Scaled(1.0), {"w": jnp.array([[[1.0, 2.0], [1.0, 2.0]]])}
    first = evaluate(net.apply, members, {"t": (X, Y)}, placement=placement)["t"].loss
    net.scale = 3.0
    assert evaluate(net.apply, members, {"t": (X, Y)}, placement=placement)["t"].loss != first
    net.scale = 1.0
    assert evaluate(net.apply, members, {"t": (X, Y)}, placement=placement)["t"].loss == first


def test_so_does_a_client():
    net = Scaled(1.0)

    def trained():
        federation = F.Federation(net.apply, 1, 2, batch_size=4, placement="map")
        server = F.init_server(federation, {"w": jnp.array([[1.0, 2.0], [1.0, 2.0]])})
        sent = F.broadcast(federation, server, F.Schedule(), jax.random.key(0), 0, 0.1)
        return F.train_client(federation, sent, F.init_client_state(federation, server), X, Y, jax.random.key(1))[0]

    first = trained().metrics.loss
    net.scale = 3.0
    assert trained().metrics.loss != first
