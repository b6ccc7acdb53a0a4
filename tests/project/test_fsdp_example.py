"""An FSDP training step with anchors, from `examples/fsdp`: laid out as its parameters, and no device says more to another."""

import importlib.util
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tna_jax import anchored, masks, tna_mask

FILE = Path(__file__).resolve().parents[2] / "examples" / "fsdp" / "train.py"
specification = importlib.util.spec_from_file_location("fsdp_train", FILE)
train = importlib.util.module_from_spec(specification)
specification.loader.exec_module(train)


@pytest.fixture(autouse=True)
def as_users_run_it():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def mesh(types=AxisType.Auto, axis="fsdp"):
    return jax.make_mesh((8,), (axis,), axis_types=(types,))


@pytest.mark.slow
def test_anchors_add_no_collective():
    with jax.set_mesh(mesh()), nn.logical_axis_rules(train.RULES):
        counts = []
        for ratio in (None, 0.4):
            loop = train.make_loop(jax.sharding.get_mesh(), ratio)
            state = jax.eval_shape(loop.init, jax.random.key(0))
            counts.append(train.collectives(loop.step, state, jax.ShapeDtypeStruct((16, train.LENGTH + 1), "int32")))
    assert counts[0] == counts[1] and {kind for kind, _ in counts[0]} >= {"all-gather", "all-reduce"}


@pytest.mark.slow
def test_the_example_trains_and_its_anchors_stay(capsys):
    train.main(steps=3)
    printed = capsys.readouterr().out
    assert "anchors that moved: 0 of" in printed


def initialize(shape=(64, 32)):
    """Flax's own recipe: shapes, the layout that the boxes ask for, one compiled initialization."""
    module = nn.Dense(shape[1], kernel_init=nn.with_partitioning(nn.initializers.lecun_normal(), (None, "fsdp")))
    x = np.ones((1, shape[0]), np.float32)

    def init(key):
        params = module.init(key, x)["params"]
        mask = masks.bernoulli(jax.random.key(1), params, 0.4)
        return (
            params,
            anchored(optax.adam(0.1), mask).init(params),
            optax.chain(tna_mask(mask), optax.sgd(0.1)).init(params),
        )

    return init


def test_the_mask_is_laid_out_as_a_moment_and_has_the_bits_of_an_unspread_one():
    init, over = initialize(), mesh()
    layout = nn.get_sharding(jax.eval_shape(init, jax.random.key(0)), over)
    params, state, (first, _) = jax.jit(init, out_shardings=layout)(jax.random.key(0))
    moment, mask = state.inner[0].mu, state.mask
    assert jax.tree.structure(mask) == jax.tree.structure(params) == jax.tree.structure(moment)
    for m, held in zip(jax.tree.leaves(moment), jax.tree.leaves(mask), strict=True):
        assert held.sharding == m.sharding and held.addressable_shards[0].data.size == m.addressable_shards[0].data.size
    whole = masks.bernoulli(jax.random.key(1), nn.unbox(jax.device_get(params)), 0.4)
    for held in (mask, first.mask):
        spread = nn.unbox(jax.device_get(held))
        assert all(np.asarray(whole[name]).tobytes() == spread[name].tobytes() for name in whole)


@pytest.mark.slow
@pytest.mark.parametrize("types", [AxisType.Explicit, AxisType.Auto])
def test_nnx_optimizer_lays_the_mask_out_as_its_moments(types):
    with jax.set_mesh(mesh(types)):
        init = nnx.with_partitioning(nnx.initializers.lecun_normal(), (None, "fsdp"))
        model = nnx.Linear(16, 32, kernel_init=init, rngs=nnx.Rngs(0))
        mask = masks.bernoulli(jax.random.key(1), nnx.state(model, nnx.Param), 0.4)
        optimizer = nnx.Optimizer(model, anchored(optax.adamw(0.1), mask), wrt=nnx.Param)
        held, moments = (
            nnx.as_pure(nnx.state(part)) for part in (optimizer.opt_state.mask, optimizer.opt_state.inner[0].mu)
        )
        assert jax.tree.map(lambda x: x.sharding.spec, held) == jax.tree.map(lambda x: x.sharding.spec, moments)
        start = jax.device_get(model.kernel.get_value())
        optimizer.update(model, jax.tree.map(jax.numpy.ones_like, nnx.state(model, nnx.Param)))
        same = jax.device_get(model.kernel.get_value()) == start
    np.testing.assert_array_equal(same, ~np.asarray(jax.tree.leaves(mask)[1]))


def test_layouts_reach_the_mask_through_optax():
    params = {"w": jax.numpy.ones((8, 2)), "b": jax.numpy.ones(8)}
    tx = optax.chain(tna_mask(masks.bernoulli(jax.random.key(0), params, 0.4)), optax.adam(0.1))
    layouts = {"w": NamedSharding(mesh(), PartitionSpec("fsdp")), "b": NamedSharding(mesh(), PartitionSpec())}
    state = optax.tree_utils.tree_map_params(tx, jax.device_put, tx.init(params), layouts)
    assert state[0].mask["w"].sharding == state[1][0].mu["w"].sharding == layouts["w"]
