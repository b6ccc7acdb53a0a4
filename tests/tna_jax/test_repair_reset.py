"""Statistics of BatchNorm that are reset are those of the batches, whatever they were before."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import slow_but
from tests.tna_jax.normed_networks import Normed, close, normed, perturbed, quick_jit, some_inputs
from tests.xla_flags import NO_FLOAT16
from tna_jax import interpolation, networks, repair


def moments(params, inputs):
    """NumPy reference: mean and variance, in float64, of what enters the first norm."""
    dense = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["dense0"])
    hidden = inputs @ dense["kernel"] + dense["bias"]
    return {"norm0": {"mean": hidden.mean(0), "var": hidden.var(0)}}


BATCHES = {  # inputs, batch size: the batches' sizes
    "one batch": (10, 10, [10]),
    "a batch size above the number of inputs": (10, 500, [10]),
    "two batches": (10, 5, [5, 5]),
    "a smaller last batch": (10, 4, [4, 4, 2]),
    "one whole batch and a rest": (10, 6, [6, 4]),
    "single inputs": (3, 1, [1, 1, 1]),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "size", "parts"),
    slow_but([BATCHES["a smaller last batch"], BATCHES["single inputs"]], BATCHES.values()),
    ids=BATCHES,
)
def test_reset_is_the_mean_over_batches_weighted_by_examples(count, size, parts):
    net, params, state = normed()
    inputs = some_inputs(count)
    found = repair.reset_batch_stats(net, params, state, jnp.asarray(inputs), batch_size=size)
    each = [moments(params, part) for part in np.split(inputs, np.cumsum(parts)[:-1])]
    close(found, jax.tree.map(lambda *m: sum(n / count * v for n, v in zip(parts, m, strict=True)), *each))
    if len(set(parts)) > 1:  # the control: batches counted alike are another number
        plain = jax.tree.map(lambda *m: sum(m) / len(m), *each)
        assert np.abs(found["norm0"]["var"] - plain["norm0"]["var"]).max() > 1e-3


@pytest.mark.parametrize(
    ("scale", "momentum"),
    slow_but([(1e-3, 0.0), (1e3, 0.9)], itertools.product([1e-3, 1.0, 1e3], [0.0, 0.5, 0.9, 0.99])),
)
def test_reset_depends_neither_on_the_momentum_nor_on_the_old_state(momentum, scale):
    net, params, state = normed(momentum)
    inputs = some_inputs(scale=scale)
    expected = moments(params, inputs)
    for old in (state, jax.tree.map(lambda s: s * 7 + 1e4, state), jax.tree.map(lambda s: s * np.nan, state)):
        close(repair.reset_batch_stats(net, params, old, jnp.asarray(inputs)), expected)
    after = jax.jit(net.train)(params, state, inputs, None)[1]  # the control: one step of training does
    reached = np.allclose(after["norm0"]["mean"], expected["norm0"]["mean"], rtol=1e-3, atol=0)
    assert reached == (momentum == 0)


def test_evaluation_after_reset_is_training_mode_on_that_batch():
    net, params, state = normed(layers=2)
    inputs = jnp.asarray(some_inputs())
    fresh = repair.reset_batch_stats(net, params, state, inputs)
    trained = jax.jit(net.train)(params, state, inputs, None)[0]
    close(jax.jit(net.evaluate)(params, fresh, inputs), trained, 1e-4, 1e-5)
    assert np.abs(net.evaluate(params, state, inputs) - trained).max() > 0.1


def counting(momentum=0.75):
    """A network of another framework: the mean input, a count of batches, a table of integers and a flag."""

    def train(params, state, inputs, weight):
        mean = inputs.mean(0) if weight is None else (inputs * weight[:, None]).sum(0) / weight.sum()
        kept = np.float32(momentum)
        average = kept * state["mean"] + (1 - kept) * mean * params
        return inputs, {**state, "mean": average, "batches": state["batches"] + 1, "seen": ~state["seen"]}

    state = {
        "mean": np.float32([9, 9]),
        "batches": np.int32(41),
        "table": np.int32([[1, 2]]),
        "seen": np.bool_(False),
    }
    return networks.Stateful(train, lambda p, s, x: x - s["mean"]), np.float32(2), state


@pytest.mark.slow
def test_leaves_that_are_not_floating_point_are_kept():
    net, params, state = counting()
    inputs = jnp.float32([[1, 10], [2, 20], [6, 60]])
    for size in (3, 2, 1):
        found = repair.reset_batch_stats(net, params, state, inputs, batch_size=size)
        close(found["mean"], np.float32([6, 60]))
        for name in ("batches", "table", "seen"):
            assert found[name].dtype == state[name].dtype
            np.testing.assert_array_equal(found[name], state[name])
    changed = net.train(params, state, inputs, None)[1]
    assert changed["batches"] == 42 and changed["seen"]  # the control


@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=[pytest.mark.slow, NO_FLOAT16])])
def test_half_precision_statistics(dtype):
    def train(params, state, inputs, weight):
        return inputs, jax.tree.map(lambda s: (s * 0.75 + inputs.mean(0) * 0.25).astype(dtype), state)

    net, state = networks.Stateful(train, lambda p, s, x: x), [jnp.zeros(2, dtype)]
    found = repair.reset_batch_stats(net, (), state, jnp.asarray([[1, 2], [3, 6]], dtype))
    assert found[0].dtype == dtype
    close(found[0].astype(jnp.float32), np.float32([2, 4]), rtol=0.02)


def rounding(params, inputs, batch_size):
    """How far apart, to first order, the statistics of two layers may come out where float32 sums are taken in another order.

    A hidden value h is a sum of 5 terms, a mean one of a batch. The first norm divides by a standard deviation s whose square is a
    difference of means of squares, so that its outputs are off by (h / s)^2 roundings; the kernel of the second layer adds these up;
    squaring, for its variance, multiplies by 2 h.
    """
    layers = [{name: np.asarray(leaf, np.float64) for name, leaf in params[f"dense{i}"].items()} for i in range(2)]
    step = (5 + batch_size) * np.finfo(np.float32).eps
    apart = 0.0
    for batch in np.split(np.asarray(inputs, np.float64), range(batch_size, len(inputs), batch_size)):
        first = batch @ layers[0]["kernel"] + layers[0]["bias"]
        normal = np.maximum((first - first.mean(0)) / first.std(0), 0)
        second = normal @ layers[1]["kernel"] + layers[1]["bias"]
        off = step * (np.abs(first).max(0) / first.std(0)) ** 2 @ np.abs(layers[1]["kernel"])
        apart = max(apart, (off * np.maximum(2 * np.abs(second).max(0), 1)).max())
    return apart


@pytest.mark.slow
def test_reset_under_jit_vmap_and_map():
    net, params, state = normed(layers=2)
    inputs = jnp.asarray(some_inputs(40))
    several = [perturbed(params, seed) for seed in range(3)]

    def reset(p):
        return repair.reset_batch_stats(net, p, state, inputs, batch_size=16)

    one_by_one = [reset(p) for p in several]
    apart = max(rounding(p, inputs, 16) for p in (params, *several))
    assert apart < 1e-3
    for layer in ("norm0", "norm1"):  # the control: other parameters are farther apart than that
        assert np.abs(one_by_one[0][layer]["mean"] - one_by_one[1][layer]["mean"]).max() > 10 * apart
    expected = jax.tree.map(lambda *leaves: np.stack(leaves), *one_by_one)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)  # (M, ...)
    close(quick_jit(reset)(params), reset(params), 0, apart)
    close(jax.vmap(reset)(stacked), expected, 0, apart)
    close(jax.lax.map(reset, stacked), expected, 0, apart)


@pytest.mark.slow
def test_batches_added_in_python_are_the_reset():
    net, params, state = normed(layers=2)
    inputs = jnp.asarray(some_inputs())
    total = repair.no_statistics(state)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(total))
    for start, stop in ((0, 4), (4, 8), (8, 10)):
        total = repair.add_statistics(net, total, params, state, inputs[start:stop], (stop - start) / 10)
    close(total, repair.reset_batch_stats(net, params, state, inputs, batch_size=4))


def test_padding_does_not_enter_the_statistics():
    net, params, state = normed(layers=2)
    inputs = jnp.asarray(some_inputs())
    padded = jnp.concatenate([inputs, 100 + inputs[:6]])
    weight = jnp.asarray([1.0] * 10 + [0.0] * 6)
    expected = repair.batch_statistics(net, params, state, inputs)
    close(repair.batch_statistics(net, params, state, padded, weight), expected)
    counted = repair.batch_statistics(net, params, state, padded)
    assert np.abs(counted["norm0"]["mean"] - expected["norm0"]["mean"]).max() > 1


@pytest.mark.parametrize(("count", "size", "words"), [(0, 4, "at least one input"), (3, 0, "at least 1, got 0")])
def test_reset_refuses(count, size, words):
    net, params, state = normed()
    with pytest.raises(ValueError, match=words):
        repair.reset_batch_stats(net, params, state, jnp.asarray(some_inputs(count)), batch_size=size)


def test_a_fused_network_is_normalised_only_after_reset():
    module = Normed(layers=2)
    net, params, state = normed(layers=2)
    inputs = jnp.asarray(some_inputs(64))
    a, b = perturbed(params, 1), perturbed(jax.jit(networks.linen(module, (4,))[1])(jax.random.key(9))[0], 2)
    stale = [repair.reset_batch_stats(net, end, state, inputs) for end in (a, b)]
    fused = interpolation.line(a, b, 0.5)

    @jax.jit
    def outputs_of_norms(state):
        seen = []

        def look(call, arguments, options, context):
            output = call(*arguments, **options)
            if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
                seen.append(output)
            return output

        with nn.intercept_methods(look):
            module.apply({"params": fused, "batch_stats": state}, inputs)
        assert len(seen) == 2
        return seen

    def after_norms(state):
        seen = jax.device_get(outputs_of_norms(state))
        return np.stack([s.mean(0) for s in seen]), np.stack([s.var(0) for s in seen])

    mean, variance = after_norms(repair.reset_batch_stats(net, fused, state, inputs))
    np.testing.assert_allclose(mean, 0, atol=1e-4)
    np.testing.assert_allclose(variance, 1, atol=2e-3)  # epsilon is 1e-5
    for old in (*stale, interpolation.line(*stale, 0.5)):
        _, variance = after_norms(old)
        assert np.abs(variance - 1).max() > 0.3
