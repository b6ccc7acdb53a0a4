"""Whole units are whole: permuting anchored units, or trainable ones, among themselves leaves a mask as it is.

By layout: all entries of a unit, wherever they stand in the leaves of its layer, have one status, and the share is exact in every
layer. By a spec: the same for every group of units that was traced, norms and residual sums included.
"""

import functools
import itertools

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.parameters import slow
from tna_jax import masks, trees
from tna_jax.masks.layouts import Refused
from tna_jax.masks.units import units_by_layout
from tna_jax.matching import apply_permutation, permutation_spec

KEY = jax.random.key(3)


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def linen(module, *inputs):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return jax.eval_shape(module.init, KEY, *inputs)["params"]


def nnx_shapes(make):
    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(make), nnx.Param))


def equinox(make):
    return eqx.filter_eval_shape(lambda key: eqx.filter(make(key), eqx.is_inexact_array), KEY)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.Dense(5)(x), None


def scanned(axis=0):
    stack = nn.scan(Block, variable_axes={"params": axis}, split_rngs={"params": True}, length=3)
    return linen(stack(), jnp.ones((2, 5)), None)


def nnx_stack():
    @nnx.split_rngs(splits=2)
    @nnx.vmap
    def make(rngs):
        return nnx.Linear(6, 5, rngs=rngs)

    return make(nnx.Rngs(0))


X, SERIES, CARRY = jnp.ones((2, 6)), jnp.ones((2, 5, 3)), jnp.zeros((2, 4))
ATTENTION = {"key": "query", "value": "value"}

