"""How good the server's model is: every test example once, spread over all devices."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree, Shaped

from tna_jax import labels as labels_lib
from tna_jax import metrics, networks, program_cache, sharding
from tna_jax import placement as placement_lib
from tna_jax.federated.algorithm import ClientState
from tna_jax.federated.federation import Federation, Server
from tna_jax.masks import Params
from tna_jax.metrics import AnyMetrics
from tna_jax.networks import Network, State
from tna_jax.objectives import Objective


class TestSet:
    """Test examples on the devices, padded under a mask and cut into batches."""

    __test__ = False

    @sharding.outside_meshes
    def __init__(
        self,
        inputs: PyTree[Shaped[np.ndarray, "..."]],
        labels: PyTree[Shaped[np.ndarray, "..."]],
        batch_size: int = 500,
    ):
        """Places (N, ...) inputs and (N,) labels, or other targets (N, ...); any pytrees."""
        labels_lib.check_numeric(labels, "the test set has ")
        count = len(jax.tree.leaves(labels)[0])
        self.targets = labels
        self.mesh = placement_lib.mesh()
        share = -(-count // self.mesh.size)
        batch = min(batch_size, share)
        total = -(-share // batch) * batch * self.mesh.size
        rows = np.minimum(np.arange(total), count - 1)
        weight = (np.arange(total) < count).astype(np.float32)

        def cut(array: np.ndarray) -> np.ndarray:
            return array.reshape(self.mesh.size, -1, batch, *array.shape[1:])

        self.batches = placement_lib.shard(
            (*jax.tree.map(lambda x: cut(x[rows]), (inputs, labels)), cut(weight)), self.mesh
        )


@sharding.outside_meshes
def evaluate(federation: Federation, server: Server, client_states: ClientState, test: TestSet) -> AnyMetrics:
    """Computes the objective's metrics of the server's model on the test set: sums, NumPy scalars.

    Args:
      federation: what all parties agree on.
      server: its state.
      client_states: (N, ...) what clients keep; read under the policy `local` only.
      test: the test examples.

    Under the policy `local` the running statistics are each client's in turn, and the sums are over all of them.
    """
    if federation.objective.classes:
        labels_lib.check_labels(test.targets, len(test.targets), "the test set has ", federation.num_classes)
    if federation.norm != "local":
        return _evaluate_model(federation, server.params, server.state, test)
    by_client = [
        _evaluate_model(federation, server.params, jax.tree.map(lambda x, k=k: x[k], client_states.state), test)
        for k in range(federation.clients)
    ]
    return functools.reduce(metrics.merge, by_client)


def _evaluate_model(federation: Federation, params: Params, state: State, test: TestSet) -> AnyMetrics:
    params, state = placement_lib.replicate((params, state), test.mesh)
    batches = test.batches[-1].shape[1]
    step = _step(federation.network, federation.objective, test.mesh)
    parts = [step(test.batches, params, state, np.int32(i)) for i in range(batches)]
    sums = [jax.tree.map(np.sum, placement_lib.to_host(part)) for part in parts]
    merged: AnyMetrics = functools.reduce(metrics.merge, sums)
    return merged


@program_cache.by_contents()
def _step(network: Network, objective: Objective, mesh: Mesh) -> Callable[..., AnyMetrics]:
    def batch_metrics(share: Any, params: Params, state: State, number: jax.Array) -> AnyMetrics:
        batch = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, number, keepdims=False), share)
        inputs, targets, weight = batch
        return objective.sums(networks.evaluate(network, params, state, inputs), targets, weight)

    step: Callable[..., AnyMetrics] = jax.jit(placement_lib.shard_map_single(batch_metrics, mesh, 3))
    return step
