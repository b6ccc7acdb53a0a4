"""Anchoring as an optax transformation: frameworks, dtypes, changing masks, non-finite gradients, errors."""

import functools

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from tests.parameters import slow
from tests.xla_flags import NO_FLOAT16
from tna_jax import anchored, checks, masks, tna_mask
from tna_jax.transform import apply_updates

MASK = {"w": jnp.array([True, False, True, False])}
PARAMS = {"w": jnp.array([1.0, -0.0, 3.0, 4.0])}


@pytest.fixture(autouse=True)
def optax_mixes_dtypes_itself():
    with jax.numpy_dtype_promotion("standard"):
        yield


def bits(tree) -> bytes:
    return b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))


def frozen(tree, mask) -> bytes:
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(mask), strict=True)
    return b"".join(np.asarray(leaf)[~np.asarray(m)].tobytes() for leaf, m in pairs)


def test_updates_by_hand():
    gradients = {"w": jnp.array([1.0, 2.0, jnp.nan, jnp.inf])}
    tx = tna_mask(MASK)
    updates, _ = tx.update(gradients, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates["w"], [1.0, 0.0, np.nan, 0.0])
    soft = tna_mask({"w": jnp.array([1.0, 0.5, 0.25, 0.0])})
    updates, _ = soft.update({"w": jnp.array([8.0, 8.0, 8.0, jnp.nan])}, soft.init(PARAMS))
    assert updates["w"].tolist() == [8.0, 4.0, 2.0, 0.0]
    whole = tna_mask({"w": False})
    assert whole.update(gradients, whole.init(PARAMS))[0]["w"].tolist() == [0.0] * 4


@pytest.mark.parametrize(
    "dtype", [jnp.float32, *slow(jnp.bfloat16), pytest.param(jnp.float16, marks=[pytest.mark.slow, NO_FLOAT16])]
)
def test_non_finite_gradients_and_decay_do_not_reach_an_anchor(dtype):
    params = {"w": PARAMS["w"].astype(dtype)}
    gradients = {"w": jnp.array([1.0, jnp.nan, 1.0, -jnp.inf]).astype(dtype)}
    for optimizer in (optax.sgd(0.1, momentum=0.9), optax.adamw(0.1, weight_decay=0.1)):
        tx = anchored(optimizer, MASK)
        now, state = params, tx.init(params)
        for _ in range(5):
            with jax.numpy_dtype_promotion("standard"):
                updates, state = tx.update(gradients, state, now)
            assert updates["w"].dtype == dtype
            now = optax.apply_updates(now, updates)
        assert frozen(now, MASK) == frozen(params, MASK)
        assert bool(jnp.all(jnp.isfinite(now["w"]))) and bool(jnp.all(now["w"][::2] != params["w"][::2]))
    naive = jax.tree.map(
        lambda g, m: g * m.astype(g.dtype), gradients, MASK
    )  # the control: multiplying lets nan through
    assert bool(jnp.isnan(naive["w"][1]))


def test_the_mask_only_first_does_not_stop_decay():
    tx = optax.chain(tna_mask(MASK), optax.adamw(0.1, weight_decay=0.1))
    updates, _ = tx.update({"w": jnp.ones(4)}, tx.init(PARAMS), PARAMS)
    assert frozen(optax.apply_updates(PARAMS, updates), MASK) != frozen(PARAMS, MASK)


def test_a_mask_that_changes_while_momentum_is_alive():
    def run(tx):
        params, state = PARAMS, tx.init(PARAMS)
        for i in range(6):
            mask = MASK if i < 3 else masks.complement(MASK)
            if i == 3:
                switched = params
            updates, state = tx.update({"w": jnp.ones(4)}, state, params, mask=mask)
            params = optax.apply_updates(params, updates)
        return frozen(switched, masks.complement(MASK)) == frozen(params, masks.complement(MASK))

    assert run(anchored(optax.sgd(0.1, momentum=0.9)))
    assert run(anchored(optax.adam(0.1)))
    assert not run(optax.chain(tna_mask(), optax.sgd(0.1, momentum=0.9)))  # the control


def test_a_mask_at_update_neither_retraces_nor_enters_the_program():
    tx, traces = anchored(optax.sgd(0.1)), []

    @jax.jit
    def step(params, state, mask):
        traces.append(1)
        updates, state = tx.update(params, state, params, mask=mask)
        return optax.apply_updates(params, updates), state

    state = tx.init(PARAMS)
    for mask in (MASK, masks.complement(MASK)):
        step(PARAMS, state, mask)
    assert len(traces) == 1
    stacked = jax.tree.map(lambda m: jnp.stack([m, ~m]), MASK)
    both = jax.vmap(lambda m: tx.update(PARAMS, state, PARAMS, mask=m)[0])(stacked)
    assert both["w"].shape == (2, 4) and both["w"][0, 1] == 0 and both["w"][1, 0] == 0