# What a unit is, by leaf: (layer, gates, the axes of units, those of stacked layers first)
LAYOUTS = {
    "Linen Dense": (lambda: linen(nn.Dense(5), X), {"kernel": ("", 1, (1,)), "bias": ("", 1, (0,))}, 0),
    "Linen Conv in groups": (
        lambda: linen(nn.Conv(6, (2,), feature_group_count=3), SERIES),
        {"kernel": ("", 1, (2,)), "bias": ("", 1, (0,))}, 0,
    ),
    "Linen ConvTranspose": (
        lambda: linen(nn.ConvTranspose(4, (2,), transpose_kernel=True), SERIES),
        {"kernel": ("", 1, (1,)), "bias": ("", 1, (0,))}, 0,
    ),
    "Linen ConvLocal": (lambda: linen(nn.ConvLocal(4, (3,)), SERIES), {"kernel": ("", 1, (0, 2)), "bias": ("", 1, (0, 1))}, 1),
    "Linen Embed": (lambda: linen(nn.Embed(7, 5), jnp.zeros(2, int)), {"embedding": ("", 1, (1,))}, 0),
    "Linen attention": (
        lambda: linen(nn.MultiHeadDotProductAttention(2, qkv_features=8), SERIES),
        {f"{name}/{leaf}": (ATTENTION.get(name, name), 1, (1, 2) if leaf == "kernel" else (0, 1))
         for name in ("query", "key", "value") for leaf in ("kernel", "bias")}
        | {"out/kernel": ("out", 1, (2,)), "out/bias": ("out", 1, (0,))}, 0,
    ),
    "Linen attention, no bias": (
        lambda: linen(nn.MultiHeadDotProductAttention(2, qkv_features=8, use_bias=False), SERIES),
        {f"{name}/kernel": (ATTENTION.get(name, name), 1, (1, 2)) for name in ("query", "key", "value")}
        | {"out/kernel": ("out", 1, (2,))}, 0,
    ),
    "Linen LSTM": (
        lambda: linen(nn.OptimizedLSTMCell(4), (CARRY, CARRY), X),
        {f"i{gate}/kernel": ("", 1, (1,)) for gate in "ifgo"}
        | {f"h{gate}/{leaf}": ("", 1, (axis,)) for gate in "ifgo" for leaf, axis in (("kernel", 1), ("bias", 0))}, 0,
    ),
    "Linen GRU": (
        lambda: linen(nn.GRUCell(4), CARRY, X),
        {f"{gate}/kernel": ("", 1, (1,)) for gate in ("ir", "iz", "in", "hr", "hz", "hn")}
        | {f"{gate}/bias": ("", 1, (0,)) for gate in ("ir", "iz", "in", "hn")}, 0,
    ),
    "Linen ConvLSTM": (
        lambda: linen(nn.ConvLSTMCell(4, (3,)), (jnp.zeros((2, 5, 4)),) * 2, SERIES),
        {f"{gate}/{leaf}": ("", 4, (axis,)) for gate in ("ih", "hh") for leaf, axis in (("kernel", 2), ("bias", 0))}, 0,
    ),
    "Linen scan": (scanned, {"Dense_0/kernel": ("Dense_0", 1, (0, 2)), "Dense_0/bias": ("Dense_0", 1, (0, 1))}, 1),
    "Linen vmap": (
        lambda: linen(nn.vmap(nn.Dense, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, axis_size=3)(5), X),
        {"kernel": ("", 1, (0, 2)), "bias": ("", 1, (0, 1))}, 1,
    ),
    "NNX LSTM": (
        lambda: nnx_shapes(lambda: nnx.OptimizedLSTMCell(6, 4, rngs=nnx.Rngs(0))),
        {"dense_i/kernel": ("", 4, (1,)), "dense_h/kernel": ("", 4, (1,)), "dense_h/bias": ("", 4, (0,))}, 0,
    ),
    "NNX vmap": (lambda: nnx_shapes(nnx_stack), {"kernel": ("", 1, (0, 2)), "bias": ("", 1, (0, 1))}, 1),
    "Equinox ConvTranspose": (
        lambda: equinox(lambda key: eqx.nn.ConvTranspose2d(3, 4, 2, key=key)),
        {"weight": ("", 1, (0,)), "bias": ("", 1, (0,))}, 0,
    ),
    "Equinox depthwise": (
        lambda: equinox(lambda key: eqx.nn.Conv1d(4, 4, 3, groups=4, key=key)),
        {"weight": ("", 1, (0,)), "bias": ("", 1, (0,))}, 0,
    ),
    "Equinox LSTM": (
        lambda: equinox(lambda key: eqx.nn.LSTMCell(6, 4, key=key)),
        {"weight_ih": ("", 4, (0,)), "weight_hh": ("", 4, (0,)), "bias": ("", 4, (0,))}, 0,
    ),
    "Equinox GRU": (
        lambda: equinox(lambda key: eqx.nn.GRUCell(6, 4, key=key)),
        {"weight_ih": ("", 3, (0,)), "weight_hh": ("", 3, (0,)), "bias": ("", 3, (0,)), "bias_n": ("", 1, (0,))}, 0,
    ),
    "Equinox vmap": (
        lambda: equinox(lambda key: eqx.filter_vmap(lambda k: eqx.nn.Linear(3, 5, key=k))(jax.random.split(key, 4))),
        {"weight": ("", 1, (0, 1)), "bias": ("", 1, (0, 1))}, 1,
    ),
    "Equinox attention": (
        lambda: equinox(lambda key: eqx.nn.MultiheadAttention(2, 6, key=key)),
        {"query_proj/weight": ("q", 1, (0,)), "key_proj/weight": ("q", 1, (0,)), "value_proj/weight": ("v", 1, (0,)),
         "output_proj/weight": ("o", 1, (0,))}, 0,
    ),
    "PyTorch": (
        lambda: {"fc.weight": shape(8, 5), "fc.bias": shape(8), "conv.weight": shape(6, 2, 3, 3), "conv.bias": shape(6),
                 "up.weight": shape(6, 4, 2, 2), "up.bias": shape(4), "wte.weight": shape(9, 10),
                 "attn.in_proj_weight": shape(15, 5), "attn.in_proj_bias": shape(15)},
        {"fc.weight": ("fc", 1, (0,)), "fc.bias": ("fc", 1, (0,)), "conv.weight": ("conv", 1, (0,)), "conv.bias": ("conv", 1, (0,)),
         "up.weight": ("up", 1, (1,)), "up.bias": ("up", 1, (0,)), "wte.weight": ("wte", 1, (1,)),
         "attn.in_proj_weight": ("in", 1, (0,)), "attn.in_proj_bias": ("in", 1, (0,))}, 0,
    ),
    "PyTorch LSTM": (
        lambda: {f"{leaf}_l0{way}": shape(*sizes) for way in ("", "_reverse")
                 for leaf, sizes in {"weight_ih": (16, 5), "weight_hh": (16, 4), "bias_ih": (16,), "bias_hh": (16,)}.items()},
        {f"{leaf}_l0{way}": (way, 4, (0,)) for way in ("", "_reverse") for leaf in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}, 0,
    ),
    "GPT-2": (
        lambda: {"c_attn.weight": shape(4, 12), "c_attn.bias": shape(12), "c_proj.weight": shape(4, 4), "c_proj.bias": shape(4)},
        {"c_attn.weight": ("a", 1, (1,)), "c_attn.bias": ("a", 1, (0,)), "c_proj.weight": ("p", 1, (1,)), "c_proj.bias": ("p", 1, (0,))}, 0,
    ),
    "Haiku": (
        lambda: {"linear": {"w": shape(3, 5), "b": shape(5)}, "gru": {"w_i": shape(3, 12), "w_h": shape(4, 12), "b": shape(12)}},
        {"linear/w": ("l", 1, (1,)), "linear/b": ("l", 1, (0,)), "gru/w_i": ("g", 3, (1,)), "gru/w_h": ("g", 3, (1,)),
         "gru/b": ("g", 3, (0,))}, 0,
    ),
}  # fmt: skip


