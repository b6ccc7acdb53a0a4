"""Iso-C: the sum of the task vectors with all its singular values made equal (Marczak et al., arXiv 2502.04959, "isotropic merging in common subspace").

For a matrix: `sum_i w_i tau_i = U S V^T`, merged `base + strength * mean(S) U V^T`. Other tensors (biases, norms, convolutions): `base + strength * mean_i tau_i`, as in the
authors' code. Our choice: directions whose singular value is 0 within rounding get none (U and V are arbitrary there), while the mean is over all `min(rows,
columns)` of them. Embeddings are matrices too; leave them out where that is not wanted. Works in either layout, (out, in) or (in, out).
"""

from typing import Any

import numpy as np

from tna_jax.merging.average import combine, shifted
from tna_jax.merging.method import STRENGTH, Array, Context, Method


def isotropic(matrix: Array) -> Array:
    """Returns a matrix with the singular vectors of `matrix` and the mean of its singular values in place of each that is not 0."""
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    rank = int(np.count_nonzero(s > s.max(initial=0) * max(matrix.shape) * np.finfo(s.dtype).eps))
    result: Array = s.mean(dtype=s.dtype) * (u[:, :rank] @ vt[:rank])
    return result


def iso_c(
    base: Array | None, vectors: Array, weights: Array, context: Context, /, *, strength: float = 1.0, **options: Any
) -> Array:
    """Adds to the base the isotropic sum of task vectors (M, m, n), or their mean where they are not matrices."""
    assert base is not None
    total = combine(weights, vectors)
    merged = isotropic(total) if base.ndim == 2 and np.isfinite(total).all() else total / total.dtype.type(len(vectors))
    return shifted(base, strength, merged)


METHOD = Method(
    "iso_c", "the sum of the task vectors with equal singular values (matrices; others are averaged)", "2502.04959", iso_c,
    needs_base=True, normalized=False, options=(STRENGTH,), in_pieces=False,
)  # fmt: skip
