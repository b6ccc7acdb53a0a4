"""Factorizations and solutions of matrices: the axes of the matrices are fixed, those of batches pass."""

from typing import TYPE_CHECKING, Any

from tna_jax.matching.axes import Axis, Fixed
from tna_jax.matching.operations.table import operation
from tna_jax.matching.values import AxisInfo

if TYPE_CHECKING:
    from tna_jax.matching.tracing import AxisPropagation


@operation("cholesky", "cholesky_update", "eig", "eigh", "geqrf", "hessenberg", "householder_product", "lu", "lu_pivots_to_permutation",
           "orgqr", "qr", "schur", "svd", "triangular_solve", "tridiagonal", "tridiagonal_solve",
           family="Linear algebra", law="axes of matrices are fixed, those of batches pass")  # fmt: skip
def matrices(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> list[tuple[Axis, ...]]:
    """Returns the axes of batches, which all operands share, and fixed ones."""
    count = min(max(len(value.axes) - 2, 0) for value in inputs)
    if not all(value.axes[:count] for value in inputs):
        count = 0
    for value in inputs:
        for axis in value.axes[count:]:
            walk.fix(axis)
    batch = list(inputs[0].axes[:count])
    for value in inputs[1:]:
        batch = [walk.unify(p, q) for p, q in zip(batch, value.axes[:count], strict=True)]
    return [(*batch, *map(Fixed, variable.aval.shape[count:])) for variable in equation.outvars]
