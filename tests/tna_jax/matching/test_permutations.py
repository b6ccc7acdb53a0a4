"""A network with its hidden units renamed computes the same; groups are found by tracing; what cannot be analysed is named."""

import dataclasses

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import Primitive

from tests.parameters import slow_but
from tna_jax import models, networks, trees
from tna_jax.matching import axes, permutations
from tna_jax.matching.axes import Concat, Constant, Fixed, Group, Product
from tna_jax.matching.permutations import apply_permutation, check_function, permutation_spec, permute_state
from tna_jax.matching.unification import Unifier

KEY = jax.random.key(0)
IMAGES = (8, 8, 3)


def values(shapes, seed=0):
    """Every leaf random, of a size that keeps activations near 1 (positive where there is one axis: scales, variances)."""
    draws = np.random.default_rng(seed)

    def draw(leaf):
        if len(leaf.shape) == 1:
            return draws.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype)
        return (draws.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))).astype(leaf.dtype)

    return jax.tree.map(draw, shapes)


def inputs(*shape):
    return np.random.default_rng(5).normal(size=shape).astype(np.float32)


def same_bits(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def share_moved(a, b):
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    return sum(int((x != y).sum()) for x, y in pairs) / sum(x.size for x, _ in pairs)


OURS = [
    ("mlp", {"depth": 3, "width": 12}, (6,), 3),
    ("cnn", {"norm": "batch"}, (18, 18, 3), 4),
    ("cnn", {"norm": "layer", "conv": "slices"}, (18, 18, 3), 4),
    ("cnn", {"norm": "group"}, (18, 18, 3), 7),  # a group's channels and the groups: two for each norm
    ("vgg11", {"norm": "batch"}, (4, 4, 3), 8),
    ("resnet20", {"norm": "layer"}, IMAGES, 12),  # 9 blocks and 3 streams
    ("resnet20", {"norm": "group"}, IMAGES, 24),
    ("resnet20", {"norm": "batch"}, IMAGES, 12),
    ("resnet20_option_a", {}, IMAGES, 12),
    ("vit", {"patch": 4, "width": 12, "depth": 2, "heads": 3}, IMAGES, 9),  # a stream; heads, their units (2), mlp
    ("dinov2", {"patch": 4, "width": 12, "depth": 2, "heads": 3, "registers": 2}, IMAGES, 10),  # registers too
]


QUICK = ("mlp-{'depth': 3, 'width': 12}",)
CASES = [
    pytest.param(*row, id=(case := f"{row[0]}-{row[1]}"), marks=[pytest.mark.slow] * (case not in QUICK))
    for row in OURS
]


@pytest.mark.parametrize(("name", "options", "shape", "groups"), CASES)
def test_every_network_of_ours_keeps_its_function_and_a_broken_group_is_caught(name, options, shape, groups):
    net, init = networks.linen(models.create(name, num_classes=10, **options), shape)
    params, state = values(jax.eval_shape(init, KEY))
    spec = permutation_spec(net, params, inputs(4, *shape), state)
    assert len(spec.groups) == groups
    permutation = permutations.random_permutation(spec, KEY)
    moved, moved_state = apply_permutation(spec, permutation, params), permute_state(spec, permutation, state)
    assert share_moved(params, moved) > 0.7
    check_function(spec, params, moved, (state, moved_state))
    back = permutations.inverse(permutation)
    assert same_bits(apply_permutation(spec, back, moved), params)
    assert same_bits(permute_state(spec, back, moved_state), state)
    assert same_bits(apply_permutation(spec, permutations.identity(spec), params), params)
    # the control: a group that is forgotten on one axis of one leaf
    path, axis = spec.where(next(iter(spec.groups)))[-1]
    broken = dict(spec.params)
    broken[path] = tuple(Fixed(a.size) if i == axis else a for i, a in enumerate(broken[path]))
    wrong = apply_permutation(dataclasses.replace(spec, params=broken), permutation, params)
    with pytest.raises(ValueError, match="another function"):
        check_function(spec, params, wrong, (state, moved_state))
    if jax.tree.leaves(state):  # and running statistics that stay behind
        with pytest.raises(ValueError, match="another function"):
            check_function(spec, params, moved, (state, state))


class Attention(nn.Module):
    """An embedding with positions, one block of attention and of two dense layers, tied logits."""

    @nn.compact
    def __call__(self, tokens):  # B, T
        embed = nn.Embed(11, 8, name="embed")
        x = embed(tokens) + self.param("positions", nn.initializers.normal(1), (5, 8))
        y = nn.LayerNorm(name="norm1")(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=6, name="attention")(
            y, mask=nn.make_causal_mask(tokens)
        )
        y = nn.gelu(nn.Dense(16, name="up")(nn.LayerNorm(name="norm2")(x)))
        return embed.attend(x + nn.Dense(8, name="down")(y))


class Fused(nn.Module):
    """Query, key and value from one dense layer, split, two heads; a depthwise convolution and windowed pooling before."""

    @nn.compact
    def __call__(self, x):  # B, 6, 6, 2
        x = nn.relu(nn.Conv(4, (3, 3), name="conv")(x))
        x = nn.max_pool(nn.Conv(4, (3, 3), feature_group_count=4, name="depthwise")(x), (2, 2), (2, 2))
        x = nn.Dense(8, name="mix")(x.reshape(len(x), 9, 4))
        q, k, v = jnp.split(nn.Dense(24, name="qkv")(x), 3, axis=-1)
        q, k, v = (part.reshape(len(x), 9, 2, 4) for part in (q, k, v))
        weights = nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k))
        x = x + nn.Dense(8, name="out")(jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(len(x), 9, 8))
        return nn.Dense(3, name="head")(jnp.concatenate([x.mean(1), x.max(1)], axis=-1))


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.first, self.second = nnx.Linear(6, 9, rngs=rngs), nnx.Linear(9, 3, rngs=rngs)

    def __call__(self, x):
        return self.second(jax.nn.tanh(self.first(x)))


