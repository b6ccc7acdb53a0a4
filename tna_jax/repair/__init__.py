"""Statistics of fused networks: BatchNorm reset, and REPAIR (Jordan et al. 2023, arXiv 2211.08403).

Averaged networks have too little variance in their hidden units. Networks with BatchNorm are mended by estimating the
running statistics again (`reset_batch_stats`); others by rescaling each hidden unit (`repair`).
"""

from typing import TYPE_CHECKING, Any

from tna_jax.repair.statistics import (
    RESET_TOLERANCE,
    add_statistics,
    batch_statistics,
    is_statistic,
    no_statistics,
    reset_batch_stats,
    reset_disagreement,
)

if TYPE_CHECKING:
    from tna_jax.repair.rescaling import Edit, Repaired, repair, repair_line

__all__ = [
    "RESET_TOLERANCE", "Edit", "Repaired", "add_statistics", "batch_statistics", "is_statistic",
    "no_statistics", "repair", "repair_line", "reset_batch_stats", "reset_disagreement",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Imports REPAIR, and with it `tna_jax.matching`, at its first use: paths and training need the statistics alone."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tna_jax.repair import rescaling

    return getattr(rescaling, name)
