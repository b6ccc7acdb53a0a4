"""What stands for an optimizer: objects like MultiSteps, what wants the loss, masks that reach nested transformations, and mistakes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.parameters import slow_but
from tna_jax import anchored, ensemble, optimizers, tna_mask
from tna_jax.ensemble import Trainer
from tna_jax.ensemble.members import _with_leading_axis
from tna_jax.networks import Stateful, Stochastic
from tna_jax.objectives import regression

PARAMS = {"a": jnp.array([1.0, -0.0, 3.0]), "b": {"c": jnp.array([4.0, 5.0])}}
MASK = {"a": jnp.array([True, False, True]), "b": {"c": jnp.array([False, True])}}
ONES = jax.tree.map(jnp.ones_like, PARAMS)


@pytest.fixture(autouse=True)
def optax_mixes_dtypes_itself():
    with jax.numpy_dtype_promotion("standard"):
        yield


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def anchors(tree):
    return bits([np.asarray(p)[~np.asarray(m)] for p, m in zip(*map(jax.tree.leaves, (tree, MASK)), strict=True)])


def ratio_of(mask):
    return [np.asarray(m).tolist() for m in jax.tree.leaves(mask)]


WRAPPERS = {
    "chain": lambda inner: optax.chain(optax.identity(), inner),
    "masked": lambda inner: optax.masked(inner, {"a": True, "b": {"c": True}}),
    "masked in part": lambda inner: optax.masked(inner, {"a": True, "b": False}),
    "partition": lambda inner: optax.partition({"x": inner, "y": optax.sgd(0.1)}, {"a": "x", "b": "y"}),
    "multi_transform": lambda inner: optax.multi_transform({"x": inner, "y": inner}, {"a": "x", "b": "y"}),
    "inject_hyperparams": lambda inner: optax.inject_hyperparams(lambda rate: optax.chain(inner, optax.scale(rate)))(
        rate=1.0
    ),
    "MultiSteps": lambda inner: optax.MultiSteps(inner, 1),
    "apply_if_finite": lambda inner: optax.apply_if_finite(inner, 3),
    "anchored": anchored,
    "two deep": lambda inner: optax.chain(optax.apply_if_finite(optax.masked(inner, MASK_ALL), 3)),
}
MASK_ALL = {"a": True, "b": True}


@pytest.mark.parametrize("name", slow_but({"masked in part", "MultiSteps"}, WRAPPERS))
def test_a_mask_passed_at_update_reaches_nested_transformations(name):
    """The optimizer inside sees zero gradients under the anchors: `tna_mask()` there had the mask."""
    seen = []
    look = optax.stateless(lambda updates, params: seen.append(jax.tree.leaves(updates)) or updates)
    tx = anchored(WRAPPERS[name](optax.chain(optax.add_noise(0.1, 0.5, 0), tna_mask(), look)))
    state = tx.init(PARAMS)
    updates, _ = tx.update(ONES, state, PARAMS, mask=MASK)
    assert anchors(optax.apply_updates(PARAMS, updates)) == anchors(PARAMS)
    noisy = seen[0][0]  # noise was added, and masked again; some wrappers trace what stands inside
    assert isinstance(noisy, jax.core.Tracer) or (noisy[1] == 0 and noisy[0] != 0)


def test_a_nested_mask_of_its_own_stays():
    """A trainer passes the mask of all members; a mask inside the optimizer is not lifted by it."""
    tx = anchored(optax.chain(tna_mask(MASK), optax.sgd(1.0)))
    updates, _ = tx.update(ONES, tx.init(PARAMS), PARAMS, mask={"a": True, "b": True})
    assert ratio_of(jax.tree.map(lambda u: u != 0, updates)) == ratio_of(MASK)


@pytest.mark.slow
def test_what_refuses_unknown_arguments_is_not_given_a_mask():
    tx = anchored(optax.lbfgs())
    updates, _ = tx.update(
        ONES, tx.init(PARAMS), PARAMS, mask=MASK, value=jnp.float32(1), grad=ONES, value_fn=lambda p: jnp.sum(p["a"])
    )
    assert anchors(optax.apply_updates(PARAMS, updates)) == anchors(PARAMS)


KEY, M, N = jax.random.key(0), 2, 12
INPUTS = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
TARGETS = (INPUTS @ np.float32([1, -1, 2, 0])).reshape(-1, 1)
LINES = {"w": jax.random.normal(KEY, (M, 4, 1))}
LINES_MASK = {"w": jnp.broadcast_to(jnp.array([[True], [False], [True], [True]]), (M, 4, 1))}


def linear(params, inputs):
    return inputs @ params["w"]


def trained(optimizer, epochs=2, network=linear, state=(), **options):
    trainer = Trainer(network, optimizer, N, objective=regression(), **{"placement": "vmap", **options})
    members = ensemble.init_ensemble(trainer, LINES, jax.random.split(KEY, M), LINES_MASK, state=state)
    members, sums = ensemble.train_ensemble(trainer, members, INPUTS, TARGETS, epochs)
    before, after = (np.asarray(x["w"]) for x in (LINES, members.params))
    assert bits(before[:, 1]) == bits(after[:, 1])  # the anchors
    assert (before[:, 0] != after[:, 0]).all()
    return members, np.stack([s.loss for s in sums])


WANT_THE_LOSS = {
    "lbfgs": lambda: optax.lbfgs(),
    "lbfgs with backtracking": lambda: optax.lbfgs(linesearch=optax.scale_by_backtracking_linesearch(20)),
    "polyak_sgd": lambda: optax.polyak_sgd(1.0),
    "reduce_on_plateau": lambda: optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1)),
    "backtracking": lambda: optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(20)),
    "MultiSteps of polyak_sgd": lambda: optax.MultiSteps(optax.polyak_sgd(1.0), 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", slow_but({"polyak_sgd"}, WANT_THE_LOSS))
def test_optimizers_that_want_the_loss_are_given_it(name):
    _, losses = trained(WANT_THE_LOSS[name](), epochs=4)
    assert (losses[-1] < losses[0]).all()


@pytest.mark.slow
def test_the_loss_that_an_optimizer_is_given_is_the_batches():
    params, mask = ({"w": tree["w"][0]} for tree in (LINES, LINES_MASK))

    def update(updates, state, params=None, *, value, grad, value_fn, **rest):
        assert not rest
        again, slope = jax.value_and_grad(value_fn)(params)
        return jax.tree.map(lambda u: -0.1 * u, updates), {"value": value, "again": again, "slope": slope, "grad": grad}

    start = {"value": jnp.float32(0), "again": jnp.float32(0), "slope": params, "grad": params}
    probe = optax.GradientTransformationExtraArgs(lambda params: start, update)
    stateful = Stateful(
        lambda p, s, x, w: (linear(p, x), jax.tree.map(lambda v: v + 1, s)), lambda p, s, x: linear(p, x)
    )
    noisy = Stochastic(lambda p, x, key: linear(p, x) + jax.random.normal(key, (x.shape[0], 1)), linear)
    for network, state, accumulate in ((noisy, (), 3), (stateful, {"n": jnp.zeros(())}, 1)):
        trainer = Trainer(network, probe, N, objective=regression(), accumulate=accumulate)
        member = ensemble.Members(params, mask, trainer.anchored_optimizer({}).init(params), KEY, {}, state)
        step = jax.jit(functools.partial(ensemble.train_step, trainer, padded=False))
        after, sums = step(member, INPUTS, TARGETS, np.ones(N, np.float32), key=KEY)
        seen = after.opt_state.inner
        np.testing.assert_allclose(seen["value"], sums.loss, rtol=1e-5)
        np.testing.assert_allclose(seen["again"], sums.loss, rtol=1e-5)
        expected = np.where(mask["w"], seen["slope"]["w"], 0)
        np.testing.assert_allclose(seen["grad"]["w"], expected, rtol=1e-4, atol=1e-6)
        assert (np.asarray(after.params["w"] != params["w"]) == mask["w"]).all()


def test_multi_steps_as_an_object():
    members, _ = trained(optax.MultiSteps(optax.sgd(0.1), 2))
    assert (members.opt_state.inner.gradient_step == 1).all()
    tx = anchored(optax.MultiSteps(optax.sgd(0.1), 2), MASK)
    state, params = tx.init(PARAMS), PARAMS
    for _ in range(4):
        updates, state = tx.update(ONES, state, params)
        params = optax.apply_updates(params, updates)
    assert anchors(params) == anchors(PARAMS) and params["a"][0] != 1


def wrong(name):
    return {
        "uncalled": lambda: anchored(optax.adam, MASK),
        "uncalled in part": lambda: anchored(functools.partial(optax.adamw, weight_decay=0.1), MASK),
        "of contrib": lambda: anchored(optax.contrib.muon, MASK),
        "a function": lambda: anchored(lambda hyper: optax.sgd(0.1), MASK),
        "swapped": lambda: anchored(MASK, optax.adam(0.1)),
        "mask only": lambda: anchored(MASK),
        "nothing": lambda: anchored(None, MASK),
        "an optimizer as mask": lambda: tna_mask(optax.adam(0.1)),
        "a ratio": lambda: tna_mask(0.4),
        "a ratio as an array": lambda: anchored(optax.sgd(0.1), np.float32(0.4)),
        "a function returns a ratio": lambda: tna_mask(lambda params: 0.4).init(PARAMS),
        "trainer, uncalled": lambda: Trainer(linear, optax.adam, 4),
        "trainer, a mask": lambda: Trainer(linear, MASK, 4),
        "trainer, a function that returns none": lambda: Trainer(linear, lambda hyper: 0.1, 4).anchored_optimizer({}),
    }[name]


MISTAKES = {
    "uncalled": r"optax.adam makes one: call it, optax.adam\(...\)",
    "uncalled in part": r"call it, optax.adamw\(...\)",
    "of contrib": r"optax.contrib.muon makes one",
    "a function": "takes an optimizer, and <lambda> makes one",
    "swapped": r"takes an optax optimizer, got a mask or parameters \(dict\)",
    "mask only": r"takes an optax optimizer, got a mask or parameters \(dict\)",
    "nothing": r"takes an optax optimizer, got None",
    "an optimizer as mask": "takes a mask here, got an optimizer",
    "a ratio": r"got 0.4: if it is a ratio, draw a mask by masks.bernoulli\(key, params, 0.4\)",
    "a ratio as an array": "if it is a ratio",
    "a function returns a ratio": "if it is a ratio",
    "trainer, uncalled": r'Trainer takes an optimizer, and optax.adam makes one.*hyper\["learning_rate"\]',
    "trainer, a mask": r"Trainer\(network, optimizer, batch_size\) takes an optax optimizer, got a mask",
    "trainer, a function that returns none": "takes an optax optimizer, got a mask or parameters|got 0.1",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name):
    with pytest.raises(TypeError, match=MISTAKES[name]):
        wrong(name)()


def test_the_transformation_around_which_a_train_state_stands_is_asked_for():
    class Around:
        tx = optax.sgd(0.1)

    with pytest.raises(TypeError, match=r"not the Around around it: give its `.tx`"):
        optimizers.as_transformation(Around())


def test_keys_of_the_data_order_are_one_for_each_member():
    trainer = Trainer(linear, optax.sgd(0.1), 4)
    for keys in (KEY, jax.random.PRNGKey(0)):
        with pytest.raises(ValueError, match=r"jax.random.split\(jax.random.key\(0\), M\)"):
            ensemble.init_ensemble(trainer, LINES, keys)


def test_members_may_be_given_one_by_one():
    trainer = Trainer(linear, optax.sgd(0.1), 4, objective=regression())
    models = [{"w": LINES["w"][i]} for i in range(M)]
    members = ensemble.init_ensemble(trainer, models, jax.random.split(KEY, M), [{"w": LINES_MASK["w"][0]}] * M)
    assert bits(members.params) == bits(LINES) and bits(members.mask) == bits(LINES_MASK)
    layers = [jnp.ones((M, 2, 2)), jnp.ones((M, 2, 2))]  # stacked already
    assert jax.tree.structure(_with_leading_axis(layers, M)) == jax.tree.structure(layers)
