"""Beta, cosine and distance of what was trained, against their formulas by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from tna_jax import checks
from tna_jax.masks import beta, trained_cosine, trained_distance

A = {"kernel": jnp.array([[3.0, 100.0], [4.0, 2.0]]), "norm": jnp.ones(2)}
B = {"kernel": jnp.array([[4.0, 100.0], [-3.0, 2.0]]), "norm": jnp.ones(2)}
MASK = {"kernel": jnp.array([[True, False], [True, False]]), "norm": jnp.ones(2, bool)}


def test_by_hand():
    assert beta(A, MASK) == {"kernel": pytest.approx(5 / np.sqrt(100**2 + 4))}
    assert trained_cosine(A, B, MASK, "kernel") == 0 and trained_distance(A, B, MASK) == pytest.approx(np.sqrt(50))
    assert trained_cosine(A, B, MASK) == pytest.approx(2 / 27)  # the norms are equal in both
    assert trained_cosine(A, A) == pytest.approx(1) and trained_distance(A, A) == 0
    assert trained_cosine(A, B, where="kernel") == pytest.approx(10004 / 10029)


def test_edges():
    soft = {"kernel": jnp.array([[1.0, 0.2], [1.0, 0.2]]), "norm": jnp.ones(2)}
    assert beta(A, soft) == beta(A, MASK)
    nothing = {"kernel": jnp.zeros((2, 2)), "norm": jnp.zeros(2)}
    assert trained_cosine(A, nothing) == 0 and np.isnan(beta(nothing, MASK)["kernel"]) == 0
    with pytest.raises(ValueError, match="selects no leaf"):
        trained_cosine(A, B, where="bias")
    with pytest.raises(ValueError, match="second model"):
        trained_distance(A, {"kernel": B["kernel"]})


def test_a_comparison_of_anchors_needs_two_models_of_one_dtype():
    model, mask = {"w": np.zeros(3, np.float32)}, {"w": np.zeros(3, bool)}
    for models, message in (([], "got 0 in a list"), ([model], "got 1 in a list"), (model, "got dict")):
        with pytest.raises(TypeError, match=f"compares two or more models, a list of them: {message}"):
            checks.anchors_shared(models, mask)
    for other in (np.float32(0), np.zeros(3, np.float16)):
        with pytest.raises(ValueError, match="the other model does not fit the first model; .*w"):
            checks.anchors_shared([model, {"w": other}], mask)
    checks.anchors_shared([model, model], mask)


def test_a_distance_is_computed_in_64_bits():
    """Of float16 the difference overflows, of bfloat16 it rounds."""
    for dtype, a, b in ((jnp.float16, 6e4, -6e4), (jnp.bfloat16, 256, 1.0078125)):
        far, near = ({"w": jnp.array([x, 0], dtype)} for x in (a, b))
        exact = abs(float(far["w"][0]) - float(near["w"][0]))
        assert trained_distance(far, near) == pytest.approx(exact, rel=1e-9)
