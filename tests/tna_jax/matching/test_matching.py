"""Matching against the plain published algorithm, with tables of groups written by hand; its laws; activations; many models."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from benchmarks import git_rebasin
from tests.parameters import slow, slow_but
from tna_jax import models, networks, trees
from tna_jax.matching import assignment, permutations
from tna_jax.matching.heads import head_matching
from tna_jax.matching.many import merge_many
from tna_jax.matching.permutations import apply_permutation, permutation_spec, permute_state
from tna_jax.matching.weights import activation_matching, weight_matching
from tna_jax.models import resnet, vgg

KEY = jax.random.key(0)


def values(shapes, seed=0):
    draws = np.random.default_rng(seed)

    def draw(leaf):
        if len(leaf.shape) == 1:
            return draws.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype)
        return (draws.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))).astype(leaf.dtype)

    return jax.tree.map(draw, shapes)


@functools.cache
def case(name, shape=(8, 8, 3), **options):
    """The spec of a network, and a function from seeds to its parameters and state."""
    net, init = networks.linen(models.create(name, num_classes=10, **options), shape)
    shapes = jax.eval_shape(init, KEY)
    x = np.random.default_rng(5).normal(size=(64, *shape)).astype(np.float32)
    params, state = shapes
    return permutation_spec(net, params, x, state), lambda seed: values(shapes, seed)


@pytest.fixture(autouse=True, scope="module")
def narrow_networks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vgg, "WIDTHS", (4, 8, 12, 16, 16))
        patch.setattr(resnet, "WIDTHS", (8, 8, 12))
        yield


def flat(tree):
    return {trees.name(path): np.asarray(leaf) for path, leaf in trees.named_leaves(tree)}


def same_bits(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def vgg11():
    """Convolution i: from the units of i - 1 to its own."""
    names = ["stage1_conv1", "stage2_conv1"] + [f"stage{s}_conv{i}" for s in (3, 4, 5) for i in (1, 2)]
    table = {"head/kernel": (names[-1], None), "head/bias": (None,)}
    for before, name in zip([None, *names], names, strict=False):
        table |= {f"{name}/kernel": (None, None, before, name), f"{name}/bias": (name,)}
    return table


PUBLISHED = {
    "mlp": (git_rebasin.mlp(3), {"depth": 3, "width": 24}),
    "vgg11": (vgg11(), {}),
    "resnet20": (git_rebasin.resnet20(), {"norm": "layer"}),
}


@pytest.mark.parametrize("name", slow_but(["mlp", "vgg11"], PUBLISHED))
def test_the_groups_are_those_of_the_table_written_by_hand(name):
    table, options = PUBLISHED[name]
    spec, _ = case(name, **options)
    by_hand = {}
    for path, names in table.items():
        for axis, group in enumerate(names):
            if group is not None:
                by_hand.setdefault(group, set()).add((path, axis))
    found = [{(trees.name(path), axis) for path, axis in spec.where(group)} for group in spec.groups]
    assert sorted(map(sorted, found)) == sorted(map(sorted, by_hand.values()))


@pytest.mark.parametrize(
    "name", ["mlp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("vgg11", "resnet20"))]
)
def test_the_objective_is_at_least_that_of_the_published_algorithm(name):
    table, options = PUBLISHED[name]
    spec, draw = case(name, **options)
    (a, _), (b, _) = draw(0), draw(1)
    published = git_rebasin.weight_matching(table, flat(a), flat(b), KEY, np)
    goal = git_rebasin.objective(table, flat(a), flat(b), published)
    found = weight_matching(spec, a, b, restarts=32)
    assert found.objective >= goal * (1 - 1e-5)
    matched = flat(found.params)
    assert found.objective == pytest.approx(
        float(sum(np.vdot(w, matched[path]) for path, w in flat(a).items())), rel=1e-4
    )
    nothing = float(sum(np.vdot(w, flat(b)[path]) for path, w in flat(a).items()))
    assert found.objective > nothing + 1  # the control: matching does something here
    assert found.sweeps >= 2 and found.assignments > found.moving > 0 and found.moved > 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mlp", {"depth": 3, "width": 24}),
        *slow(("resnet20", {"norm": "batch"}), ("resnet20_option_a", {})),
    ],
)
def test_a_network_finds_itself_again(name, options):
    spec, draw = case(name, **options)
    a, state = draw(0)
    itself = weight_matching(spec, a, a, state=state)
    assert (itself.moved, itself.moving) == (0, 0) and itself.sweeps <= 2
    hidden = permutations.random_permutation(spec, jax.random.key(3))
    b, b_state = apply_permutation(spec, hidden, a), permute_state(spec, hidden, state)
    assert not same_bits(a, b)
    found = weight_matching(spec, a, b, state=b_state)
    assert same_bits(found.params, a) and same_bits(found.state, state)
    if name != "resnet20":
        itself = activation_matching(spec, a, a, spec.inputs, states=(state, state))
        active = activation_matching(spec, a, b, spec.inputs, states=(state, b_state))
        assert itself.moved == 0  # where units are never active their places are all the same: objectives are compared
        assert active.moved > 0 and active.objective == pytest.approx(itself.objective, rel=1e-5)


def test_same_key_same_permutation_and_restarts_never_lose():
    spec, draw = case("mlp", depth=3, width=24)
    (a, _), (b, _) = draw(0), draw(1)
    one, again = (weight_matching(spec, a, b, key=jax.random.key(7)) for _ in range(2))
    assert same_bits(one.params, again.params)
    assert weight_matching(spec, a, b, key=jax.random.key(7), restarts=5).objective >= one.objective
    with pytest.raises(ValueError, match="restarts must be at least 1"):
        weight_matching(spec, a, b, restarts=0)


def test_activation_gains_are_sums_of_products_whatever_the_batches():
    spec, draw = case("mlp", depth=3, width=24)
    (a, _), (b, _) = draw(0), draw(1)
    x = spec.inputs.reshape(len(spec.inputs), -1)

    def hidden(p):
        first = np.maximum(x @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"], 0)
        return first, np.maximum(first @ p["Dense_1"]["kernel"] + p["Dense_1"]["bias"], 0)

    found = activation_matching(spec, a, b, spec.inputs, batch_size=20)
    for i, (one, other) in enumerate(zip(hidden(a), hidden(b), strict=True)):
        rows, columns = linear_sum_assignment(one.T @ other, maximize=True)
        assert found.permutation[f"Dense_{i}"].tolist() == columns[np.argsort(rows)].tolist()
    with pytest.raises(ValueError, match="at least one input"):
        activation_matching(spec, a, b, spec.inputs[:0])


class Stream(nn.Module):
    """A dense layer from a residual stream into itself: one leaf with a group on both axes."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(12, name="into")(x)
        for i in range(3):
            x = x + nn.relu(nn.Dense(12, name=f"layer{i}")(x))
        return nn.Dense(3, name="out")(x)


