"""The bits of a mask depend on (key, path, shape) alone; counts, units and shared anchors are exact. All comparisons are of bits."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.parameters import slow
from tests.xla_flags import NO_FLOAT16
from tna_jax import masks

KEY = jax.random.key(7)
SHAPES = {"Dense_0": {"kernel": (6, 5), "bias": (5,)}, "Dense_1": {"kernel": (6, 5), "bias": (5,)}, "gain": ()}


def tree(shapes, dtype=jnp.float32):
    return jax.tree.map(lambda shape: jnp.zeros(shape, dtype), shapes, is_leaf=lambda s: isinstance(s, tuple))


PARAMS = tree(SHAPES)


def raw(made) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(made)]


# The programs run for a millisecond and are compiled for far longer.
QUICK = {"xla_backend_optimization_level": 0}
if jax.__version_info__ < (0, 11):
    QUICK["xla_cpu_use_fusion_emitters"] = False


def compiled(function, *arguments):
    return jax.jit(function, compiler_options=QUICK)(*arguments)


def draws(key, params=PARAMS):
    return masks.bernoulli(key, params, 0.4), masks.exact(key, params, 0.4), masks.neurons(key, params, 0.4)


# What the bits depend on


def test_bits_do_not_depend_on_other_leaves_or_their_order():
    more = PARAMS | {"A": jnp.zeros((6, 5)), "z": [jnp.zeros(5)], "Dense_1": {"kernel": jnp.zeros((6, 5))}}
    for draw in (masks.bernoulli, masks.exact, masks.neurons):
        one, other = draw(KEY, PARAMS, 0.4), draw(KEY, dict(reversed(more.items())), 0.4)
        assert raw(one["Dense_0"]) == raw(other["Dense_0"])
        assert raw(one["gain"]) == raw(other["gain"])
        assert raw(one["Dense_1"]["kernel"]) == raw(other["Dense_1"]["kernel"])


@pytest.mark.parametrize("draw", [masks.bernoulli, *slow(masks.exact)])
def test_bits_do_depend_on_key_path_and_shape(draw):
    def bits(key, path, shape):
        return raw(draw(key, {path: jnp.zeros(shape)}, 0.5))

    one = bits(KEY, "a", (64, 2))
    assert one == bits(KEY, "a", (64, 2))
    assert one != bits(jax.random.key(8), "a", (64, 2))
    assert one != bits(KEY, "b", (64, 2))
    assert raw(draw(KEY, {"a": {"b": jnp.zeros(64)}}, 0.5)) != raw(draw(KEY, {"a/b": jnp.zeros(64)}, 0.5))
    assert [m.shape for m in jax.tree.leaves(draw(KEY, PARAMS, 0.5))] == [p.shape for p in jax.tree.leaves(PARAMS)]


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.complex64])
def test_bits_do_not_depend_on_dtype_nor_on_having_values(dtype):
    abstract = jax.eval_shape(lambda: tree(SHAPES, dtype))
    assert raw(draws(KEY, tree(SHAPES, dtype))) == raw(draws(KEY, abstract)) == raw(draws(KEY))


def test_jit_and_vmap_do_not_change_bits():
    keys = jax.random.split(KEY, 3)
    many = compiled(jax.vmap(draws), keys)
    for i in range(3):
        assert raw(jax.tree.map(lambda m: m[i], many)) == raw(draws(keys[i]))  # noqa: B023
    assert raw(jax.tree.map(lambda m: m[0], many)) != raw(jax.tree.map(lambda m: m[1], many))
    assert raw(compiled(masks.bernoulli, KEY, PARAMS, 0.4)) == raw(masks.bernoulli(KEY, PARAMS, 0.4))


def test_jax_settings_and_the_kind_of_key_do_not_change_bits():
    drawn, plain = raw(masks.bernoulli(KEY, PARAMS, 0.4)), jax.random.uniform(KEY, (64,))
    assert raw(masks.bernoulli(jax.random.PRNGKey(7), PARAMS, 0.4)) == drawn
    with jax.threefry_partitionable(False):
        assert raw(jax.random.uniform(KEY, (64,))) != raw(plain)  # control: it does change jax.random
        assert raw(masks.bernoulli(KEY, PARAMS, 0.4)) == drawn
        assert raw(compiled(masks.bernoulli, KEY, PARAMS, 0.4)) == drawn


PROCESS = """
import hashlib, jax
jax.config.update("jax_num_cpu_devices", {devices})
from tna_jax import masks
key, shapes = jax.random.key(7), {shapes}
params = jax.eval_shape(lambda: jax.tree.map(jax.numpy.zeros, shapes, is_leaf=lambda s: isinstance(s, tuple)))
drawn = masks.bernoulli(key, params, 0.4), masks.exact(key, params, 0.4), masks.neurons(key, params, 0.4)
print(jax.device_count(), hash("a"), b"".join(m.tobytes() for m in jax.tree.leaves(drawn)).hex())
"""


def test_a_fresh_process_draws_the_same_bits():
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    process = subprocess.run(
        [sys.executable, "-c", PROCESS.format(devices=3, shapes=SHAPES)],
        env={**os.environ, "PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    devices, salted, drawn = process.stdout.split()
    assert int(devices) == 3 != jax.device_count()
    assert int(salted) != hash("a")  # control: hash(str) is salted
    assert drawn == b"".join(raw(draws(KEY))).hex()


# Ratios and counts


def test_masks_of_one_key_are_nested():
    big = tree({"w": (40, 25)})
    for draw in (masks.bernoulli, masks.exact):
        drawn = [np.asarray(draw(KEY, big, ratio)["w"]) for ratio in (0.0, 0.2, 0.4, 0.8, 1.0)]
        assert drawn[0].all() and not drawn[-1].any()
        for small, large in zip(drawn, drawn[1:], strict=False):
            assert not (large & ~small).any()  # anchored stays anchored
            assert large.sum() < small.sum()
    other = np.asarray(masks.bernoulli(jax.random.key(8), big, 0.8)["w"])
    assert (other & ~np.asarray(masks.bernoulli(KEY, big, 0.2)["w"])).any()  # control: of two keys they are not


@pytest.mark.parametrize("ratio", [0.1, 0.4, 0.9])
def test_the_share_of_bernoulli_anchors_is_the_ratio(ratio):
    n = 300_000
    share = float(masks.anchored_ratio(masks.bernoulli(KEY, tree({"a": (n // 2,), "b": (n // 2,)}), ratio)))
    sigma = (ratio * (1 - ratio) / n) ** 0.5
    assert 0 < abs(share - ratio) < 5 * sigma
    assert abs(share - (1 - ratio)) > 5 * sigma  # control: the other convention


def test_a_traced_ratio_is_the_eager_one():
    ratios = np.float32([0.0, 0.3, 0.7, 1.0])
    sweep = compiled(jax.vmap(lambda ratio: masks.bernoulli(KEY, PARAMS, ratio)), ratios)
    for i, ratio in enumerate(ratios):
        assert raw(jax.tree.map(lambda m: m[i], sweep)) == raw(masks.bernoulli(KEY, PARAMS, float(ratio)))  # noqa: B023
    with pytest.raises(TypeError, match="bernoulli"):
        jax.jit(lambda ratio: masks.exact(KEY, PARAMS, ratio))(0.5)


COUNTS = [
    # size, ratio, anchored: round(ratio * size), halves up (Python's round would give 2 for 2.5)
    (5, 0.0, 0), (5, 1.0, 5), (5, 0.5, 3), (1, 0.5, 1), (1, 0.4, 0), (3, 0.5, 2), (10, 0.25, 3), (10, 0.24, 2), (7, 0.4, 3),
    (4, 0.125, 1), (0, 0.5, 0), (1000, 0.4, 400),
]  # fmt: skip


@pytest.fixture(scope="module")
def counted():
    """Anchors drawn for each row of the table: by `exact`, and by `neurons` in a bias and in its kernel of 3 rows."""

    def count(key):
        for size, ratio, _ in COUNTS:
            one = masks.exact(key, tree({"box": (1, size, 1)}), ratio)
            layer = masks.neurons(key, tree({"bias": (size,), "kernel": (3, size)}), ratio)
            yield [jnp.sum(~m) for m in jax.tree.leaves((one, layer))]

    return compiled(lambda key: list(count(key)), KEY)


@pytest.mark.parametrize("row", range(len(COUNTS)), ids=map(str, COUNTS))
def test_exact_counts(counted, row):
    anchored = COUNTS[row][2]
    assert [int(n) for n in counted[row]] == [anchored, anchored, 3 * anchored]


def test_exact_chooses_uniformly():
    keys = jax.random.split(KEY, 4000)
    drawn = compiled(jax.vmap(lambda key: masks.exact(key, tree({"w": (5,)}), 0.4)["w"]), keys)
    share = np.asarray(~drawn).mean(0)
    np.testing.assert_allclose(share, 0.4, atol=5 * (0.24 / 4000) ** 0.5)


# Whole neurons

UNITS = {
    # leaf shapes of one module -> for each leaf, the axes that are *not* units
    "Linen Dense": ({"kernel": (6, 8), "bias": (8,)}, {"kernel": (0,), "bias": ()}),
    "Linen Conv": ({"kernel": (3, 3, 2, 8), "bias": (8,)}, {"kernel": (0, 1, 2), "bias": ()}),
    "Linen Conv, no bias": ({"kernel": (3, 3, 2, 8)}, {"kernel": (0, 1, 2)}),
    "Linen attention projection": ({"kernel": (6, 2, 4), "bias": (2, 4)}, {"kernel": (0,), "bias": ()}),
    "Linen attention output": ({"kernel": (2, 4, 6), "bias": (6,)}, {"kernel": (0, 1), "bias": ()}),
    "Linen LayerNorm": ({"scale": (8,), "bias": (8,)}, {"scale": (), "bias": ()}),
    "Equinox Linear": ({"weight": (8, 6), "bias": (8,)}, {"weight": (1,), "bias": ()}),
    "Equinox Conv": ({"weight": (8, 2, 3, 3), "bias": (8, 1, 1)}, {"weight": (1, 2, 3), "bias": (1, 2)}),
    "Equinox LayerNorm": ({"weight": (8,), "bias": (8,)}, {"weight": (), "bias": ()}),
}


@pytest.mark.parametrize(("shapes", "axes"), [*list(UNITS.values())[:2], *slow(*list(UNITS.values())[2:])], ids=UNITS)
def test_neurons_anchor_whole_units(shapes, axes):
    params = tree({"Module_0": shapes})
    both = compiled(lambda key: (masks.neurons(key, params, 0.4), masks.exact(key, params, 0.4)), KEY)
    mask, entries = both[0]["Module_0"], both[1]["Module_0"]
    units = []
    for leaf, m in mask.items():
        keep = np.asarray(m).any(axes[leaf])
        assert (keep == np.asarray(m).all(axes[leaf])).all()  # a unit is anchored as a whole
        units.append(keep)
    assert all(keep.tobytes() == units[0].tobytes() for keep in units)  # and in all leaves of its module
    assert (~units[0]).sum() == int(0.4 * units[0].size + 0.5)
    if len(shapes) > 1:  # control: single entries are not units
        assert len({np.asarray(m).any(axes[leaf]).tobytes() for leaf, m in entries.items()}) > 1


def test_neurons_of_other_modules_are_drawn_by_themselves():
    mask = masks.neurons(KEY, tree({name: {"kernel": (2, 40), "bias": (40,)} for name in ("Dense_0", "Dense_1")}), 0.5)
    assert raw(mask["Dense_0"]["bias"]) != raw(mask["Dense_1"]["bias"])


# Where


@pytest.mark.parametrize("where", ["Dense_0/kernel", lambda path: path == "Dense_0/kernel"])
@pytest.mark.parametrize("draw", [masks.bernoulli, masks.exact, masks.neurons])
def test_where_draws_in_some_leaves_and_leaves_the_others_trainable(draw, where):
    mask, full = draw(KEY, PARAMS, 0.5, where), draw(KEY, PARAMS, 0.5)
    assert raw(mask["Dense_0"]["kernel"]) == raw(full["Dense_0"]["kernel"])
    rest = [mask["Dense_0"]["bias"], *jax.tree.leaves(mask["Dense_1"]), mask["gain"]]
    assert all(m.dtype == bool and m.all() for m in rest)
    assert not all(m.all() for m in jax.tree.leaves(full["Dense_1"]))  # control


def test_where_that_selects_nothing_names_the_paths():
    with pytest.raises(ValueError, match=r"Dense0.*Dense_0/bias, Dense_0/kernel, Dense_1/bias"):
        masks.bernoulli(KEY, PARAMS, 0.5, "Dense0")


# Laws

MASK = {"a": np.array([True, False, False, True]), "b": np.bool_(False), "c": np.array([[True]])}


def test_soft():
    mask = masks.soft(MASK, 0.25)
    assert raw(mask) == raw({"a": np.float32([1, 0.25, 0.25, 1]), "b": np.float32(0.25), "c": np.float32([[1]])})
    assert raw(masks.soft(MASK, 0)["a"]) == raw(np.float32([1, 0, 0, 1]))
    with pytest.raises(ValueError, match="1.5"):
        masks.soft(MASK, 1.5)
    with pytest.raises(TypeError, match="not bool: a, b, c"):
        masks.soft(mask, 0.5)


def test_complement_of_complement_is_the_mask():
    assert raw(masks.complement(MASK)["a"]) == raw(np.array([False, True, True, False]))
    assert raw(masks.complement(masks.complement(MASK))) == raw(MASK)
    assert raw(masks.complement(MASK)) != raw(MASK)
    assert raw(masks.complement(masks.soft(MASK, 0.25))["a"]) == raw(np.float32([0, 0.75, 0.75, 0]))
    drawn = masks.bernoulli(KEY, PARAMS, 0.3)
    both = masks.anchored_ratio(drawn) + masks.anchored_ratio(masks.complement(drawn))
    assert abs(both - 1) < 1e-6


def test_anchored_ratio():
    ratio = masks.anchored_ratio(MASK)
    assert (ratio.shape, ratio.dtype, float(ratio)) == ((), jnp.float32, 0.5)  # 3 of 6
    assert float(masks.anchored_ratio(masks.soft(MASK, 0.25))) == 0.5
    assert float(masks.anchored_ratio(masks.soft(MASK, 1.0))) == 0  # a multiplier of 1 anchors nothing
    assert float(jax.jit(masks.anchored_ratio)(MASK)) == 0.5
    assert float(masks.anchored_ratio(masks.exact(KEY, tree({"w": (40, 25)}), 0.37))) == np.float32(0.37)
    with pytest.raises(ValueError, match="empty"):
        masks.anchored_ratio({})


@pytest.mark.parametrize(
    "dtype", [*slow(jnp.float32), jnp.bfloat16, pytest.param(jnp.float16, marks=[pytest.mark.slow, NO_FLOAT16])]
)
def test_prune(dtype):
    params = {
        "a": jnp.array([1, jnp.nan, -jnp.inf, -2], dtype),
        "b": jnp.array(3, dtype),
        "c": jnp.array([[-0.0]], dtype),
    }
    pruned = masks.prune(params, MASK)
    assert raw(pruned) == raw({"a": jnp.array([1, 0, 0, -2], dtype), "b": jnp.zeros((), dtype), "c": params["c"]})
    assert [p.dtype for p in jax.tree.leaves(pruned)] == [dtype] * 3
    half = masks.prune(
        {"a": jnp.array([1, 2, 4, 8], dtype), "b": 1, "c": 1} | {k: params[k] for k in "bc"}, masks.soft(MASK, 0.5)
    )
    assert raw(half["a"]) == raw(jnp.array([1, 1, 2, 8], dtype))


SPECIAL = {
    # zeros of both signs, subnormals, infinities and NaNs with a payload
    jnp.float32: np.uint32([0x80000000, 0x00000001, 0xFF800000, 0x7FC12345, 0x7F812345, 0x3F800000]),
    jnp.bfloat16: np.uint16([0x8000, 0x0001, 0xFF80, 0x7FC5, 0x7F85, 0x3F80]),
    jnp.float16: np.uint16([0x8000, 0x0001, 0xFC00, 0x7E21, 0x7D21, 0x3C00]),
}


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("dtype", SPECIAL)
def test_share_anchors_copies_bits(dtype, wrap):
    source = jnp.asarray(SPECIAL[dtype].view(dtype))
    mask = np.array([True, False] * 3)
    share = wrap(lambda p, q: masks.share_anchors({"x": p}, {"x": q}, {"x": mask})["x"])
    for params in (jnp.zeros(6, dtype), source[::-1]):
        shared = share(params, source)
        assert shared.dtype == dtype
        expected = np.where(mask, np.asarray(params).view(SPECIAL[dtype].dtype), SPECIAL[dtype])
        assert np.asarray(shared).tobytes() == expected.tobytes()
    assert raw(share(source, source)) == raw(source)


def test_share_anchors_under_soft_and_scalar_masks():
    params, source = {"x": jnp.zeros(3), "y": jnp.zeros(2)}, {"y": jnp.ones(2), "x": jnp.ones(3)}
    shared = masks.share_anchors(params, source, {"x": np.float32([1, 0.5, 0]), "y": False})
    assert raw(shared) == raw({"x": np.float32([0, 1, 1]), "y": np.float32([1, 1])})


# Errors


@pytest.mark.parametrize("ratio", [-0.1, 1.1, 40, float("nan")])
@pytest.mark.parametrize("draw", [masks.bernoulli, masks.exact, masks.neurons])
def test_ratio_outside_the_unit_interval(draw, ratio):
    with pytest.raises(ValueError, match=r"share of anchored entries and must lie in \[0, 1\], got"):
        draw(KEY, PARAMS, ratio)


def test_one_ratio_is_for_all_leaves():
    with pytest.raises(TypeError, match="ratio is one number .* got dict; where= says"):
        masks.bernoulli(jax.random.key(0), {"w": np.ones(2)}, {"w": 0.5})


@pytest.mark.parametrize("draw", [masks.bernoulli, masks.exact, masks.neurons])
def test_integer_leaves_are_all_listed(draw):
    with pytest.raises(TypeError, match=r"batch_stats/count \(int32\), step \(int32\)"):
        draw(KEY, PARAMS | {"step": jnp.int32(0), "batch_stats": {"count": jnp.zeros(2, jnp.int32)}}, 0.5)


@pytest.mark.parametrize("draw", [masks.bernoulli, masks.exact, masks.neurons, masks.per_unit])
def test_running_statistics_have_no_anchors(draw):
    """All variables of a Linen module, or a whole state of NNX, instead of the parameters: models would share statistics of one of them."""
    number = {"bias": 1} if draw is masks.per_unit else 0.5
    params, means = {"Dense_0": {"bias": jnp.zeros(3)}}, {"BatchNorm_0": {"mean": jnp.zeros(3), "var": jnp.ones(3)}}
    options = {"apart": True} if draw is masks.neurons else {}
    with pytest.raises(
        ValueError, match=r"statistics: batch_stats/BatchNorm_0/mean, batch_stats/BatchNorm_0/var\. .*params'"
    ):
        draw(KEY, {"params": params, "batch_stats": means}, number, **options)
    layer = nnx.State({"bias": nnx.Param(jnp.zeros(3)), "mean": nnx.BatchStat(jnp.zeros(3))})
    with pytest.raises(ValueError, match=r"running statistics: mean\. .* nnx\.Param"):
        draw(KEY, layer, number, **options)
    beside = masks.bernoulli(KEY, {"params": params, "batch_stats": means}, 1.0, "^params")
    assert jax.tree.map(lambda leaf: bool(leaf.any()), beside) == {
        "params": {"Dense_0": {"bias": False}},
        "batch_stats": {"BatchNorm_0": {"mean": True, "var": True}},
    }


def test_what_does_not_fit_is_all_listed():
    mask = {"a": np.ones(3, bool), "b": np.ones((2, 2), bool), "extra": np.bool_(True)}
    params = {"a": jnp.zeros(4), "b": jnp.zeros(2), "missing": {"x": jnp.zeros(1)}}
    for call in (lambda: masks.prune(params, mask), lambda: masks.share_anchors(params, params, mask)):
        with pytest.raises(ValueError, match="the mask does not fit the params") as error:
            call()
        for text in ("missing/x", "extra", "a (mask (3,), params (4,))", "b (mask (2, 2), params (2,))"):
            assert text in str(error.value)
    good = {"a": False, "b": False, "missing": {"x": False}}
    with pytest.raises(ValueError, match="the source does not fit the params") as error:
        masks.share_anchors(params, {"a": jnp.zeros(3), "b": jnp.zeros((2, 2))}, good)
    for text in ("missing/x", "a (source (3,), params (4,))", "b (source (2, 2), params (2,))"):
        assert text in str(error.value)


def test_anchors_are_not_cast():
    params, source = tree(SHAPES), tree(SHAPES, jnp.bfloat16)
    with pytest.raises(
        ValueError, match=r"Dense_0/bias \(float32, source bfloat16\).*gain \(float32, source bfloat16\)"
    ):
        masks.share_anchors(params, source, masks.bernoulli(KEY, params, 0.5))


@pytest.mark.parametrize(
    "dtype", [jnp.float32, *slow(jnp.bfloat16), pytest.param(jnp.float16, marks=[pytest.mark.slow, NO_FLOAT16])]
)
def test_what_is_selected_has_a_derivative(dtype):
    chosen = jnp.array([True, False, True])
    a, b = (jnp.arange(3, dtype=dtype) + n for n in (1, 5))
    found = jax.grad(lambda a, b: jnp.sum(masks.bitwise_where(chosen, a, b) ** 2).astype(jnp.float32), (0, 1))(a, b)
    np.testing.assert_array_equal(found[0].astype(np.float32), [2, 0, 6])
    np.testing.assert_array_equal(found[1].astype(np.float32), [0, 12, 0])
