"""One mask for all frameworks: leaves are matched by key path, whether they come from Linen, NNX or Equinox."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from tests.parameters import slow
from tna_jax import anchored, masks, tna_mask, trees

KEY = jax.random.key(5)
DRAWS = (masks.bernoulli, masks.exact, masks.neurons)


@pytest.fixture(autouse=True)
def frameworks_mix_dtypes_and_ranks_themselves():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def raw(tree) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x):  # B, 6, 6, 2
        x = nn.relu(nn.Conv(4, (3, 3), name="conv")(x)).reshape(len(x), 36, 4)
        x = nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=6, name="attention")(x)
        x = nn.LayerNorm(name="norm")(x).mean(1)
        return nn.Dense(3, name="dense")(x)


class NnxNet(nnx.Module):
    """The same key paths as `LinenNet` for the two layers that it has."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.dense = nnx.Linear(4, 3, rngs=rngs)


class EquinoxNet(eqx.Module):
    conv: eqx.nn.Conv2d
    dense: eqx.nn.Linear
    activation: object

    def __init__(self, key):
        self.activation = jax.nn.relu
        self.conv, self.dense = eqx.nn.Conv2d(2, 4, 3, key=key), eqx.nn.Linear(4, 3, key=key)


def linen_params():
    return jax.eval_shape(LinenNet().init, KEY, jnp.zeros((1, 6, 6, 2)))["params"]


def nnx_state():
    return nnx.state(NnxNet(nnx.Rngs(0)), nnx.Param)


def test_boxed_pure_and_plain_trees_have_the_same_bits():
    state = nnx_state()
    plain = {"conv": linen_params()["conv"], "dense": linen_params()["dense"]}
    forms = state, nnx.as_pure(state), nnx.to_pure_dict(state), plain
    for draw in DRAWS:
        drawn = [draw(KEY, form, 0.4) for form in forms]
        assert [raw(mask) for mask in drawn] == [raw(drawn[0])] * 4
        assert [jax.tree.structure(mask) for mask in drawn] == [jax.tree.structure(form) for form in forms]
        assert raw(draw(KEY, {"other": plain}, 0.4)) != raw(drawn[0])  # control: other paths
    boxed = jax.tree.map(lambda p: nn.Partitioned(p, ("x",) * p.ndim), plain)
    assert raw(masks.bernoulli(KEY, boxed, 0.4)) == raw(masks.bernoulli(KEY, plain, 0.4))


def test_abstract_nnx_state():
    abstract = nnx.eval_shape(nnx_state)
    assert raw(masks.bernoulli(KEY, abstract, 0.4)) == raw(masks.bernoulli(KEY, nnx_state(), 0.4))


def test_neurons_of_linen_modules():
    with pytest.raises(ValueError, match=r"norm/bias \(a norm, of another layer's units\); norm/scale"):
        masks.neurons(KEY, linen_params(), 0.5)
    mask = jax.tree.map(np.asarray, masks.neurons(KEY, linen_params(), 0.5, apart=True))
    attention = mask["attention"]
    for projection in ("query", "key", "value"):
        bias = attention[projection]["bias"]  # heads, head_dim
        assert bias.shape == (2, 3) and (~bias).sum() == 3
        assert (attention[projection]["kernel"] == bias).all()
    assert (attention["out"]["kernel"] == attention["out"]["bias"]).all()
    assert len({attention[projection]["bias"].tobytes() for projection in ("query", "key", "value")}) > 1
    for module, anchored_units in (("conv", 2), ("dense", 2)):  # 1.5 rounds up to 2
        assert (mask[module]["kernel"] == mask[module]["bias"]).all()
        assert (~mask[module]["bias"]).sum() == anchored_units
    assert (mask["norm"]["scale"] == mask["norm"]["bias"]).all() and (~mask["norm"]["scale"]).sum() == 2


def test_neurons_of_equinox_modules():
    params = eqx.filter(EquinoxNet(KEY), eqx.is_inexact_array)
    mask = masks.neurons(KEY, params, 0.5)
    assert jax.tree.structure(mask) == jax.tree.structure(params)
    for module, out in ((mask.conv, 4), (mask.dense, 3)):
        weight, bias = np.asarray(module.weight), np.asarray(module.bias)
        units = bias.reshape(out)
        assert (~units).sum() == 2
        assert (weight == units.reshape(out, *(1,) * (weight.ndim - 1))).all()