def test_the_program_does_not_grow_with_the_mask_and_donation_leaves_the_callers_mask_alone():
    sizes = []
    for n in (10, 100_000):
        params, mask = {"w": jnp.ones(n)}, {"w": jnp.arange(n) % 2 == 0}
        tx = optax.chain(tna_mask(mask), optax.sgd(0.1))

        def step(params, state, tx=tx):
            updates, state = tx.update(params, state, params)
            return optax.apply_updates(params, updates), state

        program = jax.jit(step, donate_argnums=(0, 1))
        state = tx.init(params)
        sizes.append(len(program.lower(params, state).as_text()))
        program(params, state)
        assert int(mask["w"].sum()) == n // 2
    assert sizes[1] < sizes[0] + 500
    closed = jax.jit(lambda p: jnp.where(mask["w"], p, np.float32(0))).lower(jnp.ones(n)).as_text()
    assert len(closed) > 100_000  # the control: a closed-over mask is written into the program


def test_subnormal_anchors_survive_apply_updates():
    params, mask = {"w": jnp.array([1.0, 1e-40])}, {"w": jnp.array([True, False])}
    updates = {"w": jnp.array([1.0, -0.0])}
    kept = jax.jit(lambda p, u: apply_updates(p, u, mask))(params, updates)
    assert np.asarray(kept["w"])[1].tobytes() == np.float32(1e-40).tobytes()
    assert kept["w"][0] == 2


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.first, self.second = nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.second(nnx.relu(self.first(x)))


@pytest.mark.parametrize("form", [*slow("boxed", "pure"), "dict"])
@pytest.mark.slow
def test_nnx_optimizer_takes_any_form_of_mask(form):
    model = NnxNet(nnx.Rngs(0))
    state = nnx.state(model, nnx.Param)
    tree = {"boxed": state, "pure": nnx.as_pure(state), "dict": nnx.to_pure_dict(state)}[form]
    mask = masks.bernoulli(jax.random.key(0), tree, 0.5)
    before = jax.tree.map(np.array, nnx.to_pure_dict(state))
    optimizer = nnx.Optimizer(model, anchored(optax.adamw(0.1, weight_decay=0.1), mask), wrt=nnx.Param)
    for _ in range(3):
        gradients = nnx.grad(lambda m: jnp.sum(m(jnp.ones((5, 3))) ** 2) + jnp.sum(m.first.bias[...]))(model)
        with jax.numpy_dtype_promotion("standard"):
            optimizer.update(model, gradients)
    after = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    assert frozen(after, mask) == frozen(before, mask)
    assert bits(after) != bits(before)


def test_linen_and_equinox():
    linen = nn.Dense(4)
    net = eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))
    trees = [jax.jit(linen.init)(jax.random.key(0), jnp.ones((1, 3)))["params"], eqx.filter(net, eqx.is_inexact_array)]
    for params in trees:
        mask = masks.bernoulli(jax.random.key(1), params, 0.5)
        tx = optax.chain(tna_mask(mask), optax.adam(0.1))
        updates, _ = jax.jit(lambda p, tx=tx: tx.update(jax.tree.map(jnp.ones_like, p), tx.init(p), p))(params)
        after = jax.jit(eqx.apply_updates)(params, updates)
        assert frozen(after, mask) == frozen(params, mask)
        assert bits(after) != bits(params)
    with pytest.raises(TypeError, match="floating-point arrays only"):
        masks.bernoulli(jax.random.key(1), net, 0.5)


def test_wrappers_of_optax():
    params = {"a": jnp.ones(4), "b": jnp.ones(4)}
    mask = {"a": MASK["w"], "b": jnp.zeros(4, bool)}
    gradients = jax.tree.map(jnp.ones_like, params)
    wrapped = {
        "masked": optax.masked(tna_mask(mask), {"a": True, "b": False}),
        "multi": optax.multi_transform(
            {"x": anchored(optax.sgd(0.1), mask), "y": optax.sgd(0.1)}, {"a": "x", "b": "y"}
        ),
        "steps": optax.MultiSteps(anchored(optax.sgd(0.1), mask), 1),
        "finite": optax.apply_if_finite(anchored(optax.sgd(0.1), mask), 3),
    }
    for name, tx in wrapped.items():
        updates, _ = tx.update(gradients, tx.init(params), params)
        assert updates["a"].tolist()[1::2] == [0, 0], name
        assert updates["a"][0] != 0, name
        assert (updates["b"][0] == 0) == (name in ("steps", "finite")), name
    state = wrapped["finite"].init(params)
    assert optax.tree_utils.tree_map_params(
        anchored(optax.adam(0.1), mask), lambda x: x, anchored(optax.adam(0.1), mask).init(params)
    )
    assert state is not None


