"""A module of Linen, NNX or Equinox through the whole chain: mask, ensemble, path, matching, repair, files, and back."""

import builtins
import functools
import sys

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import tna_jax
from tests.parameters import slow_but
from tna_jax import connectivity, ensemble, io, masks, matching, networks, repair, trees
from tna_jax.ensemble import Trainer

KEY, SIZE, M, N = jax.random.key(3), 6, 2, 24


@pytest.fixture(autouse=True)
def frameworks_mix_dtypes_and_ranks_themselves():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


class LinenNet(nn.Module):
    """Two layers; between them BatchNorm and dropout, or neither."""

    norm: bool = False
    rate: float = 0.0

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(8, name="first")(x)
        x = nn.BatchNorm(not train, momentum=0.8, name="norm")(x) if self.norm else x
        x = nn.Dropout(self.rate, deterministic=not train)(nn.relu(x)) if self.rate else nn.relu(x)
        return nn.Dense(3, name="head")(nn.relu(nn.Dense(7, name="second")(x)))


class NnxNet(nnx.Module):
    def __init__(self, norm=False, rate=0.0, *, rngs):
        self.first = nnx.Linear(SIZE, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.8, rngs=rngs) if norm else None
        self.dropout = nnx.Dropout(rate, rngs=rngs) if rate else None
        self.second, self.head = nnx.Linear(8, 7, rngs=rngs), nnx.Linear(7, 3, rngs=rngs)

    def __call__(self, x):
        x = self.first(x)
        x = nnx.relu(self.norm(x) if self.norm else x)
        x = self.dropout(x) if self.dropout else x
        return self.head(nnx.relu(self.second(x)))


class EquinoxNet(eqx.Module):
    first: eqx.nn.Linear
    second: eqx.nn.Linear
    head: eqx.nn.Linear
    dropout: eqx.nn.Dropout

    def __init__(self, key, rate=0.0):
        keys = jax.random.split(key, 3)
        self.first, self.second = eqx.nn.Linear(SIZE, 8, key=keys[0]), eqx.nn.Linear(8, 7, key=keys[1])
        self.head, self.dropout = eqx.nn.Linear(7, 3, key=keys[2]), eqx.nn.Dropout(rate)

    def __call__(self, x, *, key=None):
        x = self.dropout(jax.nn.relu(self.first(x)), key=key)
        return self.head(jax.nn.relu(self.second(x)))


class EquinoxNormed(EquinoxNet):
    norm: eqx.nn.BatchNorm

    def __init__(self, key, rate=0.0, mode="batch"):
        super().__init__(key, rate)
        self.norm = eqx.nn.BatchNorm(8, axis_name="examples", momentum=0.8, mode=mode)

    def __call__(self, x, state, *, key=None):
        x, state = self.norm(self.first(x), state)
        x = self.dropout(jax.nn.relu(x), key=key)
        return self.head(jax.nn.relu(self.second(x))), state


def equinox_creator(norm, rate, **options):
    if not norm:
        return lambda key: EquinoxNet(key, rate)
    return lambda key: eqx.nn.make_with_state(EquinoxNormed)(key, rate, **options)


@functools.cache
def model_of(framework, norm=False, rate=0.0):
    if framework == "linen":
        return tna_jax.from_linen(LinenNet(norm, rate), (SIZE,), KEY)
    if framework == "nnx":
        return tna_jax.from_nnx(lambda rngs: NnxNet(norm, rate, rngs=rngs), KEY)
    return tna_jax.from_equinox(equinox_creator(norm, rate), key=KEY)


def called(framework, module, x):
    """The framework's own way to call what `to_module` gives."""
    if framework != "equinox":
        return module(x)
    if not isinstance(module, tuple):
        return jax.vmap(module)(x)
    return jax.vmap(module[0], in_axes=(0, None), out_axes=(0, None), axis_name="examples")(x, module[1])[0]


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, SIZE)).astype(np.float32), rng.integers(0, 3, N)


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


KINDS = {"plain": (False, 0.0), "BatchNorm": (True, 0.0), "dropout": (False, 0.5), "both": (True, 0.5)}
FRAMEWORKS = ("linen", "nnx", "equinox")


