"""`compact` updates as `anchored` does and keeps less: every optimizer of optax is equal or refused, frameworks, errors."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.parameters import slow_but
from tests.tna_jax.test_transform_optimizers import (
    GROWING,
    OPTIMIZERS,
    PER_EXAMPLE,
    PIECES,
    WRAPPERS,
    build,
    extras,
)
from tests.xla_flags import NO_FLOAT16
from tna_jax import anchored, checks, compact, masks, tna_mask

RANDOM = np.random.default_rng(0)
PARAMS = {
    "dense": {"kernel": RANDOM.standard_normal((24, 16)).astype(np.float32), "bias": np.float32([-0.0, 0.5, -1e4, *13 * [0.1]])},
    "gain": np.float32([-3.5]),
}  # fmt: skip
MASK = {"dense": {"kernel": RANDOM.random((24, 16)) > 0.4, "bias": np.arange(16) % 2 == 1}, "gain": np.array([False])}
STEPS = 5

REFUSED = {
    "adafactor", "adaptive_grad_clip", "apply_if_finite", "centralize", "chain", "clip_by_block_rms", "clip_by_global_norm", "dadapt_adamw", "dog", "dowg",
    "flatten", "fromage", "galore", "lamb", "lars", "mechanize", "momo", "momo_adam", "muon", "noisy_sgd", "normalize", "normalize_by_update_norm", "novograd",
    "polyak_sgd", "prodigy", "sam", "scale_by_backtracking_linesearch", "scale_by_distance_over_gradients", "scale_by_factored_rms", "scale_by_galore",
    "scale_by_lbfgs", "lbfgs", "scale_by_muon", "scale_by_novograd", "scale_by_param_block_norm", "scale_by_param_block_rms", "scale_by_polyak",
    "scale_by_sm3", "zero_nans", "scale_by_trust_ratio", "scale_by_zoom_linesearch", "sm3", "sophia", "hutchinson_estimator_diag_hessian", "add_noise",
    "snapshot", "monitor", "measure_with_ema",
}  # fmt: skip
"""They mix entries: norms, factors, matrices, line searches, noise."""


@pytest.fixture(autouse=True)
def optax_mixes_dtypes_itself():
    with jax.numpy_dtype_promotion("standard"):
        yield


def run(name, transformation):
    def step(carry, i):
        params, state = carry
        gradients = jax.tree.map(
            lambda p, m: jnp.where(m, jnp.clip(p, -9.0, 9.0) * jnp.cos(i + p), jnp.nan), params, MASK
        )
        updates, state = transformation.update(gradients, state, params, **extras(name, params))
        return (optax.apply_updates(params, updates), state), updates

    state, updates = transformation.init(PARAMS), []
    params = jax.tree.map(jnp.asarray, PARAMS)
    with jax.disable_jit():
        for i in range(STEPS):
            (params, state), update = step((params, state), float(i))
            updates.append(update)
    return (params, state), updates


def same_bits(a, b) -> bool:
    return all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.mark.parametrize(
    "name",
    slow_but(["sgd", "lamb", "muon"], sorted({*OPTIMIZERS, *PIECES, *WRAPPERS} - PER_EXAMPLE - GROWING)),
)
@pytest.mark.filterwarnings("ignore:Specifying a key", "ignore::DeprecationWarning")
def test_every_optimizer_of_optax_is_equal_or_refused(name):
    optimizer = build(name)
    if name in REFUSED:
        tx = compact(optimizer, MASK)
        with pytest.raises(ValueError, match=r"Use anchored\(optimizer, mask\)"):
            tx.update(PARAMS, tx.init(PARAMS), PARAMS, **extras(name, PARAMS))
        return
    (params, _), updates = run(name, compact(optimizer, MASK))
    (expected, _), steps = run(name, anchored(optimizer, MASK))
    assert same_bits((params, updates), (expected, steps))
    assert same_bits(np.asarray(params["dense"]["bias"])[::2], PARAMS["dense"]["bias"][::2])


def bytes_of(tree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def test_adam_keeps_the_moments_of_trainable_entries():
    params = {"w": np.zeros((400, 500), np.float32), "b": np.zeros(500, np.float32)}
    mask = masks.bernoulli(jax.random.key(0), params, 0.4)
    state, plain = compact(optax.adam(1e-3), mask).init(params), anchored(optax.adam(1e-3), mask).init(params)
    assert bytes_of(state.inner) == pytest.approx(0.6 * bytes_of(plain.inner), rel=0.01)
    assert bytes_of(state.leaves) < 0.95 * bytes_of(plain.mask)
    assert [leaf.shape[0] for leaf in jax.tree.leaves(state.inner[0].mu)] == [
        state.inner[0].mu["b"].size,
        1,
    ]  # the ranks stay


@pytest.mark.slow
def test_anchors_stay_in_a_training_step_that_donates():
    optimizer = compact(optax.adamw(0.1, weight_decay=0.1), MASK)
    checks.anchors_stay(optimizer, PARAMS, MASK)

    def step(params, state):
        gradients = jax.tree.map(lambda p, m: jnp.where(m, p, jnp.nan), params, MASK)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    params, state = jax.tree.map(jnp.array, PARAMS), optimizer.init(PARAMS)
    program = jax.jit(step, donate_argnums=(0, 1))
    for _ in range(3):
        params, state = program(params, state)
    for p, before, m in zip(*map(jax.tree.leaves, (params, PARAMS, MASK)), strict=True):
        p, before = np.asarray(p), np.asarray(before)
        assert p[~m].tobytes() == before[~m].tobytes() and np.all(p[m] != before[m]) and np.isfinite(p).all()


def test_norms_are_taken_outside():
    """`clip_by_global_norm` in front, with the anchored gradients zeroed before it, is what `anchored` around both gives."""
    clip = optax.clip_by_global_norm(0.1)
    ours = optax.chain(tna_mask(MASK), clip, compact(optax.sgd(0.1), MASK))
    whole = anchored(optax.chain(clip, optax.sgd(0.1)), MASK)
    gradients = jax.tree.map(np.ones_like, PARAMS)
    assert same_bits(
        ours.update(gradients, ours.init(PARAMS), PARAMS)[0], whole.update(gradients, whole.init(PARAMS), PARAMS)[0]
    )


def test_beside_parameters_that_another_optimizer_has():
    parts = {"dense": True, "gain": False}
    ours, whole = (optax.masked(make(optax.adam(0.1), MASK), parts) for make in (compact, anchored))
    gradients = jax.tree.map(np.ones_like, PARAMS)
    assert same_bits(
        ours.update(gradients, ours.init(PARAMS), PARAMS)[0], whole.update(gradients, whole.init(PARAMS), PARAMS)[0]
    )


TREES = {
    "nnx": lambda: nnx.state(nnx.Linear(24, 16, rngs=nnx.Rngs(0)), nnx.Param),
    "equinox": lambda: eqx.filter(eqx.nn.Linear(24, 16, key=jax.random.key(0)), eqx.is_inexact_array),
    "boxed": lambda: nn.Dense(16, kernel_init=nn.with_partitioning(nn.initializers.ones, ("x", None))).init(jax.random.key(0), jnp.ones((1, 24)))["params"],
    "stacked": lambda: {"w": jax.random.normal(jax.random.key(0), (3, 24, 16))},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", slow_but(["nnx"], TREES))
def test_trees_of_other_frameworks(kind):
    params = TREES[kind]()
    mask = masks.bernoulli(jax.random.key(1), params, 0.5)
    gradients = jax.tree.map(lambda p: jnp.cos(1.0 + p), params)
    results = []
    for make in (compact, anchored):
        transformation = make(optax.adam(0.1), mask)
        updates, _ = transformation.update(gradients, transformation.init(params), params)
        results.append(updates)
    assert jax.tree.structure(results[0]) == jax.tree.structure(params) and same_bits(*results)
    assert jax.tree.structure(compact(optax.adam(0.1), mask).init(params)[1][0].mu) == jax.tree.structure(params)


@pytest.mark.slow
@pytest.mark.parametrize("kind", slow_but([AxisType.Explicit], [AxisType.Auto, AxisType.Explicit]))
def test_over_a_mesh_the_state_is_laid_out_as_the_parameters(kind):
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind,) * 2)
    layout = NamedSharding(mesh, PartitionSpec("x", "y"))
    host = RANDOM.standard_normal((32, 48)).astype(np.float32)
    params = {"w": jax.device_put(host, layout)}
    mask = masks.bernoulli(jax.random.key(1), params, 0.5)
    optimizer = compact(optax.adam(0.1), mask)
    state = optimizer.init(params)
    assert state.inner[0].mu["w"].sharding.spec == layout.spec
    updates, _ = jax.jit(lambda g, s: optimizer.update(g, s))(params, state)
    here = anchored(optax.adam(0.1), {"w": np.asarray(mask["w"])})
    expected, _ = jax.jit(lambda g, s: here.update(g, s))({"w": host}, here.init({"w": host}))
    assert updates["w"].sharding.spec == layout.spec and same_bits(updates, expected)


def test_the_state_of_another_mask_is_noticed():
    adam = optax.adam(0.1)
    state, other = compact(adam, MASK).init(PARAMS), compact(adam, masks.complement(MASK))
    with pytest.raises(
        ValueError, match=r"holds another mask than compact.* dense/kernel \(384 of 384\), gain \(1 of 1\)"
    ):
        other.update(PARAMS, state, PARAMS)
    one_off = MASK | {"gain": np.array([True])}
    with pytest.raises(ValueError, match=r"given: gain \(1 of 1\)"):
        compact(adam, one_off).update(PARAMS, state, PARAMS)
    with pytest.raises(ValueError, match="another mask"):
        compact(adam, lambda params: one_off).update(PARAMS, state, PARAMS)
    with pytest.raises(ValueError, match="holds another mask: gain"):
        checks.state_mask(optax.chain(compact(adam, MASK)).init(PARAMS), one_off)
    checks.state_mask(state, MASK)
    again = compact(adam, jax.tree.map(jnp.asarray, MASK))  # a resumed run: the same mask, other objects
    again.update(PARAMS, jax.tree.map(jnp.array, state), PARAMS)
    jax.eval_shape(other.update, PARAMS, state, PARAMS)  # values are not at hand


def test_unfit_input_is_refused_by_name():
    soft = MASK | {"gain": np.float32([0.5])}
    with pytest.raises(TypeError, match="are not: gain"):
        compact(optax.sgd(0.1), soft).init(PARAMS)
    with pytest.raises(TypeError, match=r"traced here \(dense/bias"):
        jax.eval_shape(lambda m: compact(optax.sgd(0.1), m).init(PARAMS), MASK)
    with pytest.raises(ValueError, match="gain"):
        compact(optax.sgd(0.1), {"dense": MASK["dense"]}).init(PARAMS)
    with pytest.raises(TypeError, match="call it, optax.adam"):
        compact(optax.adam, MASK)
    with pytest.raises(TypeError, match=r"write compact\(optimizer, mask\)"):
        compact(MASK, optax.adam(0.1))
    optimizer = compact(optax.sgd(0.1), MASK)
    state = optimizer.init(PARAMS)
    with pytest.raises(TypeError, match="one that changes: anchored"):
        optimizer.update(PARAMS, state, PARAMS, mask=MASK)
    with pytest.raises(ValueError, match="made for 3 arrays"):
        optimizer.update(PARAMS["dense"], state, PARAMS["dense"])
    transposed = PARAMS | {"dense": PARAMS["dense"] | {"kernel": PARAMS["dense"]["kernel"].T}}
    with pytest.raises(ValueError, match=r"dense/kernel \(16, 24\), here \(24, 16\)"):
        optimizer.update(transposed, state, transposed)
    by_function = compact(optax.sgd(0.1), lambda params: jax.tree.map(lambda p: np.ones(np.shape(p), bool), params))
    assert not any(leaf.packs for leaf in by_function.init(PARAMS).leaves)


@NO_FLOAT16
def test_in_float16_a_zero_gradient_makes_no_nan():
    params, mask = {"w": jnp.ones(4, jnp.float16)}, {"w": np.array([True, False, True, True])}
    optimizer = compact(optax.adam(0.125), mask)
    updates, state = optimizer.update({"w": jnp.array([1, 1, 1, 0], jnp.float16)}, optimizer.init(params), params)
    assert updates["w"].dtype == jnp.float16 and state.inner[0].mu["w"].dtype == jnp.float32
    np.testing.assert_allclose(updates["w"], [-0.125, 0, -0.125, 0], rtol=1e-3)


def test_parameters_that_are_numbers_of_python():
    optimizer = compact(optax.sgd(0.5), {"a": False, "b": True})
    updates, _ = optimizer.update({"a": 1.0, "b": 1.0}, optimizer.init({"a": 1.0, "b": 2.0}), {"a": 1.0, "b": 2.0})
    assert (float(updates["a"]), float(updates["b"])) == (0.0, -0.5)
