"""How good the server's model is: every test example once, spread over all devices."""

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int, Shaped

from tna_jax import metrics, networks
from tna_jax import placement as placement_lib
from tna_jax.federated.algorithm import ClientState
from tna_jax.federated.federation import Federation, Server
from tna_jax.masks import Params
from tna_jax.metrics import Metrics
from tna_jax.networks import Network, State


class TestSet:
    """Test examples on the devices, padded under a mask and cut into batches."""

    __test__ = False

    def __init__(self, inputs: Shaped[np.ndarray, "N ..."], labels: Int[np.ndarray, " N"], batch_size: int = 500):
        """Places (N, ...) inputs and (N,) labels."""
        self.mesh = placement_lib.mesh()
        share = -(-len(labels) // self.mesh.size)
        batch = min(batch_size, share)
        total = -(-share // batch) * batch * self.mesh.size
        rows = np.minimum(np.arange(total), len(labels) - 1)
        weight = (np.arange(total) < len(labels)).astype(np.float32)

        def cut(array: np.ndarray) -> np.ndarray:
            return array.reshape(self.mesh.size, -1, batch, *array.shape[1:])

        self.batches = placement_lib.shard((cut(inputs[rows]), cut(labels[rows]), cut(weight)), self.mesh)


def evaluate(federation: Federation, server: Server, client_states: ClientState, test: TestSet) -> Metrics:
    """Computes loss and accuracy of the server's model on the test set: sums, NumPy scalars.

    Args:
      federation: what all parties agree on.
      server: its state.
      client_states: (N, ...) what clients keep; read under the policy `local` only.
      test: the test examples.

    Under the policy `local` the running statistics are each client's in turn, and the sums are over all of them.
    """
    if federation.norm != "local":
        return _evaluate_model(federation, server.params, server.state, test)
    by_client = [
        _evaluate_model(federation, server.params, jax.tree.map(lambda x, k=k: x[k], client_states.state), test)
        for k in range(federation.clients)
    ]
    return functools.reduce(metrics.merge, by_client)


def _evaluate_model(federation: Federation, params: Params, state: State, test: TestSet) -> Metrics:
    params, state = placement_lib.replicate((params, state), test.mesh)
    batches = test.batches[0].shape[1]
    step = _step(federation.network, test.mesh)
    parts = [step(test.batches, params, state, np.int32(i)) for i in range(batches)]
    sums = [Metrics(*(np.sum(x) for x in placement_lib.to_host(part))) for part in parts]
    return functools.reduce(metrics.merge, sums)


@functools.lru_cache(maxsize=32)
def _step(network: Network, mesh: Mesh) -> Callable[..., Metrics]:
    def batch_metrics(share: tuple[jax.Array, ...], params: Params, state: State, number: jax.Array) -> Metrics:
        inputs, labels, weight = (jax.lax.dynamic_index_in_dim(x, number, keepdims=False) for x in share)
        return metrics.classification(networks.evaluate(network, params, state, inputs), labels, weight)

    step: Callable[..., Metrics] = jax.jit(placement_lib.shard_map_single(batch_metrics, mesh, 3))
    return step
