"""What the options of `tna federate` stand for, and how many clients at once fit the memory."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax.federated import client_groups
from tna_jax.federated.faults import asked
from tna_jax.federated.federation import Federation
from tna_jax.programs.data import Dataset, Split
from tna_jax.programs.federate import health
from tna_jax.programs.federate.options import FederateOptions
from tna_jax.programs.system import memory


class Prepared(NamedTuple):
    """What the options stand for."""

    data: Dataset
    train: Split
    """What the clients share: the training split, without proxy data."""
    proxy: Any
    """(P, ...) the server's, `()` for none."""
    federation: Federation
    init: Any
    """A key to (params, state)."""
    owners: Any = None
    """(N,) whose each training example is, of natural clients."""
    head: Any = None
    """A mask in which the last layer is live, where it is asked for."""

    @property
    def classes(self) -> int:
        """The number of classes, 0 for objectives other than classification."""
        return self.data.num_classes if self.federation.objective.classes else 0

    @property
    def guessing(self) -> float:
        """The loss of a model that answers every input alike; NaN if it is unknown."""
        return health.loss_of_guessing(self.federation.objective, self.data.num_classes, self.data.test.labels)

    @property
    def chance(self) -> float:
        """The accuracy of a model that answers every input alike, at best; NaN for objectives other than classification."""
        counts = np.unique(self.data.test.labels, return_counts=True)[1] if self.classes else np.array([np.nan])
        return float(counts.max() / counts.sum())


def group_size(prepared: Prepared, settings: FederateOptions) -> int:
    """Returns how many clients at once, over all devices, fit the memory; predicted from shapes, see `tna_jax.programs.system.memory`.

    Between rounds the CPU's memory holds every client's state and a few copies of the server's model.
    """
    federation = prepared.federation
    params, state = jax.eval_shape(prepared.init, jax.random.key(0))
    data = (prepared.train.images, prepared.train.labels)
    placement = client_groups.resolve(federation, params, state, data[0])
    client_memory = jax.eval_shape(
        lambda: federation.algorithm.init_client(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), params))
    )
    working = memory.working(federation.network, params, state, federation.batch_size, data[0])
    copies = 3 + (federation.momentum > 0)  # parameters, gradient's move, update, momentum
    largest = len(data[1]) if settings.partition == "dirichlet" else -(-len(data[1]) // settings.clients)
    kept = (
        copies * memory.size(params)
        + 3 * memory.size(client_memory)
        + 2 * memory.size(state)
        + 4 * largest * (federation.epochs + 1)
    )
    estimate = memory.Estimate(kept, working, memory.size(data))
    sampled = min(asked(settings.clients, settings.participation), client_groups.GROUP)
    host = settings.clients * (memory.size(client_memory) + memory.size(state)) + 4 * memory.size(params)
    return memory.at_once(sampled, estimate, placement, memory.available(settings.memory_limit), host)
