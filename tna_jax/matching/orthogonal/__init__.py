"""Transformers whose residual stream is rotated, not only renamed: orthogonal alignment, after arXiv 2506.22712.

    spec = matching.permutation_spec(network, params, inputs)
    match = orthogonal_matching(spec, a, b, norms=NORMS["vit"])
    average = line(match.reference, match.params, 0.5)           # runs in the same network

A norm before every layer that reads the stream makes it free: what is written may be turned by any orthogonal matrix, if what
reads is turned back. `declarations` are those of our networks, `streams` is where a stream stands in the parameters, `norm_form` takes scales and biases out of the norms, `rotations`
turns, `alignment` is the search, `tied` is for networks whose head is the words' embeddings.
"""

from tna_jax.matching.orthogonal.alignment import OrthogonalMatching, orthogonal_matching
from tna_jax.matching.orthogonal.declarations import LAYER_SCALES, NORMS, Norms
from tna_jax.matching.orthogonal.norm_form import norm_form
from tna_jax.matching.orthogonal.streams import ResidualStream, residual_stream
from tna_jax.matching.orthogonal.tied import untied, untied_params

__all__ = [
    "LAYER_SCALES", "NORMS", "Norms", "OrthogonalMatching", "ResidualStream", "norm_form", "orthogonal_matching", "residual_stream", "untied",
    "untied_params",
]  # fmt: skip