def test_a_group_on_both_axes_of_a_leaf_never_loses():
    module = Stream()
    x = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    shapes = jax.eval_shape(module.init, KEY, x)["params"]
    spec = permutation_spec(lambda p, x: module.apply({"params": p}, x), shapes, x)
    assert list(spec.groups.values()) == [12]
    for seed in range(5):
        a, b = values(shapes, seed), values(shapes, seed + 10)
        before = sum(float(np.vdot(p, q)) for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
        found = weight_matching(spec, a, b)
        after = sum(
            float(np.vdot(p, q)) for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(found.params), strict=True)
        )
        assert found.objective == pytest.approx(after, rel=1e-5)
        assert after >= before


def test_assignments_are_scipys():
    draws = np.random.default_rng(0)
    for n in (1, 2, 30):
        gain = draws.normal(size=(n, n)).astype(np.float32)
        rows, columns = linear_sum_assignment(gain, maximize=True)
        assert gain[rows, assignment.assign(gain)].sum() == pytest.approx(gain[rows, columns].sum(), rel=1e-6)
    clear = np.eye(5, dtype=np.float32)[draws.permutation(5)]
    assert (clear[np.arange(5), assignment.assign(clear)] == 1).all()


def test_leaves_of_another_network_are_named():
    spec, draw = case("mlp", depth=3, width=24)
    a, _ = draw(0)
    b = {**a, "Dense_1": {"bias": a["Dense_1"]["bias"][:-1]}, "more": np.ones(3, np.float32)}
    words = r"b: these leaves.* Dense_1/bias \(\(23,\) instead of \(24,\)\), Dense_1/kernel \(missing instead of .*more \(\(3,\) instead of none"
    for match in (weight_matching, head_matching):
        with pytest.raises(ValueError, match=words):
            match(spec, a, b)
    with pytest.raises(ValueError, match=words):
        activation_matching(spec, a, b, np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="model 1: these leaves"):
        merge_many(spec, [a, b])


def test_values_that_are_not_finite_are_named():
    spec, draw = case("mlp", depth=3, width=24)
    a, _ = draw(0)
    b = jax.tree.map(np.copy, a)
    b["Dense_1"]["bias"][3] = np.nan
    with pytest.raises(ValueError, match="not finite cannot be matched: b/Dense_1/bias"):
        weight_matching(spec, a, b)
