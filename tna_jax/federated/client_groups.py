"""Trains groups of a federation's clients at once, over all devices: the groups, and the programs that train one.

Clients differ in their numbers of examples and steps; each makes exactly its own steps, and its examples count once in each pass,
whatever the padding. The groups are made of clients of like size, dealt out so that every device has about as many steps.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray, Shaped

from tna_jax import networks, program_cache, trees
from tna_jax import placement as placement_lib
from tna_jax.federated import client as client_lib
from tna_jax.federated.algorithm import Broadcast, ClientState, ClientUpdate
from tna_jax.federated.client import Examples, Plan, Running
from tna_jax.federated.faults import Turnout
from tna_jax.federated.federation import Federation
from tna_jax.federated.partition import Clients
from tna_jax.federated.prng import ORDER, stream
from tna_jax.masks import Params
from tna_jax.networks import State
from tna_jax.placement import Placement

Trained = tuple[ClientUpdate, ClientState]
"""A client's update and its new state, or those of several, stacked."""
Contribution = tuple[ClientState, Examples, jax.Array, jax.Array]
"""What a client brings to a round: its state, its examples, its key, the share of its steps that it makes; or several, stacked."""


GROUP = 64
"""So many clients at once, at most, unless one asks for more: the updates of a group are in memory together, and few devices gain by more."""


def resolve(
    federation: Federation, params: Params, state: State, inputs: Shaped[Array | np.ndarray, "n ..."]
) -> Placement:
    """Returns how clients share a device, for a model (arrays or shapes) and inputs (n, ...)."""
    example = jax.tree.map(lambda x: trees.shape_of(x, (1, *x.shape[1:])), inputs)
    leaves, structure = jax.tree.flatten((params, state, example))
    return _resolved(federation.of_clients(), structure, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves))


@program_cache.by_contents()
def _resolved(federation: Federation, structure: Any, forms: tuple[tuple[Any, str], ...]) -> Placement:
    """`placement.resolve` traces the network: once for each."""
    shapes = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(shape, np.dtype(dtype)) for shape, dtype in forms])
    return placement_lib.resolve(
        federation.placement, functools.partial(networks.evaluate, federation.network), *shapes
    )


def check_clients(
    federation: Federation, clients: Clients, client_states: ClientState, examples: int, group: int | None
) -> None:
    """Raises ValueError for another number of clients, and for rows that are not there: JAX would take the last one; and for a group of none."""
    if group is not None and group < 1:
        raise ValueError(f"a group has 1 or more clients, got {group}")
    numbers = {len(clients.count), *(np.shape(leaf)[0] for leaf in jax.tree.leaves(client_states))}
    if numbers != {federation.clients}:
        said = " and ".join(map(str, sorted(numbers - {federation.clients})))
        raise ValueError(
            f"the federation has {federation.clients} clients, the partition or their states are of {said}"
        )
    if (last := int(np.max(clients.indices))) >= examples or int(np.min(clients.indices)) < 0:
        raise ValueError(
            f"the partition deals out rows up to {last}, but there are {examples} examples: was it made for other data?"
        )


