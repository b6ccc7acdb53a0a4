"""The server's model made a client's own: a few epochs of fine-tuning of the whole model, or of its last layer, on the client's examples."""

from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree, Shaped

from tna_jax import objectives, sharding, trees
from tna_jax import placement as placement_lib
from tna_jax.federated import client_groups, features
from tna_jax.federated.algorithm import Broadcast, ClientState
from tna_jax.federated.faults import Turnout
from tna_jax.federated.fedavg import FedAvg
from tna_jax.federated.federation import Federation, Server
from tna_jax.federated.partition import Clients
from tna_jax.federated.servers import MEAN
from tna_jax.masks import Mask, Params
from tna_jax.networks import Network, State


def head(module: nn.Module | Network, params: Params, state: State, inputs: Any) -> Mask:
    """Returns a mask in which the dense layer that a Linen module runs last is live, and nothing else.

    Args:
      module: of the network, or a network that was made of one.
      params, state: its parameters and running statistics, arrays or shapes.
      inputs: (B, ...) as it takes them, an array or its shape.

    Raises:
      ValueError: the module runs no dense layer.
    """
    paths: list[tuple[str, ...]] = []

    def watch(following: Callable[..., Any], arguments: Any, options: Any, context: Any) -> Any:
        if isinstance(context.module, nn.Dense) and context.method_name == "__call__":
            paths.append(context.module.path)
        return following(*arguments, **options)

    def run(params: Params, state: State, inputs: Any) -> Any:
        with nn.intercept_methods(watch):
            return features.evaluate(module, params, state, inputs)

    jax.eval_shape(run, params, state, inputs)
    if not paths:
        raise ValueError(f"{features.title(module)} runs no dense layer of Linen: fine-tune the whole model")
    last = "/".join(paths[-1]) + "/"
    live = [jnp.array(trees.name(path).startswith(last)) for path, _ in trees.named_leaves(params)]
    return trees.like(params, live)


@sharding.outside_meshes
def fine_tune(
    federation: Federation,
    server: Server,
    client_states: ClientState,
    clients: Clients,
    inputs: PyTree[Shaped[Array | np.ndarray, "..."]],
    labels: PyTree[Shaped[Array | np.ndarray, "..."]],
    root: PRNGKeyArray,
    number: int,
    learning_rate: float,
    *,
    live: Mask | None = None,
    epochs: int = 1,
    group: int = client_groups.GROUP,
) -> Iterator[tuple[np.ndarray, Params, State]]:
    """Fine-tunes the server's model on each client's examples, by the clients' own optimizer without an algorithm's terms.

    Args:
      federation: what all parties agree on.
      server, client_states: after some rounds; nothing is changed in either.
      clients: who has which rows of the data.
      inputs, labels: the data of all clients.
      root: the federation's key.
      number: of the round that this stands for: it draws the order of the examples.
      learning_rate: of the clients.
      live: what may move, leaves bool or scalars, see `head`; `None`: everything.
      epochs: passes.
      group: how many clients at once.

    Yields:
      For a group of clients their numbers (G,), and their models (G, ...), NumPy.

    Raises:
      ValueError: labels that are none, another number of clients than the federation has, rows that are not there, or a group of none.
    """
    classes = federation.num_classes if federation.objective.classes else None
    examples = objectives.check_examples(federation.objective, inputs, labels, classes=classes)
    client_groups.check_clients(federation, clients, client_states, examples, group)
    stateful = federation.norm != "none"
    options: dict[str, Any] = {"norm": "local"} if stateful else {}
    tuned = Federation(
        federation.network, federation.clients, federation.num_classes, FedAvg(), MEAN, epochs, federation.batch_size,
        federation.momentum, federation.weight_decay, placement=federation.placement, objective=federation.objective,
        optimizer=federation.optimizer, **options,
    )  # fmt: skip
    if federation.norm == "shared":
        states = jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], federation.clients, axis=0), server.state)
    else:
        states = client_states.state
    before = ClientState((), states)
    mask = jax.tree.map(lambda _: jnp.ones((), bool), server.params) if live is None else live
    broadcast = Broadcast(server.params, (), (), mask, jnp.float32(1), jnp.float32(learning_rate))
    mesh = placement_lib.mesh()
    state = jax.tree.map(lambda x: x[0], states)
    placement = client_groups.resolve(tuned, server.params, state, inputs)
    data, sent = placement_lib.replicate((inputs, labels), mesh), placement_lib.replicate(broadcast, mesh)
    turnout = Turnout([], [], [], np.ones(federation.clients, np.float32))
    everyone, steps = np.arange(federation.clients, dtype=np.int32), tuned.num_steps(clients.count)
    for rows, real in client_groups.grouped(everyone, steps, min(group, federation.clients), mesh.size):
        update, after = placement_lib.to_host(
            client_groups.train_group(
                tuned, placement, mesh, sent, before, clients, root, number, turnout, rows, real, data
            )
        )
        params = jax.tree.map(lambda p, d: (np.asarray(p)[None] + d).astype(d.dtype), server.params, update.delta)
        yield (
            rows[real],
            jax.tree.map(lambda x, real=real: x[real], params),
            jax.tree.map(lambda x, real=real: x[real], after.state),
        )