@pytest.mark.slow
@pytest.mark.parametrize(("framework", "kind"), [(framework, kind) for framework in FRAMEWORKS for kind in KINDS])
def test_through_the_whole_chain(framework, kind, tmp_path):
    model, (inputs, labels) = model_of(framework, *KINDS[kind]), data()
    network, (norm, rate) = model.network, KINDS[kind]
    assert isinstance(network, networks.Stateful) == norm and networks.wants_key(network) == (
        rate > 0 or (framework, norm) in OWN_KEY
    )
    keys = jax.random.split(KEY, M)
    params, state = jax.jit(jax.vmap(model.init))(keys)
    mask = jax.jit(jax.vmap(lambda p: masks.bernoulli(KEY, p, 0.4)))(params)
    trainer = Trainer(network, optax.adam(0.01), batch_size=8, placement="map")
    members = ensemble.init_ensemble(trainer, params, keys, mask, state=state)
    trained, sums = ensemble.train_ensemble(trainer, members, inputs, labels, 2)[:2]
    assert np.isfinite(jax.tree.leaves(sums)[0]).all()
    for before, after, m in zip(
        *map(jax.tree.leaves, (params, trained.params)), trees.align(mask, params), strict=True
    ):
        same = np.asarray(before).view(np.uint32) == np.asarray(after).view(np.uint32)
        assert same[~np.asarray(m)].all()
        assert not same[np.asarray(m)].all()  # the control: the others move
    assert (bits(state) != bits(trained.state)) == norm
    # the path ends at the stand-alone models, and the module computes what the network does
    split = {"test": (inputs, labels)}
    options = {"calibration": inputs, "placement": "map"} if norm else {"placement": "map"}
    path = connectivity.evaluate_paths(
        network, trained.params, [(0, 1)], (0.0, 0.5, 1.0), split, state=trained.state, **options
    )["test"]
    alone = connectivity.evaluate(network, trained.params, split, state=trained.state, placement="map")["test"]
    np.testing.assert_array_equal(path.loss[0, [0, 2]], alone.loss)
    assert path.loss[0, 1] not in alone.loss
    for i in range(M):
        one, its_state = ensemble.member((trained.params, trained.state), i)
        file = tmp_path / f"{i}.safetensors"
        io.save(file, {"params": one, "state": its_state} if norm else {"params": one})
        again = io.load(file, like=model.params, part="params")
        again_state = io.load(file, like=model.state, part="state") if norm else ()
        assert bits((again, again_state)) == bits((one, its_state))
        module = model.to_module(again, again_state)
        logits = networks.evaluate(network, one, its_state, inputs)
        np.testing.assert_array_equal(called(framework, module, inputs), logits)
        assert not np.allclose(called(framework, model.to_module(), inputs), logits)  # the control
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        np.testing.assert_allclose(loss, alone.loss[i], rtol=1e-5)


OWN_KEY = {("equinox", False), ("equinox", True)}
"""Modules of the user's own that take `key=`, whatever they do with it."""


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_matched_and_repaired(framework):
    model, (inputs, _) = model_of(framework, False, 0.5 if framework != "equinox" else 0.0), data()
    a, b = (model.init(key)[0] for key in jax.random.split(KEY, 2))
    spec = matching.permutation_spec(model.network, a, inputs)
    assert spec.groups == {"first": 8, "second": 7}
    shuffled = matching.apply_permutation(spec, matching.random_permutation(spec, KEY), a)
    match = matching.weight_matching(spec, a, shuffled)
    assert bits(match.params) == bits(a) and bits(shuffled) != bits(a)
    repaired = repair.repair_line(model.network, a, b, 0.5, inputs)
    assert repaired.layers == ("first", "second") and not repaired.shift
    middle = tna_jax.line(a, b, 0.5)
    spread = [hidden(framework, model.to_module(p), inputs).std(0) for p in (a, b, middle, repaired.params)]
    np.testing.assert_allclose(spread[3], (spread[0] + spread[1]) / 2, rtol=1e-4)
    assert not np.allclose(spread[2], spread[3], rtol=0.05)
    np.testing.assert_allclose(
        repaired.apply(model.network, inputs), called(framework, model.to_module(repaired.params), inputs), atol=1e-6
    )


def hidden(framework, module, x):
    """Outputs of the second layer before its non-linearity, by the framework's own layers."""
    if framework == "equinox":
        return np.asarray(jax.vmap(lambda row: module.second(jax.nn.relu(module.first(row))))(x))
    if framework == "nnx":
        return np.asarray(module.second(nnx.relu(module.first(x))))
    p = module.variables["params"]
    return np.asarray(
        jax.nn.relu(x @ p["first"]["kernel"] + p["first"]["bias"]) @ p["second"]["kernel"] + p["second"]["bias"]
    )


@pytest.mark.parametrize("framework", slow_but(["nnx"], FRAMEWORKS))
@pytest.mark.slow
def test_a_steps_key_reaches_dropout_and_evaluation_has_none(framework):
    model, (x, _) = model_of(framework, True, 0.5), data()
    run = functools.partial(networks.train, model.network, model.params, model.state, x, None)
    one, same, other = run(jax.random.key(1))[0], run(jax.random.key(1))[0], run(jax.random.key(2))[0]
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    quiet = model.network.train(model.params, model.state, x, None, None)[0]
    without = model_of(framework, True)  # the same module without dropout
    np.testing.assert_allclose(
        quiet, without.network.train(model.params, model.state, x, None, None)[0], rtol=1e-5, atol=1e-6
    )
    with pytest.raises(ValueError, match="give a key"):
        networks.train(model.network, model.params, model.state, x, None)


