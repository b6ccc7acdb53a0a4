"""Anchor masks: their bits depend on key, path and shape alone; counts, laws and errors."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tna_jax import masks

KEY = jax.random.key(3)
PARAMS = {
    "a": {"kernel": jnp.ones((40, 30)), "bias": jnp.zeros(30)},
    "b": {"kernel": jnp.ones((30, 10)), "bias": jnp.zeros(10)},
}


def same_bits(x, y) -> bool:
    pairs = list(zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True))
    return all(np.asarray(p).tobytes() == np.asarray(q).tobytes() for p, q in pairs)


@pytest.mark.parametrize("draw", [masks.bernoulli, masks.exact, masks.neurons])
def test_bits_depend_on_key_path_and_shape_alone(draw):
    mask = draw(KEY, PARAMS, 0.4)
    assert same_bits(draw(KEY, {"b": PARAMS["b"]}, 0.4)["b"], mask["b"])  # other leaves
    assert same_bits(draw(KEY, {"b": PARAMS["b"], "a": PARAMS["a"]}, 0.4), mask)  # order
    assert same_bits(jax.jit(lambda key: draw(key, PARAMS, 0.4))(KEY), mask)
    stacked = jax.vmap(lambda key: draw(key, PARAMS, 0.4))(jnp.stack([jax.random.key(9), KEY]))
    assert same_bits(jax.tree.map(lambda x: x[1], stacked), mask)
    assert same_bits(draw(KEY, jax.eval_shape(lambda: PARAMS), 0.4), mask)
    with jax.threefry_partitionable(False):
        assert same_bits(draw(KEY, PARAMS, 0.4), mask)
    # controls: each of the three does matter
    assert not same_bits(draw(jax.random.key(4), PARAMS, 0.4), mask)
    assert not same_bits(draw(KEY, {"c": PARAMS["b"]}, 0.4)["c"], mask["b"])
    wide = draw(KEY, {"b": {"kernel": jnp.ones((30, 11))}}, 0.4)["b"]["kernel"]
    assert not np.array_equal(wide[:, :10], mask["b"]["kernel"])


def test_nnx_states_and_dicts_have_the_same_masks():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(6, 5, rngs=rngs)

    boxed = nnx.state(Net(nnx.Rngs(0)), nnx.Param)
    masked = [masks.bernoulli(KEY, tree, 0.5) for tree in (boxed, nnx.as_pure(boxed), nnx.to_pure_dict(boxed))]
    assert same_bits(masked[0], masked[1])
    assert same_bits(masked[0], masked[2])
    assert not same_bits(masked[0], masks.bernoulli(KEY, {"other": nnx.to_pure_dict(boxed)}, 0.5))


def test_fresh_processes_with_other_devices_and_hash_seeds_draw_the_same_bytes():
    code = """
