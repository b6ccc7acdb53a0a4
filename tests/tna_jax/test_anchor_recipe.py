"""A recipe draws what runs have always drawn, bit for bit: the rule is written out here a second time."""

import dataclasses
import doctest
import json

import jax
import numpy as np
import pytest

from tests.parameters import slow
from tna_jax import masks
from tna_jax.masks import AnchorRecipe, recipe

RNG = np.random.default_rng(1)
PARAMS, OTHER = (
    {
        "Dense_0": {
            "kernel": RNG.normal(size=(40, 30)).astype(np.float32),
            "bias": np.linspace(0.1, more, 30, dtype=np.float32),
        },
        "head": {"kernel": RNG.normal(size=(30, 7)).astype(np.float32)},
    }
    for more in (1, 2)
)


def raw(tree) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def stream(seed, number):
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), number), 0)


def old_draw(kind, ratio, seed, where, soft):
    """The rule as programs had it."""
    draw = {"bernoulli": masks.bernoulli, "exact": masks.exact, "neurons": masks.neurons}[kind]
    mask = draw(stream(seed, 2), PARAMS, ratio, where)
    return mask if soft is None else masks.soft(mask, soft)


def old_start(first, own, mask, seed, ratio, values, scale, trainable):
    if values == "normal":
        shared = masks.draw_anchors(stream(seed, 3), first, mask, scale)
    else:
        shared = first if scale == 1 else masks.scale_anchors(first, mask, scale)
    if ratio and trainable != 1:
        own = masks.scale_anchors(own, masks.complement(mask), trainable)
    return masks.share_anchors(own, shared, mask)


DRAWN = [
    ("bernoulli", 0.4, 0, None, None), ("exact", 0.25, 3, "kernel", None), ("bernoulli", 0.0, 3, None, None),
    ("neurons", 0.5, 11, None, None), ("bernoulli", 0.7, 2**31, "^(?!head)", 0.2),
]  # fmt: skip


@pytest.mark.parametrize("fields", [*DRAWN[3:], *slow(*zip(DRAWN[:3]))], ids=str)
def test_the_mask_is_that_of_runs_and_depends_on_every_field(fields):
    kind, ratio, seed, where, soft = fields
    drawn = AnchorRecipe(kind, ratio, seed, where, soft).draw(PARAMS)
    assert raw(drawn) == raw(old_draw(*fields))
    assert raw(AnchorRecipe(kind, ratio, seed, where, soft).draw(jax.eval_shape(lambda: PARAMS))) == raw(drawn)
    if ratio:  # the control: any other recipe draws another mask
        others = [
            AnchorRecipe(kind, ratio, seed + 1, where, soft), AnchorRecipe(kind, ratio / 2, seed, where, soft),
            AnchorRecipe("neurons" if kind == "exact" else "exact", ratio, seed, where, soft),
            AnchorRecipe(kind, ratio, seed, "bias", soft), AnchorRecipe(kind, ratio, seed, where, 0.5),
        ]  # fmt: skip
        assert all(raw(other.draw(PARAMS)) != raw(drawn) for other in others)
        assert raw(masks.bernoulli(jax.random.key(seed), PARAMS, ratio)) != raw(drawn)  # the seed's bare key


def test_a_predicate_selects_as_the_expression_does():
    named, chosen = AnchorRecipe(where="^(?!head)"), AnchorRecipe(where=lambda path: not path.startswith("head"))
    assert raw(named.draw(PARAMS)) == raw(chosen.draw(PARAMS)) != raw(AnchorRecipe().draw(PARAMS))


def test_masks_of_all_ratios_are_nested():
    small, large = (jax.tree.leaves(AnchorRecipe(ratio=ratio, seed=5).draw(PARAMS)) for ratio in (0.2, 0.6))
    assert all(bool((a | ~b).all()) for a, b in zip(small, large, strict=True))  # anchored in small -> in large
    other = jax.tree.leaves(AnchorRecipe(ratio=0.2, seed=6).draw(PARAMS))
    assert not all(bool((a | ~b).all()) for a, b in zip(other, large, strict=True))


