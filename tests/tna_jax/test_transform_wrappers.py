"""Anchoring inside and around the wrappers of optax: what each composition keeps, and which one loses it (the control)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.parameters import slow
from tna_jax import anchored, masks, tna_mask
from tna_jax.transform import apply_updates

# Anchors: -0.0, a large number, and a whole vector. One leaf is 16 bits wide.
PARAMS = {
    "a": np.float32([1.0, -0.0, 3.0, 1e30]),
    "b": {"half": jnp.bfloat16([0.5, -0.0, 2.0]), "c": np.float32([1.0, -0.0])},
}
MASK = {"a": np.array([True, False, True, False]), "b": {"half": np.array([True, False, True]), "c": np.array(False)}}
SOFT = {"a": np.float32([1.0, 0.0, 0.5, 0.0]), "b": {"half": np.float32([1.0, 0.0, 0.25]), "c": 0.0}}
DECAY = functools.partial(optax.adamw, 0.1, weight_decay=0.1)


@pytest.fixture(autouse=True)
def optax_mixes_dtypes_and_ranks_itself():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def gradients(params, bad=jnp.nan, mask=MASK):
    """Of a quadratic, `bad` under the anchors of MASK."""
    return jax.tree.map(lambda m, p: jnp.where(m, p - 5, jnp.asarray(bad, p.dtype)), mask, params)


def train(tx, steps=50, bad=jnp.nan, **extra):
    """Returns how many anchors changed their bits, and whether every trainable entry did."""

    @jax.jit
    def run(params, extra):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(gradients(params, bad), state, params, **extra)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), length=steps)[0][0]

    after = run(jax.tree.map(jnp.asarray, PARAMS), extra)
    anchors, trainable = 0, True
    for p, q, m in zip(*map(jax.tree.leaves, (PARAMS, after, MASK)), strict=True):
        assert p.dtype == q.dtype
        whole = np.broadcast_to(m, p.shape)
        words = np.dtype(f"u{p.dtype.itemsize}")
        changed = np.asarray(p).view(words) != np.asarray(q).view(words)
        anchors, trainable = anchors + int(changed[~whole].sum()), trainable and bool(changed[whole].all())
    return anchors, trainable


@pytest.mark.parametrize("mask", [MASK, SOFT], ids=["bool", "soft"])
@pytest.mark.parametrize("bad", [np.nan, *slow(np.inf, -np.inf)])
def test_fifty_steps_of_mixed_dtypes(mask, bad):
    assert train(anchored(DECAY(), mask), bad=bad) == (0, True)
    if np.isnan(bad):
        assert train(optax.chain(tna_mask(mask), optax.adam(0.1)), bad=bad) == (0, True)
        assert train(optax.chain(tna_mask(mask), DECAY()), bad=bad)[0] > 0  # control: decay


def test_the_mask_at_update_reaches_every_part_that_takes_it():
    assert train(anchored(DECAY()), mask=MASK) == (0, True)
    assert train(optax.chain(tna_mask(), optax.adam(0.1)), mask=MASK) == (0, True)
    assert train(optax.chain(tna_mask(masks.complement(MASK)), optax.adam(0.1)), mask=MASK) == (0, True)  # goes before


def test_switching_masks_in_a_chain_compiles_nothing():
    tx = optax.chain(tna_mask(), optax.adam(0.1))
    params, traces = jax.tree.map(jnp.asarray, PARAMS), []

    @jax.jit
    def step(params, state, mask):
        traces.append(mask)
        updates, state = tx.update(gradients(params), state, params, mask=mask)
        return optax.apply_updates(params, updates), state

    state = jax.tree.map(jnp.asarray, tx.init(params))
    for mask in (MASK, MASK, masks.complement(MASK), masks.complement(masks.complement(MASK))):
        _, state = step(params, state, jax.tree.map(jnp.asarray, mask))
    assert len(traces) == 1
    step(params, state, jax.tree.map(jnp.asarray, SOFT))
    assert len(traces) == 2  # control: another dtype is another program


@pytest.mark.parametrize("mask", [*slow(MASK), SOFT], ids=["bool", "soft"])
@pytest.mark.slow
def test_stacked_masks_train_as_each_would_alone(mask):
    params = jax.tree.map(jnp.asarray, PARAMS)
    every = [jax.tree.map(jnp.asarray, m) for m in (mask, masks.complement(mask))]
    grads = jax.tree.map(jnp.ones_like, params)

    def one(m):
        tx = anchored(DECAY(), m)
        return tx.update(grads, tx.init(params), params)[0]

    together = jax.vmap(one)(jax.tree.map(lambda *m: jnp.stack(m), *every))
    for i, m in enumerate(every):
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(one(m)), strict=True):
            assert np.asarray(a[i]).tobytes() == np.asarray(b).tobytes()


def test_a_soft_anchor_acts_once_and_after_the_optimizer():
    params, soft = {"w": jnp.ones(3)}, {"w": np.float32([1.0, 0.5, 0.0])}
    for optimizer in (optax.sgd(0.1), optax.adam(0.1)):  # sgd would show it if it acted twice
        full = optimizer.update(params, optimizer.init(params))[0]["w"]
        after = anchored(optimizer, soft)
        np.testing.assert_array_equal(after.update(params, after.init(params))[0]["w"], full * soft["w"])
    before = optax.chain(tna_mask(soft), optax.adam(0.1))
    update = before.update(params, before.init(params))[0]["w"]
    np.testing.assert_allclose(update[:2], full[:2], rtol=1e-6)  # control: adam divides the multiplier away


WRAPPED = {
    # name: (composition, anchors that change their bits)
    "inject_hyperparams inside": (lambda: anchored(optax.inject_hyperparams(optax.noisy_sgd)(0.1, eta=0.1, gamma=0.5, key=0), MASK), 0),
    "inject_hyperparams around": (lambda: optax.inject_hyperparams(lambda rate: anchored(optax.sgd(rate), MASK))(rate=0.1), 0),
    "apply_if_finite inside": (lambda: anchored(optax.apply_if_finite(DECAY(), 3), MASK), 0),
    "MultiSteps inside": (lambda: anchored(optax.MultiSteps(DECAY(), 2).gradient_transformation(), MASK), 0),
    "masked around": (lambda: optax.masked(anchored(DECAY(), MASK), {"a": True, "b": {"half": True, "c": True}}), 0),
    "partition around": (lambda: optax.partition(
        {"x": anchored(DECAY(), MASK), "y": anchored(optax.sgd(0.1), MASK)}, {"a": "x", "b": {"half": "y", "c": "x"}}), 0),
    "multi_transform around": (lambda: optax.multi_transform(
        {"x": anchored(DECAY(), MASK), "y": anchored(optax.sgd(0.1), MASK)}, {"a": "x", "b": "y"}), 0),
    "multi_transform, one part without": (lambda: optax.multi_transform(
        {"x": anchored(DECAY(), MASK), "y": optax.sgd(0.1)}, {"a": "x", "b": "y"}), 3),
}  # fmt: skip


@pytest.mark.parametrize(("build", "changed"), WRAPPED.values(), ids=WRAPPED)
def test_wrappers(build, changed):
    assert train(build()) == (changed, True)


def test_apply_if_finite_must_stand_inside():
    """Around `anchored` it sees the non-finite gradients that anchoring would have dropped, and rejects every step."""
    assert train(optax.apply_if_finite(anchored(DECAY(), MASK), 1000), steps=3)[1] is False
    assert train(anchored(optax.apply_if_finite(DECAY(), 1000), MASK), steps=3)[1] is True


def test_masked_and_partitioned_parts_pass_through():
    params = jax.tree.map(jnp.ones_like, PARAMS)
    tx = optax.masked(tna_mask(MASK), {"a": True, "b": False})
    updates, _ = tx.update(params, tx.init(params), params)
    assert updates["a"].tolist() == [1, 0, 1, 0]
    assert updates["b"]["half"].tolist() == [1, 1, 1] and updates["b"]["c"].tolist() == [1, 1]


@pytest.mark.parametrize(
    "make", [lambda: tna_mask(MASK), lambda: anchored(DECAY(), MASK)], ids=["tna_mask", "anchored"]
)
def test_tree_map_params_finds_the_moments_and_the_mask(make):
    tx = optax.chain(make(), optax.adam(0.1))
    state = tx.init(jax.tree.map(jnp.asarray, PARAMS))
    marked = optax.tree_utils.tree_map_params(tx, lambda _: "moment", state, transform_non_params=lambda _: "other")
    assert jax.tree.structure(marked[0].mask) == jax.tree.structure(PARAMS) == jax.tree.structure(marked[1][0].mu)
    assert set(jax.tree.leaves(marked[0].mask)) == {"moment"} == set(jax.tree.leaves(marked[1][0].mu))
    assert marked[1][0].count == "other"


def test_a_state_of_an_earlier_version_goes_on():
    """It held the mask's leaves in a tuple, those of whole parameters without axes."""
    params = jax.tree.map(jnp.asarray, PARAMS)
    tx = anchored(DECAY(), MASK)
    state = tx.init(params)
    earlier = state._replace(mask=tuple(map(jnp.asarray, jax.tree.leaves(MASK))))
    update = jax.jit(tx.update)
    now, before = (update(gradients(params), s, params)[0] for s in (state, earlier))
    assert jax.tree.all(jax.tree.map(lambda a, b: np.asarray(a).tobytes() == np.asarray(b).tobytes(), now, before))


