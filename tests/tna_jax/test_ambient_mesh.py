"""Programs that have a mesh of their own run inside any other, with parameters over its Explicit axes: the numbers are the same."""

import functools

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.parameters import slow_but
from tna_jax import averaging, connectivity, masks, repair
from tna_jax.ensemble import Trainer, init_ensemble, train_ensemble
from tna_jax.federated import Federation, Schedule, init_server
from tna_jax.federated.evaluation import TestSet, evaluate
from tna_jax.federated.partition import padded
from tna_jax.federated.simulation import init_client_states, simulate_round
from tna_jax.frameworks import from_linen
from tna_jax.matching.activations import activation_matching
from tna_jax.matching.permutations import apply_permutation, permutation_spec
from tna_jax.matching.weights import weight_matching

X = np.asarray(jax.random.normal(jax.random.key(5), (24, 8)))
Y = (np.arange(24) % 3).astype(np.int32)
DATA = {"test": (X, Y)}
MESHES = [((AxisType.Explicit,), 8), ((AxisType.Auto,), 8), ((AxisType.Explicit,), 1), ((AxisType.Auto,), 1)]


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Dense(16)(x)))


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        return nn.Dense(3)(nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(x))))


def network(params, x):
    return MLP().apply({"params": params}, x)


def model(seed):
    return MLP().init(jax.random.key(seed), X[:1])["params"]


def spread(leaf):
    """Over the mesh that is set: the first axis that its devices divide is cut."""
    mesh = jax.sharding.get_mesh()
    cut = next((i for i, size in enumerate(leaf.shape) if size % mesh.size == 0), None)
    return jax.device_put(
        leaf, NamedSharding(mesh, PartitionSpec(*["data" if i == cut else None for i in range(leaf.ndim)]))
    )


def paths(place):
    a, b = place(model(0)), place(model(1))
    return connectivity.evaluate_path(network, a, b, DATA["test"], alphas=3).metrics


def stacked_paths(place, **options):
    members = place(averaging.stack([model(seed) for seed in range(8)]))
    path = connectivity.evaluate_paths(network, members, [(0, 1)], 3, DATA, **options)["test"].metrics
    return path, connectivity.evaluate_mixtures(network, members, np.eye(8)[:2], DATA, **options)["test"]


def trained(place, placement="map", members=8):
    trainer = Trainer(network, optax.sgd(0.1, momentum=0.9), 8, placement=placement)
    params = place(averaging.stack([model(seed) for seed in range(members)]))
    start = init_ensemble(
        trainer, params, jax.random.split(jax.random.key(0), members), masks.bernoulli(jax.random.key(1), params, 0.4)
    )
    end, history = train_ensemble(trainer, start, X, Y, 1)
    return jax.device_get((end.params, end.mask, history))


def federated_round(place):
    rules = Federation(network, 4, 3, epochs=1, batch_size=4)
    server = init_server(rules, place(model(0)))
    client_states, rows = init_client_states(rules, server), np.split(np.arange(24, dtype=np.int32), 4)
    server, _ = simulate_round(
        rules, Schedule("pnu", 0.5), jax.random.key(7), 0, server, client_states, padded(rows), X, Y, 0.1
    )
    return server, evaluate(rules, server, client_states, TestSet(X, Y))


def statistics(place):
    made = from_linen(Normed(), X)
    return repair.reset_batch_stats(made.network, place(made.params), place(made.state), X, batch_size=16)


def repaired(place):
    a, b = place(model(0)), place(model(1))
    return repair.repair_line(MLP(), a, b, 0.5, X).params, repair.repair_line(network, a, b, 0.5, X).params


def matched(place):
    a, b = place(model(0)), place(model(1))
    spec = permutation_spec(network, a, X)
    by_weights = weight_matching(spec, a, b).permutation
    by_activations = activation_matching(spec, a, b, X).permutation
    return (
        by_weights,
        by_activations,
        apply_permutation(spec, by_weights, b),
        jax.jit(lambda p: apply_permutation(spec, by_weights, p))(b),
    )


PROGRAMS = {
    "a path": paths,
    "an ensemble": trained,
    "paths": stacked_paths,
    "paths, vmap": functools.partial(stacked_paths, placement="vmap"),
    "paths, loop": functools.partial(stacked_paths, placement="loop"),
    "an ensemble, vmap": functools.partial(trained, placement="vmap"),
    "an ensemble, loop": functools.partial(trained, placement="loop"),
    "three members": functools.partial(trained, members=3),
    "a federation": federated_round,
    "running statistics": statistics,
    "repair": repaired,
    "matching": matched,
}


@functools.cache
def expected(name):
    return jax.device_get(PROGRAMS[name](lambda tree: tree))


@pytest.mark.slow
@pytest.mark.parametrize(("types", "devices"), slow_but(MESHES[:1], MESHES))
@pytest.mark.parametrize("name", slow_but(["a path"], PROGRAMS))
def test_programs_run_inside_any_mesh(name, types, devices):
    with jax.set_mesh(jax.make_mesh((devices,), ("data",), axis_types=types, devices=jax.devices()[:devices])):
        result = jax.device_get(PROGRAMS[name](lambda tree: jax.tree.map(spread, tree)))
        assert jax.sharding.get_mesh().axis_names == ("data",)
    for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(expected(name)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
