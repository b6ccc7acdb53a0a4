"""Laws of the line, the plane and the simplex, bit for bit where they hold so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.xla_flags import NO_FLOAT16
from tna_jax import interpolation, line, uniform_soup, weighted_average
from tna_jax.interpolation import plane, simplex


def tree(seed: int, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return {"a": jnp.asarray(rng.normal(size=(3, 4)), dtype), "b": {"c": jnp.asarray(rng.normal(size=5), dtype)}}


def same_bits(x, y) -> bool:
    pairs = zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)
    return all(p.dtype == q.dtype and np.asarray(p).tobytes() == np.asarray(q).tobytes() for p, q in pairs)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, pytest.param(jnp.float16, marks=NO_FLOAT16)])
def test_the_ends_of_a_line_are_the_models_bit_for_bit(dtype):
    a, b = tree(0, dtype), tree(1, dtype)
    a["a"] = a["a"].at[0, 0].set(-0.0)
    b["a"] = b["a"].at[0, 0].set(jnp.inf)
    assert same_bits(line(a, b, 0.0), a)
    assert same_bits(line(a, b, 1.0), b)
    assert not same_bits(line(a, b, 0.5), a)


def test_a_line_between_equal_models_is_that_model_and_rounding_would_show():
    a = tree(0)
    assert same_bits(line(a, a, 0.3), a)
    naive = jax.tree.map(lambda x: (1 - jnp.float32(0.3)) * x + jnp.float32(0.3) * x, a)
    assert not same_bits(naive, a)  # the control: averaging equal numbers does move them


def test_half_precision_is_interpolated_in_float32():
    a, b = {"w": jnp.array([1.0], jnp.bfloat16)}, {"w": jnp.array([1.0078125], jnp.bfloat16)}
    expected = (np.float32(0.75) * np.float32(1) + np.float32(0.25) * np.float32(1.0078125)).astype(jnp.bfloat16)
    assert line(a, b, 0.25)["w"][0] == expected


def test_hand_written_points():
    a, b, c = ({"w": jnp.array([x, y])} for x, y in ((0.0, 4.0), (8.0, 4.0), (0.0, 0.0)))
    assert line(a, b, 0.25)["w"].tolist() == [2.0, 4.0]
    assert interpolation.plane(a, b, c, 0.5, 0.25)["w"].tolist() == [4.0, 3.0]
    assert interpolation.simplex([a, b, c], [0.25, 0.5, 0.25])["w"].tolist() == [4.0, 3.0]


def test_corners_of_plane_and_simplex_are_the_models():
    models = [tree(0), tree(1), tree(2)]
    for corner, (x, y) in zip(models, ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)), strict=True):
        assert same_bits(interpolation.plane(*models, x, y), corner)
    for i, model in enumerate(models):
        assert same_bits(interpolation.simplex(models, np.eye(3)[i]), model)
    assert same_bits(interpolation.simplex([models[0]] * 3, [0.3, 0.3, 0.4]), models[0])


def test_a_mixture_of_stacked_models_is_the_simplex_of_them():
    models = [tree(0), tree(1), tree(2)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *models)
    for weights in ([0.2, 0.5, 0.3], [0.0, 1.0, 0.0], [2.0, -0.5, -0.5]):
        w = jnp.array(weights)
        assert same_bits(interpolation.mixture(stacked, w), interpolation.simplex(models, w))
    assert not same_bits(interpolation.mixture(stacked, jnp.array([0.2, 0.5, 0.3])), models[1])


def test_anchors_of_a_mixture_are_copied():
    anchors = np.random.default_rng(0).normal(size=100).astype(np.float32)
    stacked = {"w": np.stack([np.append(anchors, np.float32(i)) for i in range(7)])}
    weights = np.full(7, 1 / 7, np.float32)
    made = np.asarray(jax.jit(interpolation.mixture)(stacked, weights)["w"])
    np.testing.assert_array_equal(made[:-1], anchors)
    assert made[-1] == pytest.approx(3)
    averaged = (weights.reshape(7, 1) * stacked["w"]).sum(0)[:-1]
    assert (averaged != anchors).any()  # the control: averaging equal numbers moves them


def test_integers_are_taken_from_the_first_model():
    a, b = {"w": jnp.zeros(1), "step": jnp.int32(3)}, {"w": jnp.ones(1), "step": jnp.int32(5)}
    assert line(a, b, 0.5)["step"] == 3
    both = {"w": jnp.zeros((2, 1)), "step": jnp.array([3, 5])}
    assert interpolation.mixture(both, jnp.array([0.5, 0.5]))["step"] == 3


def test_trees_that_do_not_fit_are_refused_with_every_path():
    a = tree(0)
    b = {"a": jnp.zeros((4, 3)), "b": {"d": jnp.zeros(5)}}
    with pytest.raises(ValueError, match=r"b/c.*b/d.*a \(other model \(4, 3\), first model \(3, 4\)\)"):
        line(a, b, 0.5)
    with pytest.raises(ValueError, match="one weight for each"):
        interpolation.simplex([a], [0.5, 0.5])


@jax.jit
def derivatives(a, b, alpha):
    """Of a sum of sines along the line, by the library and by the formula; and of one over the simplex, by its weights."""

    def loss(a, b, t):
        return jnp.sum(jnp.sin(line(a, b, t)["w"]))

    def plain(a, b, t):
        return jnp.sum(jnp.sin((1 - t) * a["w"] + t * b["w"]))

    weights, models = jnp.stack([1 - alpha, alpha, jnp.float32(0)]), [a, b, {"w": jnp.full(3, 7.0)}]
    on_the_simplex = (
        lambda w: jnp.sum(jnp.sin(interpolation.simplex(models, w)["w"])),
        lambda w: jnp.sum(jnp.sin(sum(w[i] * m["w"] for i, m in enumerate(models)))),
    )
    return [jax.grad(f, (0, 1, 2))(a, b, alpha) for f in (loss, plain)], [jax.grad(f)(weights) for f in on_the_simplex]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_derivatives_are_those_of_the_formula_at_the_ends_too(alpha):
    """And between equal models, where the entry is copied. Sums of three products round by the size of their terms, which may cancel."""
    of_terms = 4 * np.finfo(np.float32).eps * 3 * 7  # no entry of a, b, b - a or of the third model is larger than 7
    a, b = ({"w": np.array(w, np.float32)} for w in ([1, 2, 3], [4, 2, -1]))
    on_the_line, (mine, theirs) = derivatives(a, b, np.float32(alpha))
    for found, expected in zip(*map(jax.tree.leaves, on_the_line), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=of_terms)
    np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=of_terms)


def test_float64_stays_float64():
    with jax.enable_x64(True):
        a, b = {"w": jnp.array([1.0], jnp.float64)}, {"w": jnp.array([2.0], jnp.float64)}
        assert float(interpolation.simplex([a, b], [0.9, 0.1])["w"][0]) == pytest.approx(1.1, abs=1e-15)


def test_several_alphas_are_not_broadcast_into_the_weights():
    with pytest.raises(ValueError, match=r"alpha is one number, got the shape \(2,\)"):
        line({"w": np.zeros(2)}, {"w": np.ones(2)}, np.array([0.5, 0.2]))
    with pytest.raises(ValueError, match="alpha is a real number"):  # whose imaginary part was dropped
        line({"w": np.zeros(2)}, {"w": np.ones(2)}, 0.5j)


@pytest.mark.parametrize(
    ("other", "message"),
    [(np.float32(5), r"w \(other model \(\), first model \(3,\)\)"), (np.ones(3, jnp.bfloat16), "w .*bfloat16")],
    ids=["a number for a leaf", "another dtype"],
)
def test_a_leaf_of_another_shape_or_dtype_is_not_broadcast_or_cast(other, message):
    a = {"w": np.zeros(3, np.float32)}
    for call in (lambda b: line(a, b, 0.5), lambda b: interpolation.simplex([a, b], [0.5, 0.5])):
        with pytest.raises(ValueError, match=message):
            call({"w": other})


def test_complex_models_are_averaged_in_both_parts():
    """Every average and place between models, against NumPy; an entry that all share is copied, and slopes are those of the formula."""
    rng = np.random.default_rng(0)
    drawn = (rng.normal(size=(3, 5)) + 1j * rng.normal(size=(3, 5))).astype(np.complex64)
    drawn[:, 0] = 0.1 + 0.7j
    models, weights = [{"w": jnp.asarray(row)} for row in drawn], np.array([0.2, 0.5, 0.3], np.float32)
    expected = (weights[:, None] * drawn).sum(0)
    for found in (simplex(models, weights), weighted_average(models, weights), plane(*models, 0.5, 0.3)):
        np.testing.assert_allclose(found["w"], expected, atol=1e-6)
        assert found["w"].dtype == np.complex64 and found["w"][0] == drawn[0, 0]
    np.testing.assert_allclose(uniform_soup(models)["w"], drawn.mean(0), atol=1e-6)
    corner = simplex(models, [0, 1, 0])["w"]
    assert np.asarray(corner).tobytes() == drawn[1].tobytes()
    _, slope = jax.jvp(lambda v: simplex(models, v)["w"], (jnp.asarray(weights),), (jnp.array([0.0, 1.0, -1.0]),))
    np.testing.assert_allclose(slope, drawn[1] - drawn[2], atol=1e-6)


def test_leaves_that_are_no_arrays_are_named():
    module = {"kernel": jnp.ones(2), "activation": jax.nn.relu}
    for between in (lambda: line(module, module, 0.5), lambda: simplex([module, module], [0.5, 0.5])):
        with pytest.raises(TypeError, match=r"not arrays: activation\. Give the trainable part: eqx.filter"):
            between()
