"""Every operation leaves the groups that it should: one network of many small parts, each with units of its own, traced and run once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import SingleDeviceSharding

from tests.tna_jax.matching import numpy_programs
from tna_jax.matching import apply_permutation, permutation_spec, permutations
from tna_jax.matching.operations import OPERATIONS

BATCH, LENGTH, UNITS = 3, 4, 6
KEY = jax.random.key(0)
IDS = np.array([2, 0, 3])
TABLE = np.sin(np.arange(UNITS) ** 2.0).astype(np.float32)


def scanned(h, p):
    """A recurrent layer over the positions, with a stack of layers inside."""

    def layer(held, w):
        return jnp.tanh(held @ w), None

    def step(held, x):
        held, _ = lax.scan(layer, held + x, jnp.stack([p["u"], p["u2"]]))
        return held, held

    return lax.scan(step, jnp.zeros((BATCH, UNITS)), h.swapaxes(0, 1))[1]


def until(h, p):
    return lax.while_loop(
        lambda state: state[0] < 3, lambda state: (state[0] + 1, jnp.tanh(state[1] @ p["u"])), (0, h)
    )[1]


def pad(mode):
    return lambda h, p: jnp.pad(h, ((0, 0), (1, 2), (0, 0)), mode=mode)


def pooling_gradient(h, p):
    window = (1, 2, 1)
    return jax.grad(lambda y: lax.reduce_window(y, -jnp.inf, lax.max, window, window, "VALID").sum())(h) * h


def two_operands(h, p):
    def larger(one, other):
        first = one[0] > other[0]
        return jnp.where(first, one[0], other[0]), jnp.where(first, one[1], other[1])

    start = (jnp.float32(-9), jnp.float32(0))
    return lax.reduce_window((h, h * 2), start, larger, (1, 2, 1), (1, 2, 1), "VALID")[1]


def class_token(h, p):
    return jnp.concatenate([jnp.tile(p["t"], (BATCH, 1, 1)), h], axis=1)


def printed(h, p):
    jax.debug.callback(lambda y: None, h)
    return lax.with_sharding_constraint(checkpoint_name(h, "h"), SingleDeviceSharding(jax.devices()[0]))


# What is done with hidden units (B, T, 6), and the sizes of the groups that are left of them and of what they meet.
CASES = {
    "edge": (pad("edge"), [6]),
    "mean": (pad("mean"), [6]),
    "maximum": (pad("maximum"), [6]),
    "linear ramp": (pad("linear_ramp"), [6]),
    "class token": (class_token, [6]),
    "printed": (printed, [6]),
    "remat": (lambda h, p: jax.checkpoint(jnp.sin)(h), [6]),
    "set": (lambda h, p: h.at[:, 1].set(p["b"][None]), [6]),
    "added": (lambda h, p: jnp.zeros((BATCH, 5, UNITS)).at[:, IDS].add(h[:, :3]), [6]),
    "updated": (lambda h, p: lax.dynamic_update_slice(h, h[:, :2] * 2, (0, 1, 0)), [6]),
    "sorted positions": (lambda h, p: jnp.sort(h, axis=1), [6]),
    "sorted units": (lambda h, p: jnp.sort(h, axis=2) * TABLE[None, None], [6]),
    "top k": (lambda h, p: lax.top_k(h, 3)[0] @ p["q"], [6, 6]),
    "fft": (lambda h, p: jnp.fft.rfft(h, axis=1).real, [6]),
    "pooling": (lambda h, p: lax.reduce_window(h, -jnp.inf, lax.max, (1, 2, 1), (1, 1, 1), "SAME"), [6]),
    "pooling's gradient": (pooling_gradient, [6]),
    "two operands": (two_operands, [6]),
    "special functions": (lambda h, p: jax.scipy.special.i0e(h) + jnp.conj(jnp.sinc(h)), [6]),
    "cond": (lambda h, p: lax.cond(h.sum() > 0, lambda y: y * 2, lambda y: y @ p["u"], h), [6]),
    "switch": (lambda h, p: lax.switch(1, [jnp.sin, jnp.cos, lambda y: y @ p["u"]], h), [6]),
    "while": (until, [6]),
    "fori": (lambda h, p: lax.fori_loop(0, 2, lambda i, y: jnp.tanh(y @ p["u"]), h), [6]),
    "scan": (scanned, [6]),
    "map": (lambda h, p: lax.map(jnp.tanh, h), [6]),
    "map over units": (lambda h, p: lax.map(lambda y: y - y.mean(), h.transpose(2, 0, 1)).transpose(1, 2, 0), [6]),
    "look-up of positions": (lambda h, p: h[:, IDS], [6]),
    "vmapped look-up": (lambda h, p: jax.vmap(jax.vmap(lambda i: p["q8"][i]))(jnp.ones((BATCH, 2), int)) + h[:, :2], [6]),
    "look-up by argmax": (lambda h, p: p["u"][h.argmax(-1)], [6, 6]),
    "one-hot": (lambda h, p: jax.nn.one_hot(h.argmax(-1), UNITS), [6]),
    "nearest code": (lambda h, p: p["u"][((h[..., None, :] - p["u"][None, None]) ** 2).sum(-1).argmin(-1)], [6, 6]),
    "diagonal": (lambda h, p: h * jnp.diagonal(p["u"])[None, None], [6]),
    "eye": (lambda h, p: h @ (jnp.eye(UNITS) + p["u"]), [6]),
    "along units": (lambda h, p: jnp.take_along_axis(h, h.argmax(-1, keepdims=True), -1) * h, [6]),
    # the place of a unit matters
    "argmax after relu": (lambda h, p: jax.nn.one_hot(jnp.maximum(h, 0).argmax(-1), UNITS), []),
    "flip": (lambda h, p: jnp.flip(h, 2), []),
    "padding, flipped": (lambda h, p: jnp.flip(jnp.pad(h[..., :4], ((0, 0), (0, 0), (0, 2))), 2), [2, 2]),  # cut off; met by zeros
    "every second and the others": (lambda h, p: jnp.concatenate([h[..., ::2], h[..., 1::2] * h[..., ::2]], 2), [3]),
    "some steps": (lambda h, p: jnp.pad(h[..., 1:4:2], ((0, 0), (0, 0), (0, 4))), [4]),  # met by zeros
    "padding, every second": (lambda h, p: jnp.pad(h, ((0, 0), (0, 0), (6, 0)))[..., ::2] * h, []),
    "padding, rolled": (lambda h, p: jnp.roll(jnp.pad(h, ((0, 0), (0, 0), (0, 3))), 1, 2)[..., :6], [5]),
    "ones beside zeros": (lambda h, p: h * jnp.concatenate([jnp.ones(3), jnp.zeros(3)])[None, None], [3]),
    "their flip": (lambda h, p: h * jnp.flip(jnp.concatenate([jnp.ones(2), jnp.zeros(4)]))[None, None], [2, 4]),
    "cumsum": (lambda h, p: jnp.cumsum(h, -1), []),
    "fft of units": (lambda h, p: jnp.fft.fft(h).real, []),
    "written at units": (lambda h, p: h.at[..., 1:3].set(0.0), []),
    "cond, one flips": (lambda h, p: lax.cond(h.sum() > 0, lambda y: y, lambda y: jnp.flip(y, -1), h), []),
    "loop that rolls": (lambda h, p: lax.fori_loop(0, 2, lambda i, y: jnp.roll(y, 1, -1), h), []),
    "triangle": (lambda h, p: h @ jnp.tril(jnp.ones((UNITS, UNITS))), []),
    "two argmaxes": (lambda h, p: (h.argmax(-1) + h.argmin(-1))[..., None] * h, []),
}  # fmt: skip


def parameters():
    draws = np.random.default_rng(0)
    shapes = {"w": (3, UNITS), "u": (UNITS, UNITS), "u2": (UNITS, UNITS), "t": (1, 1, UNITS), "b": (UNITS,), "q": (3, UNITS),
              "q8": (8, UNITS), "v": (UNITS, 2)}  # fmt: skip
    return {
        name: {leaf: draws.normal(size=shape).astype(np.float32) for leaf, shape in shapes.items()} for name in CASES
    }


def network(params, x):
    def part(name):
        h = CASES[name][0](x @ params[name]["w"], params[name])
        return jnp.tanh(h) @ params[name]["v"]

    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        return {name: part(name) for name in CASES}


X = np.random.default_rng(1).normal(size=(BATCH, LENGTH, 3)).astype(np.float32)


@functools.cache
def traced():
    params = parameters()
    return permutation_spec(network, params, X), params


def groups(spec, name):
    """The sizes of the groups of the units of one part, and of what they meet."""
    found = {
        n
        for path, leaf in spec.params.items()
        if path[0] == name
        for axis in leaf
        for n in permutations.axes.names(axis)
    }
    return sorted(spec.groups[n] for n in found)


@pytest.mark.parametrize("name", CASES)
def test_an_operation_leaves_the_groups_that_it_should(name):
    spec, _ = traced()
    assert groups(spec, name) == sorted(CASES[name][1]), spec.describe()


def test_all_of_them_keep_their_function_and_a_forgotten_axis_is_caught():
    spec, params = traced()
    assert not spec.unknown
    closed = jax.make_jaxpr(network)(params, X)
    assert {"scan", "while", "cond", "gather", "scatter", "dynamic_update_slice", "sort", "top_k", "fft"} <= set(
        _names(closed.jaxpr)
    )
    assert all(known.law and known.family for known in OPERATIONS.values())

    def gaps(one, other):
        outputs = (numpy_programs.run(closed, *jax.tree.leaves(values), X) for values in (one, other))
        pairs = zip(sorted(CASES), *outputs, strict=True)
        return {name: np.abs(new - old).max() / np.abs(old).max() for name, old, new in pairs}

    moved = apply_permutation(spec, permutations.random_permutation(spec, KEY), params)
    assert not {name: gap for name, gap in gaps(params, moved).items() if not gap < 1e-4}
    broken = {name: {**moved[name], "v": params[name]["v"]} for name in CASES}
    there = [name for name in CASES if UNITS in CASES[name][1] and name != "sorted units"]
    assert {name: gap for name, gap in gaps(params, broken).items() if name in there and not gap > 1e-2} == {}


def _names(jaxpr):
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            if hasattr(inner, "eqns"):
                yield from _names(getattr(inner, "jaxpr", inner))


OUTPUTS = {
    "a dict": lambda h: {"a": h, "b": h.sum(-1)},
    "a tuple and nothing": lambda h: (h, None),
    "complex": lambda h: h * (1 + 1j),
    "classes": lambda h: (h, h.argmax(-1)),
    "truth": lambda h: h > 0,
    "infinite": lambda h: jnp.where(h > 0, h, -jnp.inf),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_any_outputs_and_inputs_and_what_is_another_function_is_named(name):
    def small(params, x):
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            return OUTPUTS[name](jnp.tanh(x["a"] @ params["w"] + x["more"][0]) @ params["v"])

    draws = np.random.default_rng(0)
    params = {"w": draws.normal(size=(5, 7)).astype(np.float32), "v": draws.normal(size=(7, 3)).astype(np.float32)}
    spec = permutation_spec(small, params, {"a": jax.ShapeDtypeStruct((8, 5), np.float32), "more": (np.float32(1),)})
    assert spec.groups == {"w": 7}
    assert all(type(size) is int for size in spec.groups.values())
    permutations.check_function(spec, params, apply_permutation(spec, {"w": np.arange(7)[::-1]}, params))
    wrong = {**params, "v": params["v"][::-1]}
    with pytest.raises(ValueError, match="another function" + (r".*a: .*b: " if name == "a dict" else "")):
        permutations.check_function(spec, params, wrong)
    permutations.check_function(spec, params, wrong, tolerance=np.inf)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4), ("float16", 2e-2), ("bfloat16", 6e-2)]
)
def test_the_tolerance_is_that_of_the_narrowest_float_of_the_program(dtype, tolerance):
    def half(params, x):
        return jax.jit(lambda x: x.astype(dtype) @ params.astype(dtype))(x).astype(params.dtype)

    with jax.enable_x64(True):
        wide = jax.ShapeDtypeStruct((4, 4), np.float64)
        assert permutation_spec(half, wide, wide).tolerance == tolerance
