"""Leaves are named by their key path, boxes of the frameworks do not count, and errors list every path at once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from tna_jax import trees

A, B = np.float32([1, 2]), np.float32([[3]])


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    weight: np.ndarray
    bias: np.ndarray | None


NAMES = {
    "a dict, keys sorted": ({"b": A, "a": {"c": B}}, ["a/c", "b"]),
    "lists and tuples": ([A, (B, A)], ["0", "1/0", "1/1"]),
    "a dataclass, None is no leaf": ({"l": Layer(A, None)}, ["l/weight"]),
    "integer keys": ({0: A, 1: {2: B}}, ["0", "1/2"]),
    "an NNX state of boxes": (nnx.State({"l": {"kernel": nnx.Param(jnp.asarray(A))}}), ["l/kernel"]),
    "a Linen box": ({"l": {"kernel": linen.Partitioned(A, ("x",))}}, ["l/kernel"]),
    "a part taken out": ({"l": optax.MaskedNode(), "m": A}, ["l", "m"]),
    "a bare array": (A, [""]),
    "nothing": ({}, []),
}


@pytest.mark.parametrize(("tree", "expected"), NAMES.values(), ids=NAMES)
def test_names(tree, expected):
    found = trees.named_leaves(tree)
    assert [trees.name(path) for path, _ in found] == expected
    arrays = [leaf for _, leaf in found if not isinstance(leaf, optax.MaskedNode)]
    for leaf, plain in zip(arrays, jax.tree.leaves(tree), strict=True):
        assert np.asarray(leaf).tobytes() == np.asarray(plain).tobytes()


def test_a_slash_in_a_key_is_not_a_level():
    slash, levels = trees.named_leaves({"a/b": A}), trees.named_leaves({"a": {"b": A}})
    assert slash[0][0] == ("a/b",)
    assert levels[0][0] == ("a", "b")


@pytest.mark.parametrize("tree", [tree for tree, _ in NAMES.values()], ids=NAMES)
def test_like_keeps_the_structure_and_its_boxes(tree):
    made = trees.like(tree, [leaf + 1 for leaf in jax.tree.leaves(tree)])
    assert jax.tree.structure(made) == jax.tree.structure(tree)
    pairs = zip(jax.tree.leaves(made), jax.tree.leaves(tree), strict=True)
    assert all((a == b + 1).all() for a, b in pairs)


def test_parameters_lists_every_leaf_that_is_no_floating_point_array():
    good = {
        "a": A,
        "b": jnp.zeros(2, jnp.bfloat16),
        "c": np.complex64([1j]),
        "d": jax.ShapeDtypeStruct((2,), jnp.float16),
    }
    assert len(trees.parameters(good)) == 4
    bad = {
        "step": np.int32(3),
        "rng": {"key": jax.random.key(0)},
        "rate": 0.1,
        "flag": np.bool_(True),
        "act": jax.nn.relu,
    }
    with pytest.raises(TypeError) as error:
        trees.parameters(good | bad)
    for text in (
        "step (int32)",
        "rng/key (key<fry>)",
        "rate (float)",
        "flag (bool)",
        "act (",
        "nnx.Param",
        "eqx.filter",
    ):
        assert text in str(error.value)
    assert "bfloat16" not in str(error.value)


WHERE = {
    "everything": (None, [True, True, True]),
    "a pattern, searched": ("kernel", [True, False, True]),
    "anchored pattern": ("^Dense_1", [False, False, True]),
    "a predicate": (lambda path: path.endswith("bias"), [False, True, False]),
    "a predicate that is not bool": (lambda path: path.count("bias"), [False, True, False]),
}


@pytest.mark.parametrize(("where", "expected"), WHERE.values(), ids=WHERE)
def test_selector(where, expected):
    leaves = [("Dense_0", "kernel"), ("Dense_0", "bias"), ("Dense_1", "kernel")]
    chosen = trees.selector(where, leaves)
    assert [chosen(path) for path in leaves] == expected
    assert all(type(chosen(path)) is bool for path in leaves)


@pytest.mark.parametrize("where", ["Dense0", lambda path: False])
def test_a_selector_of_nothing_names_the_paths(where):
    with pytest.raises(ValueError, match="the paths are: Dense_0/kernel, Dense_0/bias"):
        trees.selector(where, [("Dense_0", "kernel"), ("Dense_0", "bias")])
    trees.selector(where, [])  # no leaves, nothing to misspell


def test_align_follows_the_tree_not_the_mask():
    tree = nnx.State({"b": nnx.Param(jnp.zeros(2)), "a": {"c": nnx.Param(jnp.zeros((2, 3)))}})
    mask = {"a": {"c": np.ones((2, 3), bool)}, "b": np.array([True, False])}
    aligned = trees.align(mask, tree)
    assert [m.shape for m in aligned] == [leaf.shape for leaf in jax.tree.leaves(tree)]
    assert trees.align({"a": {"c": False}, "b": mask["b"]}, tree)[0] is False  # one for the whole leaf


def test_align_lists_everything_that_does_not_fit():
    tree = {"only": {"tree": A}, "both": A, "shape": B, "rank": B}
    mask = {
        "both": np.array([True, False]),
        "shape": np.ones((2, 1), bool),
        "rank": np.ones(1, bool),
        "just": {"mask": True},
    }
    with pytest.raises(ValueError, match="the mask does not fit the params") as error:
        trees.align(mask, tree)
    for text in (
        "in the params but not in the mask: only/tree;",
        "in the mask but not in the params: just/mask;",
        "of another shape: rank (mask (1,), params (1, 1)), shape (mask (2, 1), params (1, 1)). Make",
    ):
        assert text in str(error.value)
    assert "both" not in str(error.value)


def test_align_needs_no_partner_for_parts_taken_out():
    mask = {"l": {"kernel": np.array([True]), "bias": np.array([False])}, "m": np.array([True, False])}
    assert trees.align(mask, {"l": optax.MaskedNode(), "m": A})[0] is mask["m"]
    assert trees.align(mask, {}) == []  # optax.tree_map_params asks with a tree without leaves
    part = {"l": {"kernel": np.float32([1]), "bias": optax.MaskedNode()}}
    assert trees.align(mask, part | {"m": A})[0] is mask["l"]["kernel"]
    with pytest.raises(ValueError, match="in the mask but not in the params: m"):
        trees.align(mask, part)  # control: "m" was not taken out, it is missing


def test_leaves_that_are_not_finite_are_named_whatever_their_type():
    tree = {
        "a": np.array([1, np.nan]),
        "b": jnp.array([jnp.inf], jnp.bfloat16),
        "c": np.array([1j * np.inf]),
        "d": np.arange(3),
        "e": jax.random.key(0),
        "f": 1.0,
    }
    assert trees.names_not_finite(tree) == ["a", "b", "c"]
    jax.jit(lambda x: trees.names_not_finite({"x": x}) or x)(np.float32(np.nan))  # traced values are unknown


def test_only_a_mask_may_have_a_number_for_a_whole_leaf():
    """Of two models one number against an array is another network, and an empty tree is no model."""
    tree, scalar = {"w": np.zeros(3, np.float32)}, {"w": np.float32(5)}
    assert trees.align({"w": True}, tree) == [True] and trees.align({"w": True}, {}) == []
    with pytest.raises(ValueError, match=r"of another shape: w \(other model \(\), first model \(3,\)\)\.$"):
        trees.align(scalar, tree, "first model", "other model")
    with pytest.raises(ValueError, match="in the other model but not in the first model: w"):
        trees.align(tree, {}, "first model", "other model")
    half = {"w": np.zeros(3, np.float16)}
    assert trees.align(half, tree, subject="model")[0] is half["w"]
    assert trees.align(
        {"w": np.zeros(3)}, tree, subject="model", same_dtypes=True
    )  # float64 of NumPy is float32 in JAX
    with pytest.raises(ValueError, match=r"of another dtype: w \(model float16, params float32\)"):
        trees.align(half, tree, subject="model", same_dtypes=True)
