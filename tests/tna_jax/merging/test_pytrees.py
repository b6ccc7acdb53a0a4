"""Merging whole models: trees of NumPy and JAX arrays, masks, scopes, and trees that do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tna_jax import masks, merging

RNG = np.random.default_rng(0)


def model(shift=0.0, wrap=np.asarray):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    return {
        "layer": {"kernel": wrap(values + np.float32(shift)), "bias": wrap(np.full(3, shift, np.float16))},
        "steps": wrap(np.int32(7)),
    }


@pytest.mark.parametrize("wrap", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_leaves_keep_kind_dtype_and_structure(wrap):
    result = merging.merge("average", [model(0, wrap), model(1, wrap)])
    assert jax.tree.structure(result) == jax.tree.structure(model())
    assert all(isinstance(leaf, type(wrap(np.zeros(1)))) for leaf in jax.tree.leaves(result))
    np.testing.assert_array_equal(result["layer"]["kernel"], model(0.5)["layer"]["kernel"])
    np.testing.assert_array_equal(result["layer"]["bias"], model(0.5)["layer"]["bias"])
    assert result["layer"]["bias"].dtype == np.float16 and result["steps"] == 7


def test_leaves_that_are_not_floating_point_are_the_bases():
    models = [model() | {"steps": np.int32(i)} for i in range(3)]
    assert merging.merge("ties", models[:2], models[2])["steps"] == 2
    assert merging.merge("average", models[1:])["steps"] == 1


def test_what_a_mask_anchors_is_the_bases():
    params = {"w": np.zeros(40, np.float32)}
    mask = masks.bernoulli(jax.random.key(0), params, 0.5)
    models = [{"w": RNG.normal(size=40).astype(np.float32)} for _ in range(2)]
    result = merging.merge("task_arithmetic", models, params, mask=mask)["w"]
    keep = np.asarray(mask["w"])
    np.testing.assert_array_equal(result[~keep], 0)
    assert (result[keep] != 0).all()
    soft = merging.merge("task_arithmetic", models, params, mask=masks.soft(mask, 0.2))["w"]
    np.testing.assert_array_equal(soft, result)
    first = merging.merge("average", models, mask=mask)["w"]
    np.testing.assert_array_equal(first[~keep], models[0]["w"][~keep])


@pytest.mark.parametrize("name", ["slerp", "karcher", "model_stock"])
def test_angles_of_whole_models_are_those_of_all_entries(name):
    base = {"a": np.zeros(5, np.float32), "b": np.zeros((2, 2), np.float32), "n": np.int32(0)}
    models = [{"a": 1 + RNG.normal(size=5), "b": 1 + RNG.normal(size=(2, 2)), "n": 0} for _ in range(2)]
    models = [jax.tree.map(lambda x, b: np.asarray(x, b.dtype), m, base) for m in models]
    flat = [{"w": np.concatenate([m["a"], m["b"].ravel()])} for m in [base, *models]]
    together = merging.merge(name, flat[1:], flat[0])["w"]
    whole = merging.merge(name, models, base, scope="model")
    np.testing.assert_allclose(np.concatenate([whole["a"], whole["b"].ravel()]), together, rtol=1e-6, atol=1e-7)
    assert not np.allclose(merging.merge(name, models, base)["a"], whole["a"], rtol=1e-4)


def test_task_vectors_add_up_to_the_model():
    vector = merging.task_vector(model(0.25), model())
    np.testing.assert_array_equal(vector["layer"]["kernel"], np.full((2, 3), 0.25))
    assert vector["layer"]["bias"].dtype == np.float32 and vector["steps"] == 0


def test_trees_that_do_not_fit_are_refused_with_their_paths():
    other = model() | {"extra": np.zeros(1)}
    with pytest.raises(ValueError, match="model 1 but not in the first model: extra"):
        merging.merge("average", [model(), other])
    with pytest.raises(ValueError, match=r"the base does not fit the first model; .*extra"):
        merging.merge("ties", [model()], other)
    half = jax.tree.map(lambda x: x.astype(np.float64), model())
    with pytest.raises(ValueError, match=r"layer/kernel \(model 0 float32\[2, 3\], model 1 float64\[2, 3\]\)"):
        merging.merge("average", [model(), half])
    with pytest.raises(ValueError, match=r"real dtype .* w \(model 0 complex64"):
        merging.merge("average", [{"w": np.zeros(2, np.complex64)}])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: merging.merge("tie", [model()]), "unknown merging method 'tie': known are average, slerp"),
        (lambda: merging.merge("ties", [model()]), "ties needs the base"),
        (lambda: merging.merge("ties", [model()], model(), scope="layer"), "scope must be tensor or model, got 'layer'"),
        (lambda: merging.merge("ties", [model()], model(), density=2), r"density must be in \(0, 1\]"),
        (lambda: merging.merge("average", [model()], weights=[1, 2]), "one weight for each of the 1 models"),
        (lambda: merging.merge("average", []), "average merges 1 or more models, got 0"),
    ],
)  # fmt: skip
def test_what_is_not_possible_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_public_names_are_there():
    for name in merging.__all__:
        assert getattr(merging, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'soup'"):
        _ = merging.soup