def linen_case(module, x):
    params = values(jax.eval_shape(module.init, KEY, x)["params"])
    return (lambda p, x: module.apply({"params": p}, x)), params, x


def nnx_case():
    graph, params = nnx.split(NnxNet(nnx.Rngs(0)))
    return (lambda p, x: nnx.merge(graph, p)(x)), params, inputs(4, 6)


def equinox_case():
    model = eqx.nn.MLP(6, 3, 9, 2, key=KEY)
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    return (lambda p, x: jax.vmap(eqx.combine(p, rest))(x)), params, inputs(4, 6)


TEXT = {"vocab": 11, "positions": 9, "width": 8, "depth": 1, "heads": 2, "mlp": 24, "pad_id": 1}

FOREIGN = {
    "attention": (
        lambda: linen_case(Attention(), np.arange(20).reshape(4, 5) % 11),
        {"embed": 8, "attention/query": 2, "attention/query#2": 3, "attention/value": 3, "up": 16},
    ),
    "fused": (
        lambda: linen_case(Fused(), inputs(4, 6, 6, 2)),
        {"conv": 4, "mix": 8, "qkv": 2, "qkv#2": 4, "qkv#3": 4},
    ),
    "bert": (
        lambda: linen_case(models.create("bert", **TEXT), np.arange(20).reshape(4, 5).astype(np.int32) % 11),
        {"stream": 8, "up": 24, "query": 2, "query#2": 4, "value": 4, "pooler": 8},
    ),
    "roberta, masked, rematerialised": (
        lambda: linen_case(
            models.create("roberta", **TEXT, head="masked_lm", remat=True),
            np.arange(20).reshape(4, 5).astype(np.int32) % 11,
        ),
        {"stream": 8, "up": 24, "query": 2, "query#2": 4, "value": 4},
    ),
    "nnx": (nnx_case, {"first": 9}),
    "equinox": (equinox_case, {"layers/0": 9, "layers/1": 9}),
}