def test_a_donated_state_leaves_the_callers_mask_alive():
    mask = jax.tree.map(jnp.asarray, MASK)
    tx = anchored(DECAY(), mask)
    state = tx.init(jax.tree.map(jnp.asarray, PARAMS))
    step = jax.jit(lambda s, p: tx.update(gradients(p), s, p)[1], donate_argnums=0)
    step(state, jax.tree.map(jnp.asarray, PARAMS))
    assert not any(m.is_deleted() for m in jax.tree.leaves(mask))
    assert all(m.is_deleted() for m in jax.tree.leaves(state.mask))  # control: the state's own copy was donated


@pytest.mark.parametrize(
    "momentum", [lambda: optax.sgd(0.1, momentum=0.9), lambda: optax.adam(0.1)], ids=["sgd", "adam"]
)
def test_newly_anchored_entries_stay_while_their_momentum_is_alive(momentum):
    """FedPNU: the mask, then its complement."""

    def moved_after_the_switch(tx):
        mask = jax.tree.map(jnp.asarray, MASK)
        params = jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), PARAMS)
        state, step = tx.init(params), jax.jit(lambda s, p, m: tx.update(gradients(p, 1.0), s, p, mask=m))
        for i in range(20):
            if i == 10:
                switched, mask = params, masks.complement(mask)
            updates, state = step(state, params, mask)
            params = optax.apply_updates(params, updates)
        pairs = list(zip(*map(jax.tree.leaves, (switched, params, mask)), strict=True))
        assert all((np.asarray(q != p))[np.broadcast_to(m, p.shape)].all() for p, q, m in pairs)  # the others train
        whole = [np.broadcast_to(m, p.shape) for p, _, m in pairs]
        return any(
            np.asarray(p)[~m].tobytes() != np.asarray(q)[~m].tobytes()
            for (p, q, _), m in zip(pairs, whole, strict=True)
        )

    assert not moved_after_the_switch(anchored(momentum()))
    assert moved_after_the_switch(optax.chain(tna_mask(), momentum()))  # control


