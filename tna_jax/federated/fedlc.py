"""FedLC (Zhang et al. 2022, arXiv 2209.00189): logits are calibrated by how often a client has each class."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from tna_jax.federated.algorithm import Algorithm, Context


@dataclasses.dataclass(frozen=True)
class FedLC(Algorithm):
    """Training logits `- tau n_y^(-1/4)` (equation 7), n_y the client's number of examples of class y.

    A class that the client does not have is left out of its softmax, the limit of the rule for n_y -> 0 (ours).

    Attributes:
      tau: strength of the calibration.
    """

    title: ClassVar[str] = "FedLC"
    paper: ClassVar[str] = "2209.00189"
    needs_classes: ClassVar[bool] = True
    tau: float = 1.0

    def logits(self, logits: jax.Array, context: Context) -> jax.Array:
        counts = context.class_counts
        margin = self.tau * jnp.maximum(counts, jnp.float32(1)) ** jnp.float32(-0.25)
        return jnp.where((counts > 0)[None], logits - margin[None], jnp.float32(-1e9))