@pytest.mark.parametrize("case", slow_but(["bert", "nnx"], FOREIGN))
def test_attention_texts_and_networks_of_other_frameworks(case):
    make, expected = FOREIGN[case]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        apply, params, x = make()
        spec = permutation_spec(apply, params, x)
        assert sorted(spec.groups.values()) == sorted(expected.values())
        moved = apply_permutation(spec, permutations.random_permutation(spec, jax.random.key(1)), params)
        assert share_moved(params, moved) > 0.3
        check_function(spec, params, moved)


class Odd(nn.Module):
    what: str

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(6, name="hidden")(x)
        if self.what == "sort":
            x = jnp.sort(x, axis=-1)
        elif self.what == "cond":
            x = jax.lax.cond(x.sum() > 0, lambda y: y, lambda y: -y, x)
        elif self.what == "stranger":
            x = stranger.bind(x)
        elif self.what == "cumsum":
            x = jnp.cumsum(x, axis=-1)
        elif self.what == "constant":
            x = x * np.arange(6, dtype=np.float32)[None]
        elif self.what == "every second":
            x = x[:, ::2]
        elif self.what == "argmax":
            x = jax.nn.one_hot(x.argmax(-1), 6, dtype=jnp.float32)
        return nn.Dense(3, name="head")(x)


stranger = Primitive("stranger")
stranger.def_abstract_eval(lambda x: x)
stranger.def_impl(lambda x: x)


def test_an_operation_that_is_not_known_fixes_its_axes_and_is_named():
    apply, params, x = linen_case(Odd("stranger"), inputs(4, 5))
    with pytest.warns(UserWarning, match="fix them: stranger"):
        spec = permutation_spec(apply, params, x)
    assert (spec.groups, spec.unknown) == ({}, ("stranger",))
    reasons = {trees.name(path): reason for path, reason in spec.fixed_by.items()}
    assert reasons["hidden/kernel"][1].startswith("stranger in Odd (test_permutations.py")
    assert reasons["head/kernel"][1] == "being an output of the network"
    assert "hidden/kernel  axis 1       6  fixed by stranger" in spec.describe()
    assert "not known here, whose axes are fixed: stranger" in spec.describe()


@pytest.mark.parametrize(
    ("what", "groups"),
    [("plain", 1), ("sort", 1), ("cond", 1), ("cumsum", 0), ("constant", 0), ("every second", 1), ("argmax", 1)],
)
def test_units_whose_place_matters_are_no_group(what, groups):
    apply, params, x = linen_case(Odd(what), inputs(4, 5))
    spec = permutation_spec(apply, params, x)
    assert len(spec.groups) == groups
    if groups:
        check_function(spec, params, apply_permutation(spec, permutations.random_permutation(spec, KEY), params))


def test_an_unknown_operation_on_inputs_alone_does_no_harm():
    apply, params, x = linen_case(Odd("plain"), inputs(4, 5))
    spec = permutation_spec(lambda p, x: apply(p, stranger.bind(x)), params, x)
    assert list(spec.groups.values()) == [6]


def test_wrong_permutations_and_leaves_are_refused_together():
    apply, params, x = linen_case(Odd("plain"), inputs(4, 5))
    spec = permutation_spec(apply, params, x)
    for wrong in (np.zeros(6, int), np.arange(5)):
        with pytest.raises(ValueError, match=r"hidden \(.*nowhere"):
            apply_permutation(spec, {"hidden": wrong, "nowhere": np.arange(2)}, params)
    other = {"hidden": params["hidden"], "tail": params["head"]}
    with pytest.raises(ValueError, match=r"head/bias \(missing.*head/kernel \(missing.*tail/bias \(.*tail/kernel \("):
        apply_permutation(spec, {}, other)
    with pytest.raises(ValueError, match="outputs are NaN, before or after"):
        check_function(spec, params, jax.tree.map(lambda leaf: leaf * np.float32(np.nan), params))


def group(size, name):
    return Group(size, name)


