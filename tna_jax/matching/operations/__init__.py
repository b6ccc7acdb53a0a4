"""The rules of tracing, one file for each kind of operation; `OPERATIONS` is the table of all of them."""

from tna_jax.matching.operations import (  # noqa: F401
    algebra,
    contractions,
    control,
    elementwise,
    lookups,
    opaque,
    parts,
    positions,
    reductions,
    shapes,
)
from tna_jax.matching.operations.table import OPERATIONS, Operation, operation

__all__ = ["OPERATIONS", "Operation", "operation"]