import sys, jax, jax.numpy as jnp, hashlib
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
from tna_jax import masks
tree = {"a": {"kernel": jnp.ones((40, 30)), "bias": jnp.zeros(30)}}
leaves = [jax.tree.leaves(draw(jax.random.key(3), tree, 0.4)) for draw in (masks.bernoulli, masks.exact, masks.neurons)]
print(hashlib.sha256(b"".join(leaf.tobytes() for group in leaves for leaf in group)).hexdigest())
"""
    root = str(Path(__file__).resolve().parents[2])
    found = set()
    for devices, seed in (("1", "0"), ("8", "12345")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root}
        run = subprocess.run(
            [sys.executable, "-c", code, devices], env=environment, capture_output=True, text=True, check=True
        )
        found.add(run.stdout.strip())
    assert len(found) == 1 and len(found.pop()) == 64


def test_masks_of_one_key_are_nested_and_hold_their_ratio():
    small, large = (masks.bernoulli(KEY, PARAMS, ratio) for ratio in (0.2, 0.6))
    assert all(bool(jnp.all(~b | a)) for a, b in zip(jax.tree.leaves(small), jax.tree.leaves(large), strict=True))
    total = sum(leaf.size for leaf in jax.tree.leaves(PARAMS))
    for ratio in (0.2, 0.6):
        found = float(masks.anchored_ratio(masks.bernoulli(KEY, PARAMS, ratio)))
        assert abs(found - ratio) < 5 * np.sqrt(ratio * (1 - ratio) / total)
    traced = jax.vmap(lambda ratio: masks.bernoulli(KEY, PARAMS, ratio))(jnp.array([0.2, 0.6]))
    assert same_bits(jax.tree.map(lambda x: x[1], traced), large)
    assert masks.anchored_ratio(masks.bernoulli(KEY, PARAMS, 0)) == 0
    assert masks.anchored_ratio(masks.bernoulli(KEY, PARAMS, 1)) == 1


@pytest.mark.parametrize(
    ("size", "ratio", "expected"), [(10, 0.4, 4), (10, 0.25, 3), (3, 0.5, 2), (7, 0.0, 0), (7, 1.0, 7), (1, 0.4, 0)]
)
def test_exact_counts(size, ratio, expected):
    assert int(jnp.sum(~masks.exact(KEY, {"w": jnp.ones(size)}, ratio)["w"])) == expected


def test_neurons_anchor_a_units_weights_and_bias_together():
    tree = {
        "dense": {"kernel": jnp.ones((6, 10)), "bias": jnp.zeros(10)},
        "conv": {"kernel": jnp.ones((3, 3, 2, 8)), "bias": jnp.zeros(8)},
        "query": {"kernel": jnp.ones((12, 3, 4)), "bias": jnp.zeros((3, 4))},
        "norm": {"scale": jnp.ones(8), "bias": jnp.zeros(8)},
        "equinox": {"weight": jnp.ones((10, 6)), "bias": jnp.zeros(10)},
        "equinox_conv": {"weight": jnp.ones((8, 2, 3, 3)), "bias": jnp.zeros((8, 1, 1))},
    }
    mask = masks.neurons(KEY, tree, 0.5)
    for name in ("dense", "conv", "query", "norm"):
        (weights,) = (leaf for key, leaf in mask[name].items() if key != "bias")
        assert np.array_equal(weights, np.broadcast_to(mask[name]["bias"], weights.shape)), name
    assert np.array_equal(mask["equinox"]["weight"], np.repeat(mask["equinox"]["bias"][:, None], 6, axis=1))
    conv = mask["equinox_conv"]
    assert np.array_equal(conv["weight"], np.broadcast_to(conv["bias"][:, None], (8, 2, 3, 3)))
    for name, units in (("dense", 5), ("conv", 4), ("query", 6), ("norm", 4), ("equinox", 5), ("equinox_conv", 4)):
        assert int(jnp.sum(~mask[name]["bias"])) == units, name


@pytest.mark.parametrize("where", ["^a/", lambda path: path.startswith("a/")])
def test_where_chooses_leaves(where):
    mask = masks.bernoulli(KEY, PARAMS, 0.5, where)
    assert same_bits(mask["a"], masks.bernoulli(KEY, PARAMS, 0.5)["a"])
    assert all(bool(jnp.all(leaf)) for leaf in jax.tree.leaves(mask["b"]))
    with pytest.raises(ValueError, match=r"selects no leaf; the paths are: a/bias, a/kernel, b/bias, b/kernel"):
        masks.bernoulli(KEY, PARAMS, 0.5, "c/")


def test_soft_complement_prune_by_hand():
    mask = {"w": jnp.array([True, False])}
    assert masks.soft(mask, 0.2)["w"].tolist() == [1.0, np.float32(0.2)]
    assert masks.complement(mask)["w"].tolist() == [False, True]
    assert same_bits(masks.complement(masks.complement(mask)), mask)
    assert masks.complement({"w": jnp.array([1.0, 0.25])})["w"].tolist() == [0.0, 0.75]
    assert masks.prune({"w": jnp.array([3.0, 5.0])}, mask)["w"].tolist() == [3.0, 0.0]
    assert masks.prune({"w": jnp.array([3.0, jnp.nan])}, mask)["w"].tolist() == [3.0, 0.0]
    assert float(masks.anchored_ratio(masks.soft(mask, 0.2))) == 0.5


def test_shared_anchors_are_the_sources_bits_and_the_rest_stays():
    own = {"w": jnp.array([1.0, 2.0, 3.0, 4.0])}
    source = {"w": jnp.array([-0.0, jnp.nan, 7.0, 8.0])}
    mask = {"w": jnp.array([False, False, True, True])}
    found = masks.share_anchors(own, source, mask)["w"]
    assert np.asarray(found)[:2].tobytes() == np.asarray(source["w"])[:2].tobytes()
    assert found[2:].tolist() == [3.0, 4.0]
    assert same_bits(masks.share_anchors(own, own, mask), own)


def test_errors_list_everything_that_is_wrong():
    for ratio in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
            masks.bernoulli(KEY, PARAMS, ratio)
    with pytest.raises(TypeError, match=r"n \(int32\), s \(str\)"):
        masks.bernoulli(KEY, {"w": jnp.ones(2), "n": jnp.arange(3), "s": "relu"}, 0.5)
    wrong = {"a": {"kernel": jnp.ones((40, 3), bool), "bias": jnp.ones(30, bool)}, "c": jnp.ones(2, bool)}
    with pytest.raises(
        ValueError, match=r"not in the mask: b/bias, b/kernel.*not in the params: c.*a/kernel \(mask \(40, 3\)"
    ):
        masks.prune(PARAMS, wrong)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    with pytest.raises(ValueError, match=r"a/bias \(float32, source bfloat16\)"):
        masks.share_anchors(PARAMS, half, masks.bernoulli(KEY, PARAMS, 0.5))
    with pytest.raises(TypeError, match="a bool mask"):
        masks.soft({"w": jnp.ones(2)}, 0.5)
    with pytest.raises(ValueError, match="multiplier"):
        masks.soft({"w": jnp.ones(2, bool)}, 2.0)
