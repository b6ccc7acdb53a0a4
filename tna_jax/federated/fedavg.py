"""FedAvg (McMahan et al. 2017, arXiv 1602.05629): local SGD, then the average by numbers of examples."""

import dataclasses

from tna_jax.federated.algorithm import Algorithm


@dataclasses.dataclass(frozen=True)
class FedAvg(Algorithm):
    """`w_g <- sum_k n_k / n w_k`, as a step of a server optimizer along `sum_k n_k / n (w_k - w_g)`."""