def grouped(
    present: np.ndarray, steps: np.ndarray, group: int, devices: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The clients in groups of like size: rows (G,), and which of them are real; G is a multiple of the devices.

    Within a group the leading axis is cut into equal shares, one for each device: clients are dealt out in turns, from the
    largest to the smallest and back, so that shares have about equal numbers of steps.
    """
    if not len(present):
        return
    ranked = present[np.argsort(-steps[present], kind="stable")]
    size = -(-group // devices) * devices
    for start in range(0, len(ranked), size):
        group_rows = ranked[start : start + size]
        filled = np.concatenate([group_rows, np.full(size - len(group_rows), group_rows[-1], np.int32)])
        real = np.arange(size) < len(group_rows)
        turns = np.arange(size).reshape(-1, devices)
        turns[1::2] = turns[1::2, ::-1]
        dealt = turns.T.reshape(-1)
        yield filled[dealt], real[dealt]


def train_group(
    federation: Federation,
    placement: Placement,
    mesh: Mesh,
    broadcast: Broadcast,
    client_states: ClientState,
    clients: Clients,
    root: PRNGKeyArray,
    number: int,
    turnout: Turnout,
    rows: np.ndarray,
    real: np.ndarray,
    data: tuple[Any, Any],
) -> Trained:
    """Trains one group: its updates and new states, (G, ...); padding makes no step."""
    states = jax.tree.map(lambda x: x[rows], client_states)
    share: Any = np.where(real, turnout.share[rows], np.float32(0)).astype(np.float32)
    federation = federation.of_clients()
    examples = Examples(clients.indices[rows], clients.count[rows])
    keys = _keys(root, np.int32(number), rows)
    stacked = placement_lib.shard((states, examples, keys, share), mesh)
    if placement == "loop":
        return _loop(federation, mesh, broadcast, stacked, data, clients.count[rows])
    return _group_program(federation, placement, mesh)(stacked, broadcast, *data)


@jax.jit
def _keys(root: jax.Array, number: jax.Array, rows: jax.Array) -> jax.Array:
    return jax.vmap(lambda client: stream(root, ORDER, number, client))(rows)


@program_cache.by_contents()
def _group_program(federation: Federation, placement: Placement, mesh: Mesh) -> Callable[..., Trained]:
    def train_one(client: Contribution, broadcast: Broadcast, inputs: jax.Array, labels: jax.Array) -> Trained:
        client_state, examples, key, share = client
        return client_lib.run_round(federation, broadcast, client_state, examples, key, share, inputs, labels)

    def train_share(stacked: Contribution, broadcast: Broadcast, inputs: jax.Array, labels: jax.Array) -> Trained:
        trained: Trained
        if placement == "vmap":
            trained = jax.vmap(train_one, in_axes=(0, None, None, None))(stacked, broadcast, inputs, labels)
        else:
            trained = jax.lax.map(lambda client: train_one(client, broadcast, inputs, labels), stacked)
        return trained

    program: Callable[..., Trained] = jax.jit(placement_lib.shard_map_stacked(train_share, mesh, replicated=3))
    return program


@program_cache.by_contents()
def _step_programs(federation: Federation, mesh: Mesh) -> tuple[Callable[..., Any], ...]:
    """What begins and ends one client's round on each device, cuts clients out of the devices' shares and puts them back."""

    def begin(client: Contribution, broadcast: Broadcast, labels: jax.Array) -> tuple[Plan, Running]:
        client_state, examples, key, share = client
        local_plan = client_lib.plan(federation, broadcast, labels, examples, key, share)
        return local_plan, client_lib.start(federation, broadcast, client_state)

    def end(client_round: tuple[Contribution, Plan, Running], broadcast: Broadcast) -> Trained:
        (client_state, examples, _, _), local_plan, running = client_round
        return client_lib.finish(federation, broadcast, client_state, local_plan, examples, running)

    def cut(share: Contribution, number: jax.Array) -> Any:
        return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, number, 1), share)

    def join(parts: list[Trained]) -> Any:
        return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)

    programs = (placement_lib.shard_map_single(begin, mesh, 2), placement_lib.shard_map_single(end, mesh, 1),
                placement_lib.shard_map_stacked(cut, mesh, 1), placement_lib.shard_map_stacked(join, mesh, 0))  # fmt: skip
    return tuple(jax.jit(program) for program in programs)


@program_cache.by_contents(128)
def _step_program(federation: Federation, mesh: Mesh, rows: int) -> Callable[..., Running]:
    """A step of one client on each device that has steps left, on `rows` rows."""

    def step(
        client_round: tuple[Contribution, Plan, Running],
        broadcast: Broadcast,
        inputs: jax.Array,
        labels: jax.Array,
        number: jax.Array,
    ) -> Any:
        (client_state, examples, _, _), local_plan, running = client_round
        after = client_lib.step(
            federation, broadcast, client_state, local_plan, examples, inputs, labels, number, running, rows
        )
        # chosen afterwards, not by `cond`: XLA's CPU backend computes a convolution inside control flow many times slower
        return jax.tree.map(lambda new, same: jnp.where(number < local_plan.steps, new, same), after, running)

    program: Callable[..., Running] = jax.jit(placement_lib.shard_map_single(step, mesh, 4))
    return program


def _loop(
    federation: Federation,
    mesh: Mesh,
    broadcast: Broadcast,
    stacked: Contribution,
    data: tuple[Any, Any],
    counts: np.ndarray,
) -> Trained:
    """A Python loop over clients and steps: the fastest for convolutions on CPUs. Each device has a client to itself.

    Args:
      counts: (G,) examples of the clients.
    """
    begin, end, cut, join = _step_programs(federation, mesh)
    results = []
    counts = counts.reshape(mesh.size, -1)
    for i in range(counts.shape[1]):
        client = cut(stacked, np.int32(i))
        local_plan, running = begin(client, broadcast, data[1])
        steps = placement_lib.to_host(local_plan.steps).reshape(-1)
        for number in range(int(steps.max())):
            rows = client_lib.num_rows(federation, counts[number < steps, i], number)
            step = _step_program(federation, mesh, rows)
            running = step((client, local_plan, running), broadcast, *data, np.int32(number))
        results.append(end((client, local_plan, running), broadcast))
    joined: Trained = join(results)
    return joined