def test_another_key_draws_another_mask_by_the_same_rule():
    recipe = AnchorRecipe("exact", 0.3, 4)
    key = jax.random.fold_in(recipe.key, 9)
    assert raw(recipe.draw(PARAMS, key)) == raw(masks.exact(key, PARAMS, 0.3)) != raw(recipe.draw(PARAMS))


@pytest.mark.parametrize("fields", [
    {}, {"scale": 1.5, "trainable_scale": 0.1}, *slow({"values": "normal", "scale": 0.5}, {"values": "normal"}),
    {"soft": 0.2, "scale": 2.0}, {"ratio": 0.0, "trainable_scale": 0.1}, {"where": "bias", "trainable_scale": 0.0},
], ids=str)  # fmt: skip
def test_initial_values_are_those_of_runs(fields):
    recipe = AnchorRecipe(**{"seed": 8, "ratio": 0.4, **fields})
    mask = recipe.draw(PARAMS)
    expected = old_start(PARAMS, OTHER, mask, 8, recipe.ratio, recipe.values, recipe.scale, recipe.trainable_scale)
    started = recipe.initial_values(OTHER, PARAMS, mask)
    assert raw(started) == raw(expected)
    if "values" in fields:  # the control: values come from the seed
        other = dataclasses.replace(recipe, seed=9)
        assert raw(other.anchor_values(PARAMS, mask)) != raw(recipe.anchor_values(PARAMS, mask))


@pytest.mark.parametrize(("fields", "words"), [
    ({"kind": "bernuli"}, "unknown kind 'bernuli': did you mean 'bernoulli'"),
    ({"values": "zero"}, "unknown values 'zero': known: initial, normal"),
    ({"ratio": 40}, r"ratio .*\[0, 1\], got 40; did you mean 0.4"),
    ({"ratio": float("nan")}, "ratio"),
    ({"seed": 1.0}, "seed must be an int, got 1.0"),
    ({"seed": True}, "seed must be an int"),
    ({"where": "("}, r"where='\(' is not a regular expression"),
    ({"where": 3}, "where must be"),
    ({"soft": 1.0}, r"soft .*\[0, 1\)"),
    ({"scale": -1.0}, "^scale must be finite"),
    ({"trainable_scale": float("inf")}, "^trainable_scale must be finite"),
    ({"soft": 0.1, "trainable_scale": 0.5}, "soft and trainable_scale"),
])  # fmt: skip
def test_a_wrong_field_is_named(fields, words):
    with pytest.raises((ValueError, TypeError), match=words):
        AnchorRecipe(**fields)


def test_a_recipe_goes_through_json():
    recipe = AnchorRecipe("exact", 0.25, 3, "kernel", 0.1, "normal", 2.0)
    assert AnchorRecipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    exported = {"kind": "neurons", "ratio": 0.4, "seed": 2, "where": None, "soft": None}  # what exported files hold
    assert AnchorRecipe.from_json(exported) == AnchorRecipe("neurons", 0.4, 2)
    with pytest.raises(ValueError, match="no field 'raito'; its fields are kind, ratio"):
        AnchorRecipe.from_json({"raito": 0.4})
    with pytest.raises(TypeError, match="where is a function"):
        AnchorRecipe(where=lambda path: True).to_json()


def test_the_example_runs():
    assert doctest.testmod(recipe).failed == 0


@pytest.mark.parametrize("options", [{"values": "normal"}, {"scale": 1.5}, {"scales": {"head": 3.0}}])
def test_what_is_frozen_as_a_whole_keeps_its_values(options):
    of = AnchorRecipe(ratio=0.5, freeze="head", **options)
    mask = of.draw(PARAMS)
    valued = of.anchor_values(PARAMS, mask)
    assert raw(valued["head"]) == raw(PARAMS["head"]) == raw(of.initial_values(OTHER, PARAMS, mask)["head"])
    anchored = ~np.asarray(mask["Dense_0"]["kernel"])
    changed = np.asarray(valued["Dense_0"]["kernel"]) != PARAMS["Dense_0"]["kernel"]
    assert (changed == (anchored if "scales" not in options else False)).all()
