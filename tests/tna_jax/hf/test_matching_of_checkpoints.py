"""Encoders as they come from folders, of text and of images: their units are found, permuted, and found again, in half precision too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import slow_but
from tests.tna_jax.hf.small_models import make
from tests.xla_flags import require
from tna_jax import matching, trees

SIZES = {"width": 12, "depth": 1, "heads": 3, "mlp": 24}
INPUTS = {
    "bert": np.arange(10).reshape(2, 5).astype(np.int32),
    "dinov2": np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32),
}
INPUTS["dinov2_with_registers"] = INPUTS["dinov2"]
CASES = [(kind, dtype) for kind in INPUTS for dtype in ("float32", "float16", "bfloat16")]


@pytest.mark.parametrize(("kind", "dtype"), slow_but([("dinov2_with_registers", "float16")], CASES))
@jax.numpy_dtype_promotion("standard")
def test_a_permuted_copy_computes_the_same_and_is_found_again(kind, dtype):
    require(dtype)
    module, params = make(kind, "classes", **SIZES)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.dtype(dtype)), params)

    def network(params, x):
        return module.apply({"params": params}, x)

    spec = matching.permutation_spec(network, params, INPUTS[kind])
    own = {"bert": [12], "dinov2": [], "dinov2_with_registers": [2]}[
        kind
    ]  # a pooler; registers, which have no position
    assert sorted(spec.groups.values()) == sorted([12, 3, 4, 4, 24, *own])
    moved = matching.apply_permutation(spec, matching.random_permutation(spec, jax.random.key(0)), params)
    match = matching.head_matching(spec, params, moved).matching  # which checks that the function is the same
    for (path, leaf), original in zip(trees.named_leaves(match.params), jax.tree.leaves(params), strict=True):
        assert leaf.dtype == dtype and np.asarray(leaf).tobytes() == np.asarray(original).tobytes(), trees.name(path)