def test_axes_are_made_the_same_by_hand():
    table = [
        # one axis, another one, what both are then (fresh groups are numbered from 1)
        (group(4, "a"), group(4, "b"), group(4, "b")),
        (group(4, "a"), Constant(4), group(4, "a")),
        (group(4, "a"), Fixed(4), Fixed(4)),
        (group(4, "a"), Concat((group(3, "b"), Constant(1))), Concat((group(3, "b"), Fixed(1)))),
        (group(6, "a"), Concat((group(3, "b"), Constant(3))), Concat((group(3, "b"), group(3, 1)))),
        (
            Product((Fixed(2), group(3, "a"))),
            Concat((group(3, "b"), group(3, "c"))),
            Product((Fixed(2), group(3, "c"))),
        ),
        (
            Product((Fixed(6), group(2, "a"))),
            Product((Fixed(2), Fixed(3), group(2, "b"))),
            Product((Fixed(6), group(2, "b"))),
        ),
        (Product((Fixed(4), group(2, "a"))), Product((Fixed(2), group(4, "b"))), None),
        (Product((Fixed(2), group(3, "a"))), Product((Fixed(3), group(2, "b"))), Fixed(6)),
        (
            Product((group(2, "a"), group(3, "b"))),
            Concat((group(3, "c"), group(3, "d"))),
            Product((Fixed(2), group(3, "d"))),
        ),
    ]
    for a, b, expected in table:
        unifier = Unifier()
        made = unifier.unify(a, b)
        assert unifier.resolve(a) == made or isinstance(b, Constant)
        if not isinstance(b, Constant) and "Constant" not in str(b):
            assert unifier.resolve(b) == made
        if expected is not None:
            assert made == expected, (a, b)
        assert made.size == a.size


def test_indices_and_views_by_hand():
    order = {"a": np.array([1, 0]), "b": np.array([2, 0, 1])}
    a, b = group(2, "a"), group(3, "b")
    assert axes.indices(Product((a, b)), order).tolist() == [5, 3, 4, 2, 0, 1]
    assert axes.indices(Concat((b, Fixed(1), a)), order).tolist() == [2, 0, 1, 3, 5, 4]
    array = np.arange(6)[:, None]
    assert axes.views(array, Product((a, b)), "b")[0].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert axes.views(array, Product((a, b)), "a")[0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert [view.tolist() for view in axes.views(array, Concat((a, Fixed(2), a)), "a")] == [[[0], [1]], [[4], [5]]]


def test_the_spec_says_where_a_group_is():
    spec = permutation_spec(*linen_case(Odd("plain"), jax.ShapeDtypeStruct((2, 5), np.float32)))
    assert spec.groups == {"hidden": 6}
    assert [(trees.name(path), axis) for path, axis in spec.where("hidden")] == [
        ("head/kernel", 0), ("hidden/bias", 0), ("hidden/kernel", 1),
    ]  # fmt: skip


class Blurred(nn.Module):
    """Channels blurred each by itself with a constant kernel."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3), name="conv")(x))
        kernel = jnp.full((3, 3, 1, 6), 1 / 9)
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
                                         feature_group_count=6)  # fmt: skip
        return nn.Dense(3, name="head")(x.mean((1, 2)))


class Constants(nn.Module):
    """Hidden units times ones and zeros, end to end: no two of the units are alike."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(8, name="first")(x))
        x = x * jnp.concatenate([jnp.ones(4), jnp.zeros(4)])[None]
        return nn.Dense(3, name="head")(x)


@pytest.mark.parametrize("module", [Blurred(), Constants()])
def test_constants_that_tell_units_apart_are_seen(module):
    shape = IMAGES if isinstance(module, Blurred) else (5,)
    net, init = networks.linen(module, shape)
    params, _ = values(jax.eval_shape(init, KEY))
    spec = permutation_spec(net, params, inputs(4, *shape))
    moved = apply_permutation(spec, permutations.random_permutation(spec, KEY), params)
    np.testing.assert_allclose(net(moved, inputs(4, *shape)), net(params, inputs(4, *shape)), atol=1e-5)
