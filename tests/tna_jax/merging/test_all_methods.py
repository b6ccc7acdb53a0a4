"""What holds for every method: anchors and masks, dtypes, laws of equal models, order of the inputs, pieces, refusals."""

import ml_dtypes
import numpy as np
import pytest

from tna_jax.merging import METHODS
from tna_jax.merging.tensors import gather_facts, merge_tensor, vectors_of

NAMES = list(METHODS)
DTYPES = [np.float32, np.float16, np.float64, ml_dtypes.bfloat16]
IN_ORDER = {"dare_linear", "dare_ties", "della", "della_linear"}
"""Methods that draw by the model's index, so that the order counts."""


def tensors(name, dtype=np.float32, shape=(12, 8), seed=0):
    """A base, and models whose first three columns are the base's."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=shape).astype(dtype)
    count = METHODS[name].max_models or 3
    drift = rng.normal(size=shape)  # what all have learned, so that task vectors point the same way
    models = [(base.astype(np.float64) + 0.1 * (rng.normal(size=shape) + drift)).astype(dtype) for _ in range(count)]
    for model in models:
        model[:, :3] = base[:, :3]
    return base, models


def run(name, models, base, weights=None, **kwargs):
    method = METHODS[name]
    given = {key: kwargs.pop(key) for key in list(kwargs) if key in {option.name for option in method.options}}
    options = method.check(len(models), base is not None, given)
    return merge_tensor(method, models, base, method.shares(weights, len(models)), options, "layer/kernel", **kwargs)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("name", NAMES)
def test_entries_equal_in_all_stay_bit_for_bit(name, dtype):
    base, models = tensors(name, dtype)
    base[0, 0], bits = -0.0, f"u{base.dtype.itemsize}"
    base[1, 0] = np.nan
    for model in models:
        model[:2, 0] = base[:2, 0]
    merged = run(name, models, base)
    assert merged.dtype == base.dtype
    np.testing.assert_array_equal(merged[:, :3].view(bits), base[:, :3].view(bits))
    assert np.isfinite(merged[:, 3:].astype(np.float32)).all()
    assert not np.array_equal(merged[:, 3:], base[:, 3:])


@pytest.mark.parametrize("name", NAMES)
def test_what_a_mask_anchors_is_copied_from_the_base(name):
    base, models = tensors(name)
    anchored = np.zeros(base.shape, bool)
    anchored[:, 5] = True
    merged = run(name, models, base, anchored=anchored)
    np.testing.assert_array_equal(merged[:, 5], base[:, 5])
    if not METHODS[name].needs_base:
        np.testing.assert_array_equal(run(name, models, None, anchored=anchored)[:, 5], models[0][:, 5])
    assert not np.array_equal(merged[:, 4], base[:, 4])


@pytest.mark.parametrize("name", ["average", "slerp", "karcher"])
def test_equal_models_are_that_model(name):
    _, models = tensors(name)
    np.testing.assert_array_equal(run(name, models[:1] * len(models), None), models[0])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("task_arithmetic", {"strength": 1 / 3}), ("ties", {"density": 1}), ("dare_linear", {"density": 1, "strength": 1 / 3}),
        ("dare_ties", {"density": 1}), ("della", {"density": 1, "epsilon": 0}), ("model_stock", {}), ("sce", {"density": 1}),
        ("della_linear", {"density": 1, "epsilon": 0, "strength": 1 / 3}), ("breadcrumbs", {"density": 1, "gamma": 0, "strength": 1 / 3}),
        ("wudi", {"solver": "exact"}),
    ],
)  # fmt: skip
def test_equal_task_vectors_with_coefficients_of_sum_one_are_that_model(name, options):
    base, models = tensors(name)
    np.testing.assert_allclose(run(name, models[:1] * 3, base, **options), models[0], atol=1e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if METHODS[name].min_models == 1 and name != "iso_c"])
def test_one_model_with_all_of_its_change_is_that_model(name):
    base, models = tensors(name)
    everything = {"density": 1, "epsilon": 0, "gamma": 0, "strength": 1}
    options = {key: value for key, value in everything.items() if key in {o.name for o in METHODS[name].options}}
    np.testing.assert_allclose(run(name, models[:1], base, **options), models[0], atol=1e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in IN_ORDER])
def test_the_order_of_models_does_not_matter(name):
    base, models = tensors(name)
    weights = [0.5, 0.3, 0.2][: len(models)]
    there, back = run(name, models, base, weights), run(name, models[::-1], base, weights[::-1])
    np.testing.assert_allclose(there, back, atol=1e-6)
    assert not np.allclose(there, run(name, models[::-1], base, weights), atol=1e-6) or name in ("model_stock", "wudi")


@pytest.mark.parametrize("name", NAMES)
def test_two_calls_give_the_same_bytes(name):
    base, models = tensors(name)
    copies = [model.copy() for model in models]
    assert run(name, models, base).tobytes() == run(name, models, base).tobytes()
    for model, copy in zip(models, copies, strict=True):
        np.testing.assert_array_equal(model, copy)


@pytest.mark.parametrize("name", [name for name in NAMES if METHODS[name].in_pieces])
def test_pieces_are_merged_as_the_whole(name, monkeypatch):
    base, models = tensors(name)
    whole = run(name, models, base)
    monkeypatch.setattr("tna_jax.merging.tensors.PIECE", 7)
    np.testing.assert_array_equal(run(name, models, base), whole)

    method, flat = METHODS[name], [array.ravel() for array in (base, *models)]
    options = method.check(len(models), True, {})
    cuts = [slice(0, 17), slice(17, 96)]
    facts = gather_facts(
        method, lambda: [vectors_of(method, [m[cut] for m in flat[1:]], flat[0][cut]) for cut in cuts], options
    )
    pieces = [
        merge_tensor(
            method, [m[cut] for m in flat[1:]], flat[0][cut], method.shares(None, len(models)), options, "layer/kernel",
            facts=facts, start=cut.start,
        )
        for cut in cuts
    ]  # fmt: skip
    np.testing.assert_allclose(np.concatenate(pieces), whole.ravel(), rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_tensors_without_entries_scalars_and_integers(name):
    count = METHODS[name].max_models or 2
    empty, scalar, integers = np.zeros((0, 4), np.float32), np.array(1, np.float32), np.arange(3)
    assert run(name, [empty] * count, empty).shape == (0, 4)
    assert run(name, [np.asarray(scalar + np.float32(i)) for i in range(count)], scalar).shape == ()
    np.testing.assert_array_equal(run(name, [integers + i for i in range(count)], integers), integers)


@pytest.mark.parametrize("name", [name for name in NAMES if "strength" in {o.name for o in METHODS[name].options}])
def test_values_that_the_dtype_cannot_hold_are_refused(name):
    base, models = tensors(name, np.float16)
    options = {
        "density": 1,
        **({"epsilon": 0} if "della" in name else {}),
        **({"gamma": 0} if name == "breadcrumbs" else {}),
    }
    known = {option.name for option in METHODS[name].options}
    options = {key: value for key, value in options.items() if key in known}
    with pytest.raises(ValueError, match=r"float16 cannot hold .* use a smaller strength"):
        run(name, models, base, strength=1e7, **options)
    assert np.isinf(run(name, models, base, strength=1e7, refuse_overflow=False, **options)).any()


def test_8_bit_floats_are_merged_in_float32():
    base, models = tensors("ties", ml_dtypes.float8_e4m3fn)
    for name in ("average", "ties", "slerp"):
        merged = run(name, models[:2], base)
        expected = run(name, [m.astype(np.float32) for m in models[:2]], base.astype(np.float32))
        assert merged.dtype == base.dtype
        np.testing.assert_array_equal(merged.view(np.uint8), expected.astype(base.dtype).view(np.uint8))


def test_infinite_inputs_are_not_taken_for_an_overflow():
    a, b = np.array([np.inf, 1], np.float32), np.array([1, 3], np.float32)
    np.testing.assert_array_equal(run("average", [a, b], None), [np.inf, 2])


@pytest.mark.parametrize("name", ["ties", "breadcrumbs", "sce", "dare_ties"])
def test_a_nan_of_one_model_is_not_lost_in_silence(name):
    base, models = tensors(name)
    models[1][2, 5] = np.nan
    options = {"density": 1, **({"gamma": 0} if name == "breadcrumbs" else {})}
    assert np.isnan(run(name, models, base, **options)[2, 5])


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=lambda dtype: np.dtype(dtype).name)
def test_sums_run_in_float32_at_least(dtype):
    base, models = tensors("task_arithmetic", dtype)
    wide = np.float64 if dtype == np.float64 else np.float32
    expected = base.astype(wide) + sum(
        np.array(w, wide) * (m.astype(wide) - base.astype(wide)) for w, m in zip([0.5, 0.25, 0.25], models, strict=True)
    )
    merged = run("task_arithmetic", models, base, [0.5, 0.25, 0.25], strength=1)
    np.testing.assert_array_equal(merged, expected.astype(dtype))