SPECIAL = np.uint32([0x00000001, 0x807FFFFF, 0x80000000, 0x7FC12345, 0xFF800000])  # subnormal, -0.0, NaN, -inf
HALVES = np.uint16([0x0001, 0x807F, 0x8000, 0x7FC5, 0xFF80])


def test_apply_updates_copies_anchors():
    params = {"x": jnp.asarray(SPECIAL.view(np.float32)), "y": jnp.asarray(HALVES.view(jnp.bfloat16))}
    updates = jax.tree.map(lambda p: -jnp.zeros_like(p), params)
    for mask in ({"x": False, "y": np.zeros(5, bool)}, {"x": 0.0, "y": np.zeros(5, np.float32)}):
        kept = jax.jit(apply_updates)(params, updates, mask)
        assert np.asarray(kept["x"]).tobytes() == SPECIAL.tobytes()
        assert np.asarray(kept["y"]).tobytes() == HALVES.tobytes()
    added = np.asarray(jax.jit(optax.apply_updates)(params, updates)["x"]).view(np.uint32)
    if jax.default_backend() == "cpu":
        assert (added[:2] & 0x7FFFFFFF == 0).all()  # control: adding flushes subnormal numbers
    assert (added[[2, 4]] == SPECIAL[[2, 4]]).all()


@pytest.mark.parametrize(
    "make", [tna_mask, lambda mask=None: anchored(optax.sgd(0.1), mask)], ids=["tna_mask", "anchored"]
)
class TestErrors:
    def test_a_tree_that_does_not_fit(self, make):
        params = {"a": jnp.ones(2), "b": jnp.ones(3), "c": jnp.ones(1)}
        mask = {"a": np.ones(3, bool), "b": np.ones((3, 1), bool), "d": True}
        texts = "params but not in the mask: c;", "mask but not in the params: d;", "a (mask (3,), ", "b (mask (3, 1), "
        with pytest.raises(ValueError, match="does not fit the params") as error:
            make(mask).init(params)
        assert all(text in str(error.value) for text in texts)
        with pytest.raises(ValueError, match="does not fit the updates") as error:
            make().update(params, make().init(params), params, mask=mask)
        assert all(text.replace("params", "updates") in str(error.value) for text in texts)

    def test_no_mask_at_all(self, make):
        params = {"a": jnp.ones(2)}
        with pytest.raises(ValueError, match=r"no mask: .*update\(..., mask=mask\)"):
            make().update(params, make().init(params), params)

    @pytest.mark.parametrize(
        ("leaf", "found"),
        [(np.int32([0, 1]), "int32"), (1, "int32"), (np.complex64(1), "complex64"), (-0.1, "values outside"),
         (np.float32([0, 1.5]), "values outside"), (float("nan"), "values outside")],
    )  # fmt: skip
    def test_values_that_are_no_mask(self, make, leaf, found):
        params = {"a": jnp.ones(2), "b": jnp.ones(2)}
        with pytest.raises(TypeError, match=f"b \\({found}"):
            make({"a": True, "b": leaf})
        with pytest.raises(TypeError, match=f"b \\({found}"):
            make().update(params, make().init(params), params, mask={"a": True, "b": leaf})
