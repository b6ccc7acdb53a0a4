"""What the compiled programs are: no communication in training, one program for a sweep."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.parameters import slow
from tna_jax import connectivity, ensemble, metrics, models, networks
from tna_jax import placement as placement_lib
from tna_jax.ensemble import Trainer, turns

MODULE = models.create("mlp", num_classes=3, depth=1, width=4)
COLLECTIVE = re.compile(
    r"\b(all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute|collective-broadcast)\b"
)


def compiled_epoch(placement: str, members: int = 8) -> str:
    """The text of the compiled epoch (of the compiled step, for `loop`) over all eight devices."""
    net, init = networks.linen(MODULE, (5,))
    trainer = Trainer(net, optax.sgd(0.1, momentum=0.9), 4, placement)
    keys = jax.random.split(jax.random.key(0), members)
    mesh = placement_lib.mesh()
    assert mesh.size == 8
    state = placement_lib.shard(ensemble.init_ensemble(trainer, jax.vmap(init)(keys)[0], keys), mesh)
    data = placement_lib.replicate((jnp.ones((10, 5)), jnp.zeros(10, jnp.int32)), mesh)
    if placement == "loop":
        step, order, cut, _ = turns.step_programs(trainer, mesh)
        member = cut(state, jnp.int32(0))
        total = placement_lib.shard(jax.tree.map(lambda x: np.zeros(8, x.dtype), metrics.zero()), mesh)
        rest = (member._replace(params=None, opt_state=None, state=None), order(member, jnp.int32(0), data[0]))
        arguments = ((ensemble.trained_part(member), total), rest, *data, np.int32(0), np.int32(0))
        return step.lower(*arguments).compile().as_text()
    program = ensemble.epoch_program(trainer, placement, mesh, False)
    return program.lower(state, *data, jnp.int32(0)).compile().as_text()


@pytest.mark.cpu_only("needs eight devices")
@pytest.mark.parametrize("placement", ["map", *slow("vmap", "loop")])
def test_a_training_epoch_on_eight_devices_has_no_collective(placement):
    text = compiled_epoch(placement)
    assert "num_partitions=8" in text
    assert not COLLECTIVE.findall(text)


@pytest.mark.cpu_only("needs several devices")
def test_the_search_finds_a_collective_where_there_is_one():
    mesh = placement_lib.mesh()
    total = jax.jit(jax.shard_map(lambda x: jax.lax.psum(x, "member"), mesh=mesh,
                                  in_specs=jax.P("member"), out_specs=jax.P()))  # fmt: skip
    assert COLLECTIVE.findall(total.lower(jnp.ones(8)).compile().as_text())


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["map", *slow("vmap", "loop")])
def test_a_sweep_traces_each_program_once(placement):
    """Other initial values, masks, epochs and learning rates are arrays: nothing is traced again."""
    traces = {}
    inner, init = networks.linen(MODULE, (5,))

    def apply(params, inputs):
        traces["now"] += 1
        return inner(params, inputs)

    def optimizer(hyper):
        traces["now"] += 1
        return optax.sgd(hyper["rate"])

    trainer = Trainer(apply, optimizer, 4, placement)
    data = (jnp.ones((10, 5)), jnp.zeros(10, jnp.int32))

    def sweep(seed: int, rate: float) -> int:
        traces["now"] = 0
        keys = jax.random.split(jax.random.key(seed), 8)
        params = jax.vmap(init)(keys)[0]
        members = ensemble.init_ensemble(trainer, params, keys, hyper={"rate": rate * jnp.ones(8)})
        members, _ = ensemble.train_ensemble(trainer, members, *data, 3)
        pairs = connectivity.pairs(8)[seed : seed + 6]
        connectivity.evaluate_paths(
            apply, jax.device_get(members.params), pairs, connectivity.grid(3), {"a": data}, placement=placement
        )
        return traces["now"]

    assert sweep(0, 0.1) > 0
    assert sweep(1, 0.2) == 0
    assert sweep(2, 0.3) == 0


@pytest.mark.slow
@pytest.mark.cpu_only("needs eight devices")
def test_uneven_numbers_of_models_are_padded_and_cut(monkeypatch):
    """Eleven models on eight devices equal eleven on one."""
    net, init = networks.linen(MODULE, (5,))
    keys = jax.random.split(jax.random.key(0), 11)
    data = (jax.random.normal(jax.random.key(1), (10, 5)), jnp.arange(10) % 3)
    trainer = Trainer(net, optax.sgd(0.1), 4, "map")
    members = ensemble.init_ensemble(trainer, jax.vmap(init)(keys)[0], keys)
    many, _ = ensemble.train_ensemble(trainer, members, *data, 2)
    one_device = placement_lib.mesh(jax.devices()[:1])
    monkeypatch.setattr(placement_lib, "mesh", lambda devices=None: one_device)
    one, _ = ensemble.train_ensemble(trainer, members, *data, 2)
    for a, b in zip(jax.tree.leaves(many.params), jax.tree.leaves(one.params), strict=True):
        assert a.shape[0] == 11
        np.testing.assert_array_equal(a, b)
