"""Matching of trained networks: which permutation of one network's hidden units brings it nearest to another network.

    from tna_jax import matching

    spec = matching.permutation_spec(network, params, inputs)      # found by tracing the network: no table written by hand
    match = matching.weight_matching(spec, a, b)                   # Git Re-Basin, arXiv 2209.04836
    average = line(a, match.params, 0.5)

A file holds one idea: `axes` (what an axis holds), `unification` and `tracing` (which axes are the same units), `jaxprs` (the walk over
a program), `layers` (dense and convolutional layers found there), `permutations`, `assignment`, `ascent` (what all matchings
climb by), `gains` and `weights`, `correlations` and `activations`, `similarity`, `many` and `synchronized`, `heads`, `orthogonal`
(rotations of a Transformer's residual stream).
"""

from tna_jax.matching.activations import activation_matching
from tna_jax.matching.assignment import Matching
from tna_jax.matching.heads import HeadMatching, apply_head_permutation, head_matching, nests
from tna_jax.matching.many import Merged, match_to_first, merge_many
from tna_jax.matching.orthogonal.alignment import OrthogonalMatching, orthogonal_matching
from tna_jax.matching.permutations import (
    Permutation,
    PermutationSpec,
    apply_permutation,
    check_function,
    function_gap,
    identity,
    inverse,
    permutation_spec,
    permute_state,
    random_permutation,
)
from tna_jax.matching.similarity import UnitCorrelations
from tna_jax.matching.weights import weight_matching

__all__ = [
    "HeadMatching", "Matching", "Merged", "OrthogonalMatching", "Permutation", "PermutationSpec", "UnitCorrelations", "activation_matching", "apply_head_permutation",
    "apply_permutation", "check_function", "function_gap", "head_matching", "identity", "inverse", "match_to_first", "merge_many",
    "nests", "orthogonal_matching", "permutation_spec", "permute_state", "random_permutation", "weight_matching",
]  # fmt: skip
