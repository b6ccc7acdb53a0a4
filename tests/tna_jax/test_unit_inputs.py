"""`masks.per_unit` anchors an exact number of inputs of every output unit, in every kind of layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.parameters import slow_but
from tna_jax import masks, trees
from tna_jax.masks import AnchorRecipe
from tna_jax.masks.unit_inputs import share_per_unit, unit_axes

KEY = jax.random.key(5)


def of_linen(module, *inputs):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return jax.eval_shape(module.init, KEY, *inputs)["params"]


def of_nnx(make):
    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(make), nnx.Param))


IMAGES, TOKENS = jnp.ones((1, 6, 6, 8)), jnp.ones((1, 3, 12))
# name: parameters, and by path the axes of the inputs and their number, told by hand
LAYERS = {
    "dense": (lambda: of_linen(nn.Dense(5), TOKENS), {"kernel": ((0,), 12)}),
    "conv": (lambda: of_linen(nn.Conv(5, (3, 3)), IMAGES), {"kernel": ((0, 1, 2), 72)}),
    "conv in groups": (lambda: of_linen(nn.Conv(6, (3, 3), feature_group_count=2), IMAGES), {"kernel": ((0, 1, 2), 36)}),
    "depthwise": (lambda: of_linen(nn.Conv(16, (3, 3), feature_group_count=8), IMAGES), {"kernel": ((0, 1, 2), 9)}),
    "attention": (
        lambda: of_linen(nn.MultiHeadDotProductAttention(num_heads=4, qkv_features=16, out_features=12), TOKENS),
        {f"{name}/kernel": ((0,), 12) for name in ("query", "key", "value")} | {"out/kernel": ((0, 1), 16)},
    ),
    "attention without bias": (
        lambda: of_linen(nn.MultiHeadDotProductAttention(num_heads=4, qkv_features=16, out_features=12, use_bias=False), TOKENS),
        {f"{name}/kernel": ((0,), 12) for name in ("query", "key", "value")} | {"out/kernel": ((0, 1), 16)},
    ),
    "norm beside dense": (
        lambda: of_linen(nn.Sequential([nn.Dense(5), nn.LayerNorm()]), TOKENS), {"layers_0/kernel": ((0,), 12)},
    ),
    "nnx": (lambda: of_nnx(lambda: nnx.Conv(8, 5, (3, 3), rngs=nnx.Rngs(0))), {"kernel": ((0, 1, 2), 72)}),
    "pytorch's names": (
        lambda: {"a.weight": jnp.ones((7, 8, 3, 3)), "a.bias": jnp.ones(7), "b.weight": jnp.ones((9, 7)), "b.bias": jnp.ones(9)},
        {"a.weight": ((1, 2, 3), 72), "b.weight": ((1,), 7)},
    ),
}  # fmt: skip
QUICK = ["conv in groups", "attention"]


@pytest.mark.parametrize("name", slow_but(QUICK, LAYERS))
def test_every_unit_has_so_many_anchors(name):
    make, inputs = LAYERS[name]
    params = make()
    mask = {trees.name(path): np.asarray(leaf) for path, leaf in trees.named_leaves(masks.per_unit(KEY, params, 4))}
    half = {trees.name(p): np.asarray(m) for p, m in trees.named_leaves(share_per_unit(KEY, params, 0.5))}
    for path, leaf in mask.items():
        axes, number = inputs.get(path, ((), 0))
        assert ((~leaf).sum(axes) == (4 if axes else 0)).all(), path
        assert ((~half[path]).sum(axes) == (int(number / 2 + 0.5) if axes else 0)).all(), path
        assert not (half[path] & ~leaf).any()  # nested: what 4 inputs are is among half of them
        if axes:  # units do not share a subset
            rows = np.moveaxis(leaf, axes, range(len(axes))).reshape(number, -1).T
            assert len(np.unique(rows, axis=0)) > 1


def test_axes_of_units_of_all_layers():
    for name, (make, inputs) in LAYERS.items():
        shapes = {path: leaf.shape for path, leaf in trees.named_leaves(make())}
        for path, axes in unit_axes(shapes).items():
            expected, _ = inputs.get(trees.name(path), ((), 0))
            assert set(range(len(shapes[path]))) - set(axes) == set(expected), (name, path)


PARAMS = {
    "stem": {"kernel": jnp.ones((6, 4)), "bias": jnp.zeros(4)},
    "norm": {"scale": jnp.ones(4)},
    "head": {"kernel": jnp.ones((4, 3))},
}


def test_counts_by_path_and_the_bits_of_a_leaf_are_its_own():
    mask = masks.per_unit(KEY, PARAMS, {"stem": 2, "head": 4})
    assert (~mask["stem"]["kernel"]).sum(0).tolist() == [2] * 4 and not mask["head"]["kernel"].any()
    assert mask["stem"]["bias"].all() and mask["norm"]["scale"].all()
    alone = masks.per_unit(KEY, {"stem": PARAMS["stem"]}, {"kernel": 2})
    assert jax.tree.all(jax.tree.map(np.array_equal, alone["stem"], mask["stem"]))
    other = masks.per_unit(jax.random.key(6), PARAMS, {"stem": 2})
    assert not np.array_equal(other["stem"]["kernel"], alone["stem"]["kernel"]) and other["head"]["kernel"].all()
    stacked = jax.tree.map(lambda p: jnp.stack([p, p]), PARAMS)
    for_all = masks.per_unit(KEY, stacked, {"stem": 2}, shared=True)["stem"]["kernel"]
    assert (for_all == np.asarray(alone["stem"]["kernel"])[None]).all()


@pytest.mark.parametrize(
    ("counts", "error", "words"),
    [
        (5, ValueError, r"head/kernel \(5 of 4 inputs\)"),
        ({"stem": 7, "head": -1}, ValueError, r"head/kernel \(-1 of 4 inputs\), stem/kernel \(7 of 6 inputs\)"),
        ({"steam": 1}, ValueError, "'steam' selects no leaf; the paths are: head/kernel, stem/kernel"),
        ({"norm": 1}, ValueError, "'norm' selects no leaf"),
        ({"kernel": 1, "stem": 2}, ValueError, r"several match: stem/kernel \('kernel' and 'stem'\)"),
        ({"head": 1.5}, TypeError, r"head/kernel \(1.5\)"),
        ({"head": True}, TypeError, r"head/kernel \(True\)"),
    ],
)
def test_wrong_counts_are_refused_by_path(counts, error, words):
    with pytest.raises(error, match=words):
        masks.per_unit(KEY, PARAMS, counts)


@pytest.mark.slow
def test_a_leaf_without_a_layout_is_refused_by_name():
    ambiguous = {"a.weight": jnp.ones((4, 4)), "b.weight": jnp.ones((4, 2)), "b.bias": jnp.ones(2), "c.weight": jnp.ones((3, 4)),
                 "c.bias": jnp.ones(3), "a.bias": jnp.ones(4)}  # fmt: skip
    with pytest.raises(ValueError, match=r"a\.weight"):
        masks.per_unit(KEY, ambiguous, 1)
    assert (~masks.per_unit(KEY, ambiguous, {"c": 1})["c.weight"]).sum(1).tolist() == [1, 1, 1]


def test_a_recipe_records_counts_and_scales_and_draws_the_same_again():
    recipe = AnchorRecipe("per-unit", seed=3, values="normal", scale=2.0, trainable_scale=0.5, counts={"stem": 2, "head": 1},
                          scales={"head": 0.0})  # fmt: skip
    again = AnchorRecipe.from_json(recipe.to_json())
    assert again == recipe and recipe.to_json()["counts"] == {"stem": 2, "head": 1}
    mask = recipe.draw(PARAMS)
    assert jax.tree.all(jax.tree.map(np.array_equal, mask, again.draw(PARAMS)))
    assert jax.tree.all(jax.tree.map(np.array_equal, mask, masks.per_unit(recipe.key, PARAMS, recipe.counts)))
    start = recipe.initial_values(PARAMS, PARAMS, mask)
    for name, count in (("stem", 2), ("head", 1)):
        kernel, fixed = (np.asarray(tree[name]["kernel"]) for tree in (start, jax.tree.map(lambda m: ~m, mask)))
        assert (kernel[~fixed] == 0.5).all() and fixed.sum() == count * kernel.shape[1]
        assert (kernel[fixed] == 0).all() == (name == "head")
    assert (np.asarray(start["norm"]["scale"]) == 1).all()  # no anchors there: it keeps its values
    plain = AnchorRecipe("per-unit", seed=3, values="normal", counts={"stem": 2}).initial_values(PARAMS, PARAMS, mask)
    drawn = np.asarray(start["stem"]["kernel"])[~np.asarray(mask["stem"]["kernel"])]
    assert np.array_equal(drawn, 2 * np.asarray(plain["stem"]["kernel"])[~np.asarray(mask["stem"]["kernel"])])
    assert "counts" not in AnchorRecipe().to_json()  # what runs recorded before stays as it was
    with pytest.raises(ValueError, match="they need the kind 'per-unit', not 'exact'"):
        AnchorRecipe("exact", counts={"stem": 2})