def unit_statuses(leaf, gates, axes):
    """(gates, units) bools of a leaf of a mask, and whether all entries of a unit agree."""
    rest = tuple(i for i in range(leaf.ndim) if i not in axes)
    status = leaf.any(rest)
    return np.moveaxis(status.reshape(*status.shape[:-1], gates, -1), -2, 0), (status == leaf.all(rest)).all()


def test_units_are_read_from_every_layout():
    """On shapes alone: where the units of each leaf stand, and which leaves share them."""
    for name, (make, expected, stacked) in LAYOUTS.items():
        shapes = {path: leaf.shape for path, leaf in trees.parameters(make())}
        found = units_by_layout(shapes)
        assert {trees.name(path) for path in found} == expected.keys(), name
        layers = {}
        for path, units in found.items():
            layer, gates, axes = expected[trees.name(path)]
            assert (units.gates, units.axes, units.stacked) == (gates, axes, stacked), (name, path)
            layers.setdefault(layer, set()).add((units.layer, units.shape))
        assert all(len(draws) == 1 for draws in layers.values()), name
        assert len(set.union(*layers.values())) == len(layers), name  # layers draw by themselves


@pytest.mark.parametrize(
    "name", ["Linen scan", "NNX LSTM", *slow(*[n for n in LAYOUTS if n not in ("Linen scan", "NNX LSTM")])]
)
def test_permuting_units_of_one_status_leaves_the_mask(name):
    make, expected, stacked = LAYOUTS[name]
    params = make()
    mask = dict(trees.named_leaves(masks.neurons(KEY, params, 0.4)))
    layers = {}
    for path, m in mask.items():
        layer, gates, axes = expected[trees.name(path)]
        status, whole = unit_statuses(np.asarray(m), gates, axes)
        assert whole, path
        layers.setdefault(layer, []).extend(status)
    for statuses in layers.values():
        assert all(np.array_equal(status, statuses[0]) for status in statuses)  # leaves and gates agree
        per_layer = statuses[0].reshape(*statuses[0].shape[:stacked], -1)
        assert ((~per_layer).sum(-1) == int(0.4 * per_layer.shape[-1] + 0.5)).all()  # exact in each layer


