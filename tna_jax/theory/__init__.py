"""Numbers of the theory: how far two-layer networks are from the linear path, and which permutation symmetries anchors leave."""

from tna_jax.theory.symmetries import (
    chance_of_a_swap,
    enumerate_symmetries,
    equivalence_classes,
    expected_count,
    expected_free_units,
    num_symmetries,
    unit_entries,
)
from tna_jax.theory.two_layer import (
    ENTRIES,
    Pair,
    bound,
    bound_of_first_layers,
    bound_of_masks,
    gap,
    gaps,
    sample,
    second_moment,
    unit_moments,
)

__all__ = [
    "ENTRIES", "Pair", "bound", "bound_of_first_layers", "bound_of_masks", "chance_of_a_swap", "enumerate_symmetries",
    "equivalence_classes", "expected_count", "expected_free_units", "gap", "gaps", "num_symmetries", "sample", "second_moment",
    "unit_entries", "unit_moments",
]  # fmt: skip