@pytest.mark.slow
@pytest.mark.parametrize("framework", slow_but(["nnx"], FRAMEWORKS))
def test_padding_does_not_enter_batch_norm(framework):
    model, (x, _) = model_of(framework, True), data()
    weight = jnp.asarray([1.0] * 15 + [0.0] * 9)
    train = functools.partial(model.network.train, model.params, model.state)
    tail = (None,) * model.network.wants_key
    if framework == "equinox":
        with pytest.raises(ValueError, match="batch size that divides the number of examples$"):
            train(x, weight, *tail)
        return
    train = jax.jit(train)
    logits, state = train(x, weight, *tail)
    exact, exact_state = train(x[:15], None, *tail)
    np.testing.assert_allclose(logits[:15], exact, rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-5, atol=1e-6), state, exact_state)
    assert not np.allclose(jax.tree.leaves(state)[0], jax.tree.leaves(train(x, None, *tail)[1])[0])  # the control


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_equinox_statistics_estimated_anew_stand_on_their_own(mode):
    model, (x, _) = tna_jax.from_equinox(equinox_creator(True, 0.0, mode=mode), key=KEY), data()
    _, state = networks.train(model.network, model.params, model.state, x[:3], None, KEY)
    fresh = repair.reset_batch_stats(model.network, model.params, state, x)
    by_batch = model.network.train(model.params, model.state, x, None, None)[0]
    np.testing.assert_allclose(networks.evaluate(model.network, model.params, fresh, x), by_batch, rtol=1e-3, atol=1e-4)
    assert not np.allclose(networks.evaluate(model.network, model.params, state, x), by_batch, atol=1e-2)


def test_nnx_modules_are_left_as_they_are_and_come_back():
    module, (x, _) = NnxNet(True, 0.5, rngs=nnx.Rngs(5)), data()
    before, model = bits(nnx.as_pure(nnx.state(module, nnx.Param, nnx.BatchStat)[0])), tna_jax.from_nnx(module)
    networks.train(model.network, model.params, model.state, x, None, KEY)
    assert bits(nnx.as_pure(nnx.state(module, nnx.Param, nnx.BatchStat)[0])) == before
    assert not module.norm.use_running_average and model.to_module().norm.use_running_average
    with pytest.raises(ValueError, match="cannot be drawn again"):
        model.init(KEY)
    with pytest.raises(ValueError, match="give the state"):
        model.to_module(model.params)
    assert bits(tna_jax.from_nnx(functools.partial(NnxNet, True), KEY).params) == bits(model_of("nnx", True).params)


def test_masks_are_the_same_whatever_the_framework():
    linen, nnx_model = (model_of(framework, True) for framework in ("linen", "nnx"))
    mask = masks.bernoulli(KEY, linen.params, 0.4)
    assert bits(trees.align(mask, nnx_model.params)) == bits(masks.bernoulli(KEY, nnx_model.params, 0.4))


class Counting(nnx.Module):
    def __init__(self, rngs):
        self.seen, self.linear = nnx.BatchStat(jnp.zeros(())), nnx.Linear(SIZE, 3, rngs=rngs)

    def __call__(self, x):
        self.seen[...] = self.seen[...] + x.shape[0]
        return self.linear(x)


class AlwaysDropping(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5, deterministic=False)(nn.Dense(3)(x))


def test_what_does_not_fit_is_refused(monkeypatch):
    counting, (x, _) = tna_jax.from_nnx(Counting), data()
    with pytest.raises(ValueError, match=r"\(seen\): choose a batch size.*let __call__ take `weight`"):
        networks.train(counting.network, counting.params, counting.state, x, jnp.ones(N))
    assert networks.train(counting.network, counting.params, counting.state, x, None)[1]["seen"] == N
    with pytest.raises(ValueError, match="AlwaysDropping draws random numbers in evaluation"):
        tna_jax.from_linen(AlwaysDropping(), (SIZE,))
    with pytest.raises(TypeError, match="must return an nnx.Module, got int"):
        tna_jax.from_nnx(lambda rngs: 3)
    with pytest.raises(TypeError, match="takes an nnx.Module or a function that creates one, got int"):
        tna_jax.from_nnx(3)
    with pytest.raises(TypeError, match="must return an eqx.Module, or .*got int"):
        tna_jax.from_equinox(lambda key: 3)
    with pytest.raises(ValueError, match="make_with_state"):
        tna_jax.from_equinox(EquinoxNormed(KEY))
    real = builtins.__import__

    def without_equinox(name, *rest):
        if name == "equinox":
            raise ImportError("no module")
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "equinox")
    monkeypatch.setattr(builtins, "__import__", without_equinox)
    with pytest.raises(ImportError, match="pip install equinox"):
        tna_jax.from_equinox(lambda key: 3)