def test_the_whole_equinox_model_is_refused():
    with pytest.raises(TypeError, match=r"activation .*eqx.filter\(model, eqx.is_inexact_array\)"):
        masks.bernoulli(KEY, EquinoxNet(KEY), 0.4)
    with pytest.raises(TypeError, match=r"count .*nnx.state\(model, nnx.Param\)"):
        masks.bernoulli(KEY, {"conv": nnx_state()["conv"], "rngs": {"count": jnp.uint32(0)}}, 0.4)


def moved(before, after, mask) -> tuple[bool, bool]:
    """Whether any anchor changed its bits; whether every leaf with trainable entries moved."""
    anchors, trainable = [], []
    for p, q, m in zip(jax.tree.leaves(before), jax.tree.leaves(after), trees.align(mask, before), strict=True):
        changed, m = np.asarray(p).view(np.uint32) != np.asarray(q).view(np.uint32), np.asarray(m)
        anchors.append(changed[~m].any())
        trainable.append(changed[m].any() or not m.any())
    return any(anchors), all(trainable)


COMPOSITIONS = {
    "tna_mask, adam": (lambda mask: optax.chain(tna_mask(mask), optax.adam(0.1)), False),
    "anchored adamw": (lambda mask: anchored(optax.adamw(0.1, weight_decay=0.1), mask), False),
    "tna_mask, adamw": (lambda mask: optax.chain(tna_mask(mask), optax.adamw(0.1, weight_decay=0.1)), True),  # control
}


def loss(params):
    return sum(jnp.sum((p - 1) ** 2) for p in jax.tree.leaves(params))


@pytest.mark.parametrize(("make", "anchors_move"), COMPOSITIONS.values(), ids=COMPOSITIONS)
@pytest.mark.parametrize("form", [*slow(lambda s: s, nnx.as_pure), nnx.to_pure_dict], ids=["boxed", "pure", "dict"])
def test_training_with_nnx_optimizer(form, make, anchors_move):
    """`nnx.Optimizer` calls init with boxes and update without them."""
    model = NnxNet(nnx.Rngs(0))
    before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    mask = masks.bernoulli(KEY, form(nnx.state(model, nnx.Param)), 0.4)
    optimizer = nnx.Optimizer(model, make(mask), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(lambda m: loss(nnx.state(m, nnx.Param)))(model))

    for _ in range(3):
        step(model, optimizer)
    assert moved(before, nnx.to_pure_dict(nnx.state(model, nnx.Param)), mask) == (anchors_move, True)


@pytest.mark.parametrize(("make", "anchors_move"), COMPOSITIONS.values(), ids=COMPOSITIONS)
@pytest.mark.parametrize("framework", ["Linen", *slow("Equinox")])
def test_training_functional_trees(framework, make, anchors_move):
    shapes = (
        {name: linen_params()[name] for name in ("conv", "norm", "dense")}
        if framework == "Linen"
        else eqx.filter(EquinoxNet(KEY), eqx.is_inexact_array)
    )
    before = jax.tree.map(lambda s: jnp.full(s.shape, 0.5), shapes)
    mask = masks.bernoulli(KEY, shapes, 0.4)
    tx = make(mask)

    @jax.jit
    def run(params):
        def step(_, carry):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return eqx.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, 3, step, (params, tx.init(params)))[0]

    params = run(before)
    assert moved(before, params, mask) == (anchors_move, True)


def test_a_mask_of_one_framework_fits_another():
    """A mask drawn from Linen's shapes trains an NNX model; without names it could only fit by luck."""
    linen = linen_params()
    mask = masks.bernoulli(KEY, {"dense": linen["dense"], "conv": linen["conv"]}, 0.4)
    state = nnx_state()
    updates, _ = tna_mask(mask).update(jax.tree.map(jnp.ones_like, state), tna_mask(mask).init(nnx.as_pure(state)))
    assert jax.tree.structure(updates) == jax.tree.structure(state)
    assert raw(jax.tree.map(lambda u: u != 0, nnx.to_pure_dict(updates))) == raw(mask)
    with pytest.raises(ValueError, match="in the mask but not in the params: attention/key/bias"):
        tna_mask(masks.bernoulli(KEY, linen, 0.4)).init(state)
