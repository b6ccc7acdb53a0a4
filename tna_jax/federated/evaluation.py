"""How good the server's model is: every test example once, spread over all devices."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int, PyTree, Shaped

from tna_jax import labels as labels_lib
from tna_jax import metrics, networks, objectives, program_cache, sharding
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
        """Places (N, ...) inputs and (N,) labels, or other targets (N, ...); any pytrees.

        Raises:
          ValueError: no examples, numbers of inputs and targets that differ, lists or words, or a batch of none.
        """
        objectives.check_batch_size(batch_size)
        if not (count := objectives.check_aligned(inputs, labels, "the test set has ")):
            raise ValueError("the test set has no examples")
        self.targets, self.count = labels, count
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
    return evaluate_examples(federation, server, client_states, test)[0]


@sharding.outside_meshes
def evaluate_examples(
    federation: Federation,
    server: Server,
    client_states: ClientState,
    test: TestSet,
    owners: Int[np.ndarray, " N"] | None = None,
) -> tuple[AnyMetrics, Bool[np.ndarray, " N"]]:
    """Does what `evaluate` does, and says which examples are classified correctly: (N,) bool, `False` for other objectives.

    Under the policy `local` an example is judged with the statistics of the client in `owners`, (N,), -1 for none: then `False`.
    """
    if federation.objective.classes:
        labels_lib.check_labels(test.targets, len(test.targets), "the test set has ", federation.num_classes)
    if federation.norm != "local":
        return _evaluate_model(federation, server.params, server.state, test)
    by_client = [
        _evaluate_model(federation, server.params, jax.tree.map(lambda x, k=k: x[k], client_states.state), test)
        for k in range(federation.clients)
    ]
    hits = np.zeros(test.count, bool)
    if owners is not None:
        every = np.stack([correct for _, correct in by_client])
        hits = (owners >= 0) & every[np.maximum(owners, 0), np.arange(test.count)]
    return functools.reduce(metrics.merge, [sums for sums, _ in by_client]), hits


class ByClient(NamedTuple):
    """Accuracies of clients, each on its own held-out examples; NaN for those that have none."""

    accuracy: Float[np.ndarray, " K"]
    mean: float
    """Over clients, each of which counts once."""
    worst: float
    """Mean of the worst tenth of them, at least one."""
    std: float
    """Sample standard deviation over clients; NaN of fewer than two."""


def by_client(hits: Bool[np.ndarray, " N"], owners: Int[np.ndarray, " N"], clients: int) -> ByClient:
    """Returns the clients' accuracies from what was right of whose held-out examples.

    Args:
      hits: which examples are classified correctly.
      owners: whose they are, -1 for nobody's.
      clients: K.

    Raises:
      ValueError: owners beyond the clients, or not as many as examples.
    """
    if np.shape(hits) != np.shape(owners) or np.max(owners, initial=-1) >= clients:
        raise ValueError(
            f"expected an owner below {clients} for each of {len(hits)} examples, got {len(owners)} up to {np.max(owners, initial=-1)}"
        )
    owned = owners >= 0
    count = np.bincount(owners[owned], minlength=clients)
    right = np.bincount(owners[owned], weights=hits[owned].astype(np.float64), minlength=clients)
    return summary(np.where(count > 0, right / np.maximum(count, 1), np.nan))


def summary(accuracy: Float[np.ndarray, " K"]) -> ByClient:
    """Returns mean, worst tenth and spread of the clients' accuracies."""
    present = np.sort(accuracy[np.isfinite(accuracy)])
    if not len(present):
        return ByClient(accuracy, np.nan, np.nan, np.nan)
    worst = present[: max(1, len(present) // 10)].mean()
    std = present.std(ddof=1) if len(present) > 1 else np.nan
    return ByClient(accuracy, float(present.mean()), float(worst), float(std))


@sharding.outside_meshes
def accuracy_of(
    federation: Federation, params: Params, state: State, inputs: Any, labels: Int[np.ndarray, " n"], rows: int
) -> float:
    """Computes the accuracy of a model on one client's held-out examples, padded to `rows`; NaN without examples.

    Raises:
      ValueError: labels that are none, or more of them than rows.
    """
    if not len(labels):
        return float("nan")
    if objectives.check_examples(federation.objective, inputs, labels, classes=federation.num_classes) > rows:
        raise ValueError(f"{len(labels)} examples do not fit into {rows} rows")
    padded = jax.tree.map(lambda x: np.concatenate([x, np.repeat(x[-1:], rows - len(x), 0)]), (inputs, labels))
    hits = _hits_of(federation.network)(params, state, *padded)
    return float(np.asarray(hits)[: len(labels)].mean())


@program_cache.by_contents()
def _hits_of(network: Network) -> Callable[..., Any]:
    return jax.jit(
        lambda params, state, inputs, labels: _hits(networks.evaluate(network, params, state, inputs), labels)
    )


def _hits(logits: Any, labels: Any) -> jax.Array:
    return jnp.argmax(logits, axis=-1) == labels_lib.class_numbers(labels)


def _evaluate_model(
    federation: Federation, params: Params, state: State, test: TestSet
) -> tuple[AnyMetrics, np.ndarray]:
    params, state = placement_lib.replicate((params, state), test.mesh)
    batches = test.batches[-1].shape[1]
    step = _step(federation.network, federation.objective, test.mesh)
    parts = [placement_lib.to_host(step(test.batches, params, state, np.int32(i))) for i in range(batches)]
    merged: AnyMetrics = functools.reduce(metrics.merge, [jax.tree.map(np.sum, sums) for sums, _ in parts])
    hits = np.stack([right.reshape(test.mesh.size, -1) for _, right in parts], axis=1)  # (devices, batches, B)
    return merged, hits.reshape(-1)[: test.count]


@program_cache.by_contents()
def _step(network: Network, objective: Objective, mesh: Mesh) -> Callable[..., tuple[AnyMetrics, jax.Array]]:
    def batch_metrics(share: Any, params: Params, state: State, number: jax.Array) -> Any:
        batch = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, number, keepdims=False), share)
        inputs, targets, weight = batch
        outputs = networks.evaluate(network, params, state, inputs)
        hits = _hits(outputs, targets) if objective.classes else jnp.zeros(weight.shape, bool)
        return objective.sums(outputs, targets, weight), hits

    step: Callable[..., tuple[AnyMetrics, jax.Array]] = jax.jit(placement_lib.shard_map_single(batch_metrics, mesh, 3))
    return step