REFUSED = {
    "a norm beside a layer": ({"Dense_0": {"kernel": shape(3, 5), "bias": shape(5)}, "LayerNorm_0": {"scale": shape(5), "bias": shape(5)}},
                              r"LayerNorm_0/bias \(a norm, of another layer's units\); LayerNorm_0/scale .*permutation_spec"),
    "a stack or attention": ({"kernel": shape(6, 6, 4), "bias": shape(6, 4)}, "may be a stack of layers or one layer with 2 axes of units"),
    "a bias of something else": ({"kernel": shape(6, 4), "bias": shape(5)}, "no axes of units in common"),
    "stacked along the second axis": (scanned(1), "no axes of units in common"),
    "squares beside both orders": ({"a.weight": shape(4, 5), "a.bias": shape(5), "b.weight": shape(4, 5), "b.bias": shape(4),
                                    "c.weight": shape(4, 4), "c.bias": shape(4)}, r"c.weight .*\(outputs, inputs\) or"),
    "a transposed convolution in groups": ({"up.weight": shape(6, 2, 3, 3), "up.bias": shape(4)}, "transposed convolution in groups"),
    "stacked convolutions without bias": ({"a.weight": shape(7, 4, 3), "b.weight": shape(7, 4, 4)}, "so may all others"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_layout_tells_is_refused_by_name(name):
    params, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        masks.neurons(KEY, params, 0.4)
    masks.neurons(KEY, params | {"head": {"kernel": shape(2, 3)}}, 0.4, where="head")  # others are drawn


def test_norms_apart():
    """What `AnchorRecipe` draws: a norm is a layer of its own."""
    params = REFUSED["a norm beside a layer"][0]
    drawn = masks.neurons(KEY, params, 0.4, apart=True)
    assert np.array_equal(drawn["LayerNorm_0"]["scale"], drawn["LayerNorm_0"]["bias"])
    recipe = masks.AnchorRecipe("neurons", 0.4).draw(params, KEY)
    assert jax.tree.all(jax.tree.map(np.array_equal, recipe, drawn))
    found = units_by_layout({path: leaf.shape for path, leaf in trees.parameters(params)})
    assert isinstance(found["LayerNorm_0", "scale"], Refused)


class Residual(nn.Module):
    """Convolution, grouped convolution, norms, attention, residual sums."""

    @nn.compact
    def __call__(self, x):  # B, 3, 2
        x = nn.relu(nn.LayerNorm()(nn.Conv(8, (1,))(x)))
        x = x + nn.MultiHeadDotProductAttention(2, qkv_features=8, use_bias=False)(nn.LayerNorm()(x))
        x = x + nn.Dense(8)(nn.gelu(nn.Dense(10)(nn.LayerNorm()(x))))
        x = nn.Conv(6, (1,), feature_group_count=2)(x)
        return nn.Dense(3)(x.mean(1))


def test_a_spec_gives_every_group_one_set_of_units():
    """Permuting the units of one status, in every group at once, leaves the mask; and norms share the units they scale."""
    model, x = Residual(), jnp.ones((2, 3, 2))
    params = linen(model, x)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        spec = permutation_spec(lambda p, x: model.apply({"params": p}, x), params, x)
    mask = jax.tree.map(np.asarray, masks.neurons(KEY, params, 0.4, spec=spec))
    assert np.array_equal(mask["Conv_0"]["bias"], mask["LayerNorm_0"]["scale"])  # tied by the residual sum
    draws = np.random.default_rng(0)
    anchored = {}
    for group, units in spec.groups.items():
        places = [p for p in spec.params if {name for name, _ in spec.units(p)[1]} == {group}]
        if (
            not places
        ):  # heads, and sets of a grouped convolution: the same units are anchored in each, which move as they like
            anchored[group] = np.ones(units, bool)
            continue
        leaf = functools.reduce(lambda tree, part: tree[part], places[0], mask)
        axis = spec.units(places[0])[0][0]
        status = np.moveaxis(leaf, axis, 0).reshape(leaf.shape[axis], -1)[:units, 0]
        assert (~status).sum() == int(0.4 * units + 0.5), group
        anchored[group] = status
    assert sum(status.all() for status in anchored.values()) == 2
    permutation = {}
    for group, status in anchored.items():
        order = np.arange(len(status))
        for value in (True, False):
            order[status == value] = draws.permutation(order[status == value])
        permutation[group] = order
    moved = apply_permutation(spec, permutation, mask)
    assert jax.tree.all(jax.tree.map(np.array_equal, moved, mask))
    swapped = {
        group: np.roll(np.arange(len(status)), 1) for group, status in anchored.items()
    }  # control: across statuses
    assert not jax.tree.all(jax.tree.map(np.array_equal, apply_permutation(spec, swapped, mask), mask))
    with pytest.raises(ValueError, match="spec is of another network.*Dense_0/bias"):
        masks.neurons(KEY, params | {"Dense_0": {"kernel": shape(8, 4), "bias": shape(4)}}, 0.4, spec=spec)


def test_a_spec_reads_any_names_and_orders():
    x = jnp.ones((2, 3))
    params = {"W1": shape(10, 3), "c": shape(10), "W2": shape(10, 4), "scale": shape(4)}

    def network(p, x):
        return (jax.nn.relu(x @ p["W1"].T + p["c"][None]) @ p["W2"]) * p["scale"][None]

    mask = masks.neurons(KEY, params, 0.4, spec=permutation_spec(network, params, x))
    assert np.array_equal(mask["W1"], np.broadcast_to(np.asarray(mask["c"])[:, None], (10, 3)))
    assert (~np.asarray(mask["c"])).sum() == 4
    assert np.array_equal(mask["W2"], np.broadcast_to(np.asarray(mask["W2"])[0], (10, 4)))  # its inputs do not count


@pytest.mark.parametrize("draw", [masks.bernoulli, *slow(masks.exact, masks.neurons)])
def test_stacked_members_share_a_mask_if_told_so(draw):
    one = {"kernel": shape(6, 5), "bias": shape(5)}
    stacked = jax.tree.map(lambda leaf: shape(3, *leaf.shape), one)
    mask, alone = draw(KEY, stacked, 0.4, shared=True), draw(KEY, one, 0.4)
    for name, member in itertools.product(one, range(3)):
        assert np.array_equal(mask[name][member], alone[name])
    assert not all(np.array_equal(m[0], m[1]) for m in draw(KEY, stacked, 0.4).values())  # control
    with pytest.raises(ValueError, match=r"first axes differ: kernel \(6,\), bias \(5,\)|bias \(5,\), kernel \(6,\)"):
        draw(KEY, one, 0.4, shared=True)
