"""Fisher merging, RegMean and AdaMerging against NumPy, on networks of the library and on hand-made ones."""

import collections
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tna_jax import merging, networks
from tna_jax.merging.adaptive import _vectors
from tna_jax.merging.columns import columns_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 3)).astype(np.float32)


def linear(params, x):
    return x @ params["kernel"] + params["bias"][None]


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def draw(seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return {"bias": rng.normal(size=4).astype(dtype), "kernel": rng.normal(size=(3, 4)).astype(dtype)}


PARAMS = draw(0)


def test_fisher_information_of_a_linear_classifier():
    """With logits z the gradient of log p_y is e_y - p: the expectation of its square is p (1 - p)."""
    p = softmax(linear(PARAMS, X))
    fisher = merging.fisher_information(linear, PARAMS, X, batch_size=2)
    np.testing.assert_allclose(fisher["bias"], (p * (1 - p)).mean(0), rtol=1e-5)
    np.testing.assert_allclose(fisher["kernel"], np.einsum("ni,nc->ic", X**2, p * (1 - p)) / 5, rtol=1e-5)


def test_fisher_information_of_labels():
    labels = np.array([0, 3, 1, 1, 2])
    residual = np.eye(4)[labels] - softmax(linear(PARAMS, X))
    fisher = merging.fisher_information(linear, PARAMS, X, labels=labels)
    np.testing.assert_allclose(fisher["bias"], (residual**2).mean(0), rtol=1e-5)


def test_fisher_information_of_several_positions_adds_theirs():
    def tokens(params, x):
        return jnp.stack([linear(params, x), linear(params, 2 * x)], axis=1)

    one = [merging.fisher_information(linear, PARAMS, scale * X)["kernel"] for scale in (1, 2)]
    np.testing.assert_allclose(merging.fisher_information(tokens, PARAMS, X)["kernel"], one[0] + one[1], rtol=1e-5)


def test_fisher_merge_is_its_formula():
    models, fishers = [draw(i) for i in range(3)], [jax.tree.map(np.square, draw(i + 5)) for i in range(3)]
    weights = np.array([0.5, 0.3, 0.2])
    result = merging.fisher_merge(models, fishers, weights)
    for name in PARAMS:
        f = np.stack([w * fisher[name] for w, fisher in zip(weights, fishers, strict=True)])
        expected = (f * np.stack([m[name] for m in models])).sum(0) / f.sum(0)
        np.testing.assert_allclose(result[name], expected, rtol=1e-5)


def test_fisher_merge_where_nothing_is_known_averages():
    a, b = {"w": np.array([1, 2, 4], np.float16)}, {"w": np.array([3, 6, 4], np.float16)}
    f, g = {"w": np.array([0, 0, 1], np.float32)}, {"w": np.array([0, 5, 2], np.float32)}
    np.testing.assert_array_equal(merging.fisher_merge([a, b], [f, g])["w"], np.array([2, 6, 4], np.float16))
    np.testing.assert_array_equal(merging.fisher_merge([a, b], [f, g], [1, 3])["w"], np.array([2.5, 6, 4], np.float16))
    flat = merging.fisher_merge([a, b], [f, g], floor=1e9)["w"]
    np.testing.assert_array_equal(flat, np.array([2, 4, 4], np.float16))
    mask = {"w": np.array([True, False, True])}
    assert merging.fisher_merge([a, b], [f, g], mask=mask)["w"][1] == 2


def grams_reference(x):
    return x.reshape(-1, x.shape[-1]).astype(np.float64).T @ x.reshape(-1, x.shape[-1]) / x[..., 0].size


class Attentive(nn.Module):
    """Dense layers with several input axes and several output axes, a convolution, an embedding that is the head too."""

    @nn.compact
    def __call__(self, x):  # (B, 6) tokens
        table = nn.Embed(7, 8, name="table")
        h = table(x)
        self.sow("seen", "into_attention", h)
        h = nn.MultiHeadDotProductAttention(2, qkv_features=4, out_features=8, name="attention")(h)
        h = nn.Conv(8, (3,), name="conv")(h)
        self.sow("seen", "into_dense", h)
        return table.attend(nn.relu(nn.Dense(8, name="dense")(h)))


@pytest.mark.slow
def test_gram_matrices_of_every_dense_layer_are_found_by_what_they_compute():
    module, tokens = Attentive(), RNG.integers(0, 7, size=(5, 6))
    variables = jax.jit(module.init)(jax.random.key(0), tokens)
    params = variables["params"]
    _, state = jax.jit(functools.partial(module.apply, mutable="seen"))({"params": params}, tokens)
    grams = merging.gram_matrices(lambda p, x: module.apply({"params": p}, x), params, tokens)
    assert sorted(grams) == [*(f"attention/{n}/kernel" for n in ("key", "out", "query", "value")), "dense/kernel"]
    for name, gram in grams.items():
        assert gram.axes == ((0, 1) if "/out/" in name else (0,))
        kernel = params
        for part in name.split("/"):
            kernel = kernel[part]
        size = int(np.prod([kernel.shape[axis] for axis in gram.axes]))
        assert gram.matrix.shape == (size, size)
        assert np.linalg.eigvalsh(gram.matrix).min() > -1e-6
    for name in ("attention/query", "dense"):
        expected = grams_reference(np.asarray(state["seen"][f"into_{name.split('/')[0]}"][0]))
        np.testing.assert_allclose(grams[f"{name}/kernel"].matrix, expected, rtol=1e-4, atol=1e-6)


def test_gram_matrices_of_the_other_layout_and_of_a_layer_used_twice():
    def torch_like(params, x):
        h = jax.vmap(lambda v: params["weight"] @ v)(x)
        return h @ params["weight"].T

    params = {"weight": RNG.normal(size=(3, 3)).astype(np.float32)}
    gram = merging.gram_matrices(torch_like, params, X)["weight"]
    h = X @ params["weight"].T
    assert gram.axes == (1,)
    np.testing.assert_allclose(gram.matrix, (grams_reference(X) + grams_reference(h)) / 2, rtol=1e-5)


def test_a_parameter_that_is_used_in_another_way_too_is_left_out():
    with pytest.raises(ValueError, match="no dense layer was found"):
        merging.gram_matrices(lambda p, x: x @ (2 * p["kernel"]), PARAMS, X)
    grams = merging.gram_matrices(
        lambda p, x: x @ p["kernel"] @ p["kernel"].T @ p["out"], {**PARAMS, "out": PARAMS["kernel"]}, X
    )
    assert list(grams) == ["out"]


def test_regmean_is_the_regression_on_both_inputs():
    models, inputs = [draw(i) for i in range(2)], [RNG.normal(size=(50, 3)).astype(np.float32) for _ in range(2)]
    grams = [merging.gram_matrices(linear, m, x, batch_size=20) for m, x in zip(models, inputs, strict=True)]
    result = merging.regmean(models, grams, scale=1.0)
    stacked = np.concatenate(inputs), np.concatenate([x @ m["kernel"] for m, x in zip(models, inputs, strict=True)])
    np.testing.assert_allclose(result["kernel"], np.linalg.lstsq(*stacked, rcond=None)[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result["bias"], (models[0]["bias"] + models[1]["bias"]) / 2, rtol=1e-6)

    shrunk = [np.where(np.eye(3) == 1, 1, 0.9) * g["kernel"].matrix for g in grams]
    expected = np.linalg.solve(
        0.7 * shrunk[0] + 0.3 * shrunk[1], 0.7 * shrunk[0] @ models[0]["kernel"] + 0.3 * shrunk[1] @ models[1]["kernel"]
    )
    np.testing.assert_allclose(merging.regmean(models, grams, [7, 3])["kernel"], expected, rtol=1e-4, atol=1e-5)


def test_regmean_keeps_the_average_where_no_input_is_active_and_equal_grams_average():
    models = [draw(i) for i in range(2)]
    average = (models[0]["kernel"] + models[1]["kernel"]) / 2
    dead = X * np.array([1, 0, 1], np.float32)
    grams = [merging.gram_matrices(linear, m, dead * scale) for m, scale in zip(models, (1, 3), strict=True)]
    result = merging.regmean(models, grams)["kernel"]
    np.testing.assert_allclose(result[1], average[1], rtol=1e-6)
    assert not np.allclose(result[0], average[0], rtol=1e-2)
    np.testing.assert_allclose(merging.regmean(models, grams[:1] * 2)["kernel"], average, rtol=1e-5)


def test_regmean_of_several_axes_and_the_other_layout():
    """The sums run over `axes`, wherever they stand."""
    models = [{"w": RNG.normal(size=(4, 2, 3)).astype(np.float32)} for _ in range(2)]
    x = [RNG.normal(size=(40, 6)) for _ in range(2)]
    grams = [{"w": merging.Gram(a.T @ a, (1, 2))} for a in x]
    result = merging.regmean(models, grams, scale=1.0)["w"].reshape(4, 6).T
    outputs = np.concatenate([a @ m["w"].reshape(4, 6).T for a, m in zip(x, models, strict=True)])
    np.testing.assert_allclose(result, np.linalg.lstsq(np.concatenate(x), outputs, rcond=None)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["fisher_merge", "regmean"])
def test_entries_equal_in_all_models_stay_bit_for_bit(method):
    models = [draw(i) for i in range(2)]
    models[1]["kernel"][:2] = models[0]["kernel"][:2]
    if method == "regmean":
        result = merging.regmean(models, [merging.gram_matrices(linear, m, X * (i + 1)) for i, m in enumerate(models)])
    else:
        result = merging.fisher_merge(models, [jax.tree.map(np.square, m) for m in models])
    np.testing.assert_array_equal(result["kernel"][:2], models[0]["kernel"][:2])
    assert not np.array_equal(result["kernel"][2], models[0]["kernel"][2])


BASE = jax.tree.map(np.zeros_like, PARAMS) | {"steps": np.int32(3)}
INPUTS = [X, RNG.normal(size=(7, 3)).astype(np.float32)]


@pytest.fixture
def optax_arithmetic():
    """Adam promotes dtypes."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def learned(layerwise, tasks, **kwargs):
    models = [draw(i) | {"steps": np.int32(4)} for i in range(2)]
    models[0]["bias"][0] = models[1]["bias"][0] = 0
    result = merging.adamerging(
        tasks,
        models,
        BASE,
        INPUTS,
        key=jax.random.key(0),
        layerwise=layerwise,
        steps=40,
        optimizer=optax.adam(0.05),
        **kwargs,
    )
    assert result.entropies.shape == (40,) and result.entropies[-5:].mean() < result.entropies[:5].mean() - 0.1
    assert result.params["steps"] == 3 and result.params["bias"][0] == 0
    return result, {
        name: sum(c * model[name] for c, model in zip(result.coefficients[name], models, strict=True))
        for name in PARAMS
    }


@pytest.mark.slow
@pytest.mark.usefixtures("optax_arithmetic")
@pytest.mark.parametrize("layerwise", [False, True])
def test_adamerging_lowers_the_entropy_and_returns_its_coefficients(layerwise):
    result, expected = learned(layerwise, linear)
    for name in PARAMS:
        np.testing.assert_allclose(result.params[name], expected[name], rtol=1e-4, atol=1e-5)
    assert np.array_equal(result.coefficients["bias"], result.coefficients["kernel"]) is not layerwise


@pytest.mark.slow
@pytest.mark.usefixtures("optax_arithmetic")
def test_adamerging_takes_a_network_for_each_task_and_leaves_anchors():
    other = networks.Stateful(lambda *_: None, lambda params, state, x: linear(params, x)[:, :2] * state)
    mask = {"kernel": RNG.random((3, 4)) > 0.5, "bias": np.bool_(True), "steps": np.bool_(True)}
    result, expected = learned(True, [linear, other], states=[(), jnp.float32(2)], mask=mask)
    keep = mask["kernel"]
    np.testing.assert_array_equal(result.params["kernel"][~keep], 0)
    np.testing.assert_allclose(result.params["kernel"][keep], expected["kernel"][keep], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result.params["bias"], expected["bias"], rtol=1e-4, atol=1e-5)
    assert not np.array_equal(result.coefficients["bias"], result.coefficients["kernel"])


def test_adamerging_learns_on_models_with_their_anchors():
    """What is evaluated while learning is what is returned: task vectors are 0 under the mask."""
    (column,) = columns_of(
        [{"w": np.ones(3)}, {"w": np.full(3, 2.0)}], {"w": np.zeros(3)}, {"w": np.array([True, False, True])}
    )
    np.testing.assert_array_equal(_vectors(column), [[1, 0, 1], [2, 0, 2]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: merging.fisher_information(linear, PARAMS, X[:0]), "at least one input"),
        (lambda: merging.fisher_information(linear, PARAMS, X, batch_size=0), "at least 1"),
        (lambda: merging.fisher_information(linear, PARAMS, X, labels=np.array([0, 1, 2, 3, -1])), "1 labels below 0"),
        (lambda: merging.fisher_information(linear, PARAMS, X, labels=np.array([0, 1, 2, 3, 4])), "there are 4 classes"),
        (lambda: merging.fisher_information(linear, PARAMS, X, labels=np.zeros((5, 1), int)), r"expected labels \(5,\)"),
        (lambda: merging.fisher_information(linear, PARAMS, X, labels=np.zeros(5)), "classes are integers"),
        (lambda: merging.fisher_merge([PARAMS], []), "one Fisher information for each of the 1 models"),
        (lambda: merging.fisher_merge([PARAMS], [jax.tree.map(lambda p: p * np.nan, PARAMS)]), "bias must be finite"),
        (lambda: merging.fisher_merge([PARAMS], [{"bias": 1}]), "in the first model but not in the Fisher information 0: kernel"),
        (lambda: merging.gram_matrices(linear, PARAMS, X[:0]), "at least one input"),
        (lambda: merging.regmean([PARAMS], [{}], scale=2), r"scale must be in \[0, 1\], got 2"),
        (lambda: merging.regmean([PARAMS], []), "of the same layers for each of the 1 models"),
        (lambda: merging.regmean([PARAMS], [{"v": merging.Gram(np.eye(3), (0,))}]), "do not have: v"),
        (lambda: merging.regmean([PARAMS], [{"kernel": merging.Gram(np.eye(4), (0,))}]), "kernel do not fit its shape"),
        (lambda: merging.adamerging(linear, [PARAMS], PARAMS, [], key=jax.random.key(0)), "inputs for every task"),
        (lambda: merging.adamerging([linear], [PARAMS], PARAMS, [X, X], key=jax.random.key(0)), "got 1, 2 and 2"),
        (lambda: merging.adamerging(linear, [PARAMS], PARAMS, [X[:0]], key=jax.random.key(0)), "at least one input of every"),
    ],
)  # fmt: skip
def test_what_is_not_possible_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.usefixtures("optax_arithmetic")
def test_adamerging_with_a_class_that_cannot_occur_is_adamerging_without_it():
    def masked(params, x):
        return jnp.concatenate([linear(params, x), jnp.full((len(x), 1), -jnp.inf)], axis=1)

    found = [
        merging.adamerging(
            network, [draw(0), draw(1)], jax.tree.map(np.zeros_like, PARAMS), [X], key=jax.random.key(0), steps=3
        )
        for network in (linear, masked)
    ]
    np.testing.assert_allclose(found[1].entropies, found[0].entropies, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found[1].params, found[0].params)


@pytest.mark.usefixtures("optax_arithmetic")
def test_adamerging_finds_the_bases_leaves_by_their_paths():
    """A base whose leaves of one shape stand in another order than those of the models."""
    Layers = collections.namedtuple("Layers", ["b", "a"])

    def network(params, x):
        return jnp.tanh(x @ params["a"]) @ params["b"]

    models = [{name: np.float32(RNG.normal(size=(3, 3))) for name in "ab"} for _ in range(2)]
    base = {name: np.float32(RNG.normal(size=(3, 3))) for name in "ab"}
    found = [
        merging.adamerging(network, models, start, [X], key=jax.random.key(0), steps=3)
        for start in (base, Layers(b=base["b"], a=base["a"]))
    ]
    np.testing.assert_array_equal(found[1].entropies, found[0].entropies)
    jax.tree.map(np.testing.assert_array_equal, found[1].params, found[0].params)
