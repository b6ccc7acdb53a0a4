"""Iso-C: the sum of the task vectors with all its singular values made equal (Marczak et al., arXiv 2502.04959).

For a matrix: `sum_i w_i tau_i = U S V^T`, merged `base + strength * mean(S) U V^T`. Other tensors (biases, norms,
convolutions): `base + strength * mean_i tau_i`, as in the authors' code. Our choice: directions whose singular value is 0
within rounding get none (U and V are arbitrary there), while the mean is over all `min(rows, columns)` of them. Embeddings
are matrices too; leave them out where that is not wanted. Works in either layout, (out, in) or (in, out).
"""

from typing import Any

import numpy as np

from tna_jax.merging.average import combine, shifted
from tna_jax.merging.method import STRENGTH, Array, Context, Method

ZERO = 1e-6
"""Share of the largest singular value below which one is taken for 0."""


def isotropic(matrix: Array) -> Array:
    """Returns a matrix with the singular vectors of `matrix` and the mean of its singular values in place of each that is not 0.

    Computed from the eigenvectors of the smaller Gram matrix in float64: many times quicker than a decomposition of a tall
    matrix, and as accurate for float32 entries.
    """
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    wide = tall.astype(np.float64)
    eigenvalues, v = np.linalg.eigh(wide.T @ wide)
    s = np.sqrt(np.maximum(eigenvalues, 0))
    used = s > ZERO * s.max(initial=0)
    turned = v[:, used] * (s.mean() / s[used]) @ v[:, used].T
    result: Array = (wide @ turned).astype(matrix.dtype)
    return result if tall is matrix else result.T


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