def test_errors_come_at_init_and_list_every_path():
    with pytest.raises(ValueError, match=r"in the params but not in the mask: v; .*not in the params: w"):
        tna_mask({"u": jnp.ones(2, bool), "w": jnp.ones(2, bool)}).init({"u": jnp.ones(2), "v": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"of another shape: w \(mask \(3,\), params \(4,\)\)"):
        anchored(optax.sgd(0.1), {"w": jnp.ones(3, bool)}).init(PARAMS)
    with pytest.raises(ValueError, match="no mask"):
        tna_mask().update(PARAMS, tna_mask().init(PARAMS), PARAMS)
    with pytest.raises(TypeError, match=r"w \(int32\)"):
        tna_mask({"w": jnp.ones(4, jnp.int32)})
    with pytest.raises(TypeError, match=r"w \(values outside \[0, 1\]\)"):
        anchored(optax.sgd(0.1), {"w": jnp.array([0.5, 1.5])})


BRANCHES = {"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "out": {"kernel": jnp.ones((2, 2))}}


def of_dense(params):
    return jax.tree_util.tree_map_with_path(lambda path, leaf: path[0].key != "dense", params)


PREFIXES = {
    "branches": ({"dense": False, "out": True}, [False, False, True]),
    "a branch and a leaf": ({"dense": {"kernel": True, "bias": False}, "out": True}, [False, True, True]),
    "a branch and an array": ({"dense": False, "out": {"kernel": jnp.ones((2, 2), bool)}}, [False, False, True]),
    "soft": ({"dense": 0.5, "out": 1.0}, [0.5, 0.5, 1.0]),
    "all": (False, [False] * 3),
    "none": (np.True_, [True] * 3),
    "a function": (of_dense, [False, False, True]),
    "a function that returns a prefix": (lambda params: {"dense": False, "out": True}, [False, False, True]),
}


@pytest.mark.parametrize("name", PREFIXES)
@pytest.mark.parametrize("at_update", [False, True])
def test_prefixes_scalars_and_functions(name, at_update):
    mask, expected = PREFIXES[name]
    tx = tna_mask(None if at_update else mask)
    updates, _ = tx.update(BRANCHES, tx.init(BRANCHES), BRANCHES, **({"mask": mask} if at_update else {}))
    assert [float(leaf.ravel()[0]) for leaf in jax.tree.leaves(updates)] == [float(m) for m in expected]


def test_prefixes_that_do_not_fit_are_named():
    for mask, message in (
        ({"dense": False}, "in the params but not in the mask: out/kernel"),
        ({"dense": False, "out": True, "more": True}, "in the mask but not in the params: more"),
        ({"dense": jnp.ones(2, bool), "out": True}, "in the mask but not in the params: dense"),
        ({"dense": {"kernel": {"deeper": True}, "bias": True}, "out": True}, "dense/kernel"),
    ):
        with pytest.raises(ValueError, match=message):
            tna_mask(mask).init(BRANCHES)


@pytest.mark.parametrize("make", [tna_mask, lambda mask: anchored(optax.sgd(0.1), mask)])
def test_the_state_of_another_mask_is_noticed(make):
    state, other = make(MASK).init(PARAMS), make(masks.complement(MASK))
    with pytest.raises(ValueError, match=r"this state holds another mask than .* was given: w \(4 of 4\)"):
        other.update(PARAMS, state, PARAMS)
    one_off = make({"w": MASK["w"].at[0].set(False)})
    with pytest.raises(ValueError, match=r"w \(1 of 4\)"):
        optax.chain(one_off, optax.identity()).update(PARAMS, (state, optax.EmptyState()), PARAMS)
    with pytest.raises(ValueError, match="another mask"):
        make(lambda params: masks.complement(MASK)).update(PARAMS, state, PARAMS)
    again = make(jax.tree.map(np.asarray, MASK))  # a resumed run: the same mask, other objects
    updates, kept = again.update(PARAMS, jax.tree.map(jnp.array, state), PARAMS)
    again.update(PARAMS, kept, PARAMS)
    assert ((updates["w"] != 0) == MASK["w"]).all()
    other.update(PARAMS, state, PARAMS, mask=MASK)  # passed at update: the state's is not read
    jax.jit(other.update)(PARAMS, state, PARAMS)  # values are not at hand
    with pytest.raises(ValueError, match="another mask: w"):
        checks.state_mask((optax.EmptyState(), {"inner": state}), masks.complement(MASK))
    checks.state_mask((optax.EmptyState(), {"inner": state}), MASK)
    with pytest.raises(ValueError, match="holds no mask"):
        checks.state_mask(optax.adam(0.1).init(PARAMS), MASK)


def test_a_soft_mask_in_double_precision_is_the_states():
    mask = {"w": np.array([0.1, 0.2, 0.3, 1.0])}
    state = tna_mask(mask).init(PARAMS)
    tna_mask(mask).update(PARAMS, jax.tree.map(jnp.array, state), PARAMS)


def test_last_in_a_chain_negative_zeros_keep_their_sign():
    """In both places; and without `last=True` behind an optimizer an anchor of -0.0 would lose it."""
    gradients = {"w": jnp.array([1.0, -2.0, 3.0, 4.0])}

    def after(tx):
        updates, _ = tx.update(gradients, tx.init(PARAMS), PARAMS)
        return frozen(optax.apply_updates(PARAMS, updates), MASK)

    assert after(optax.chain(optax.sgd(0.1), tna_mask(MASK, last=True))) == frozen(PARAMS, MASK)
    assert after(optax.chain(tna_mask(MASK), optax.sgd(0.1))) == frozen(PARAMS, MASK)
    assert after(optax.chain(optax.sgd(0.1), tna_mask(MASK))) != frozen(PARAMS, MASK)  # the control


@pytest.mark.slow
def test_partition_under_an_nnx_optimizer():
    model = NnxNet(nnx.Rngs(0))
    state = nnx.state(model, nnx.Param)
    mask = masks.bernoulli(jax.random.key(0), state, 0.5)

    def labels(tree):
        return jax.tree_util.tree_map_with_path(lambda path, _: "x" if "kernel" in str(path) else "y", tree)

    tx = optax.partition({"x": anchored(optax.sgd(0.1), mask), "y": last_of(mask)}, labels)
    before = jax.tree.map(np.array, nnx.to_pure_dict(state))
    nnx.Optimizer(model, tx, wrt=nnx.Param).update(model, jax.tree.map(jnp.ones_like, state))
    after = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    assert frozen(after, mask) == frozen(before, mask) and bits(after) != bits(before)


def test_partition_leaves_boxes_around_what_it_takes_out():
    kernel = nn.Partitioned(jnp.ones((3, 2)), names=(None, "model"))
    boxed = {"a": kernel, "b": {"kernel": kernel, "bias": jnp.ones(2)}}
    mask = masks.bernoulli(jax.random.key(0), boxed, 0.5)
    tx = optax.partition({"x": anchored(optax.sgd(0.1), mask), "y": last_of(mask)}, {"a": "x", "b": "y"})
    updates, _ = tx.update(boxed, tx.init(boxed), boxed)
    assert frozen(optax.apply_updates(boxed, updates), mask) == frozen(boxed, mask)


def last_of(mask):
    return optax.chain(optax.sgd(0.1), tna_mask(mask, last=True))


def test_a_state_that_holds_the_parameters_may_be_donated_beside_them():
    """Prodigy keeps the initial parameters: one buffer twice in a program that donates both is an error of JAX."""
    params = {"w": jnp.arange(4.0), "b": jnp.ones(2)}
    optimizer = anchored(optax.contrib.prodigy(0.1), {"w": np.array([True, False] * 2), "b": np.array([True, True])})
    state = optimizer.init(params)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state):
        updates, state = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
        return optax.apply_updates(params, updates), state

    moved, _ = step(params, state)
    assert moved["w"][1::2].tolist() == [1.0, 3.0] and moved["w"][0] != 0


def test_gradients_of_some_parameters_alone_are_refused():
    params = {"w": jnp.ones(2), "v": jnp.ones(2)}
    optimizer = anchored(optax.sgd(1.0), {"w": True, "v": False})
    with pytest.raises(ValueError, match="a mask of 2 leaves, and there are 1 updates"):
        optimizer.update({"w": None, "v": jnp.ones(2)}, optimizer.init(params), params)


@NO_FLOAT16
@NO_FLOAT16
def test_in_float16_zero_gradients_under_anchors_make_nothing_nan():
    params, mask = {"w": jnp.ones(4, jnp.float16)}, {"w": np.array([True, False, True, True])}
    gradients = {"w": jnp.array([1, jnp.nan, 1, 0], jnp.float16)}
    optimizer = anchored(optax.chain(optax.adam(0.125), optax.clip_by_global_norm(1.0)), mask)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    assert updates["w"].dtype == jnp.float16
    np.testing.assert_allclose(updates["w"], [-0.125, 0, -0.125, 0], rtol=1e-3)
    with pytest.warns(UserWarning, match="float16 parameters: Adam and its kin divide 0 by 0"):
        tna_mask(mask).init(params)
