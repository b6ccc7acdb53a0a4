"""Programs are found by what an object holds: a changed object is another program, an unchanged one is not compiled twice."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import tna_jax.federated as F
from tna_jax import models, networks
from tna_jax.connectivity import evaluate
from tna_jax.program_cache import by_contents, contents
from tna_jax.programs.data import load
from tna_jax.programs.data.source import Scaling
from tna_jax.programs.lmc.options import LmcOptions
from tna_jax.programs.training.builders import build_optimizer

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


def test_networks_of_equal_modules_share_their_programs():
    """Each run of a program makes its network anew; what was compiled for an equal one is found again."""

    def key(module, scale=255):
        network, init = networks.linen(module, (2,), Scaling((0.5,), (0.5,), scale))
        return contents((network, init))

    for module, other in (
        (nn.Dense(3), nn.Dense(4)),
        (models.create("mlp", num_classes=2, norm="batch"), models.create("mlp", num_classes=2)),
    ):
        assert key(module) == key(module) and hash(key(module)) == hash(key(module))
        assert key(module) != key(other) and key(module) != key(module, 16)
    data = load("digits").subset(10, 10)
    assert contents(data.preprocess) == contents(load("digits").subset(20, 10).preprocess)
    options = LmcOptions(schedule="cosine")
    assert build_optimizer(options, 5) is build_optimizer(LmcOptions(schedule="cosine"), 5)
    for more in (
        {"learning_rate": 0.2},
        {"momentum": 0.5},
        {"weight_decay": 1e-3},
        {"schedule": "linear"},
        {"warmup_epochs": 1},
    ):
        assert build_optimizer(dataclasses.replace(options, **more), 5) is not build_optimizer(options, 5)


OPTIMIZERS = {
    "sgd": lambda x: optax.sgd(x, momentum=0.9),
    "adamw": lambda x: optax.adamw(1e-3, weight_decay=x, mask={"w": True, "b": False}),
    "a schedule": lambda x: optax.adam(
        optax.join_schedules([optax.linear_schedule(0, x, 3), optax.cosine_decay_schedule(x, 9)], [3])
    ),
    "a chain": lambda x: optax.chain(optax.clip(x), optax.add_decayed_weights(1e-3), optax.lion(1e-3)),
    "parts": lambda x: optax.multi_transform({"a": optax.sgd(x), "b": optax.set_to_zero()}, {"w": "a", "b": "b"}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_of_equal_numbers_are_equal(name):
    make = OPTIMIZERS[name]
    assert contents(make(0.5)) == contents(make(0.5)) and hash(contents(make(0.5))) == hash(contents(make(0.5)))
    assert contents(make(0.5)) != contents(make(0.25))
    assert contents(make(0.5)) != contents(optax.sgd(0.5))


def test_a_schedule_is_equal_to_itself_after_it_ran():
    """optax makes a float of the number of steps when the schedule first runs: a second run of the same trainer was compiled anew."""
    schedule = optax.cosine_decay_schedule(0.1, 10)
    before = contents(optax.sgd(schedule))
    with jax.numpy_dtype_promotion("standard"):
        schedule(np.int32(3))
    assert contents(optax.sgd(schedule)) == before
    assert contents(optax.cosine_decay_schedule(0.1, 11)) != contents(schedule)


def test_functions_of_the_users_are_by_identity():
    def scheduled():
        return lambda step: 0.1

    assert contents(optax.sgd(scheduled())) != contents(optax.sgd(scheduled()))
    assert contents(optax.sgd(schedule := scheduled())) == contents(optax.sgd(schedule))


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
