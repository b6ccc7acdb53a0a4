"""A round of a simulated federation: all its clients in one program, in groups that fit the memory, over all devices.

Clients differ in their numbers of examples and steps; each makes exactly its own steps, and its examples count once in each pass,
whatever the padding. The groups are made of clients of like size, dealt out so that every device has about as many steps.
`map`, `vmap` and `loop` (see `tna_jax.placement`) and any number of devices give the same round up to rounding: clients' updates
are those of `train_client`, only the order of sums differs.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray, PyTree, Shaped

from tna_jax import networks, objectives, program_cache, sharding, trees
from tna_jax import placement as placement_lib
from tna_jax.federated import aggregation
from tna_jax.federated import client as client_lib
from tna_jax.federated import federation as federation_lib
from tna_jax.federated.aggregation import Aggregate
from tna_jax.federated.algorithm import Broadcast, ClientState, ClientUpdate
from tna_jax.federated.client import Examples, Plan, Running
from tna_jax.federated.faults import NO_FAULTS, Faults, Turnout, asked, attacked, corrupted, sample_clients
from tna_jax.federated.federation import Federation, Server, init_client_state
from tna_jax.federated.partition import Clients
from tna_jax.federated.prng import DISTIL, ORDER, stream
from tna_jax.federated.schedules import Schedule, live_share
from tna_jax.masks import Params
from tna_jax.metrics import AnyMetrics
from tna_jax.networks import State
from tna_jax.placement import Placement

Trained = tuple[ClientUpdate, ClientState]
"""A client's update and its new state, or those of several, stacked."""
Contribution = tuple[ClientState, Examples, jax.Array, jax.Array]
"""What a client brings to a round: its state, its examples, its key, the share of its steps that it makes; or several, stacked."""


GROUP = 64
"""So many clients at once, at most, unless one asks for more: the updates of a group are in memory together, and few devices gain by more."""


class Round(NamedTuple):
    """What happened in a round."""

    turnout: Turnout
    refused: dict[int, list[str]]
    """Clients whose updates were not accepted, with what was wrong."""
    accepted: int
    """How many updates were."""
    metrics: AnyMetrics
    """Training metrics of the accepted ones, summed over their steps."""
    live: float
    """Share of the entries that were live in some step of some client; 0 if no update was accepted."""
    stepped: bool
    """Whether the server moved: not without updates (with privacy it does, by noise), nor if its numbers would not have been finite."""


@sharding.outside_meshes
def init_client_states(federation: Federation, server: Server) -> ClientState:
    """Returns the states of all N clients before the first round, (N, ...) NumPy."""
    initial = init_client_state(federation, server)
    states: ClientState = jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], federation.clients, axis=0), initial)
    return states


@sharding.outside_meshes
def simulate_round(
    federation: Federation,
    schedule: Schedule,
    root: PRNGKeyArray,
    number: int,
    server: Server,
    client_states: ClientState,
    clients: Clients,
    inputs: PyTree[Shaped[Array | np.ndarray, "..."]],
    labels: PyTree[Shaped[Array | np.ndarray, "..."]],
    learning_rate: float,
    *,
    participation: float = 1.0,
    faults: Faults = NO_FAULTS,
    group: int | None = None,
    proxy: Any = (),
) -> tuple[Server, Round]:
    """Simulates round `number` of a federation.

    Args:
      federation, schedule: what all parties agree on.
      root: the federation's key.
      number: of the round, from 0.
      server: its state before the round.
      client_states: (N, ...) NumPy, written to in place: the rows of this round's clients.
      clients: who has which rows of the data.
      inputs, labels: (n, ...), (n,), or other targets (n, ...): the data of all clients; replicated over the devices they are not copied in each round.
      learning_rate: of this round.
      participation: the share of the N clients that take part in a round, at least one.
      faults: drop-outs, stragglers, and clients whose updates are spoilt.
      group: how many clients at once, over all devices; `None`: all, but at most `GROUP`.
      proxy: (P, ...) inputs for a server that distils.

    Returns:
      The server's state after the round, and what happened. If no update could be accepted the server stays as it was; with privacy its step
      is made of noise. It stays, too,
      and the rows of `client_states` with it, if its numbers would not be finite: the sum of finite updates overflows.

    Raises:
      ValueError: a server that distils, without proxy data; a participation out of range; labels that are none (see `tna_jax.labels`); fewer
        logits than classes; another number of clients than the federation has, or rows that are not there.
    """
    aggregation.check_proxy(federation, proxy)
    classes = federation.num_classes if federation.objective.classes else None
    examples = objectives.check_examples(federation.objective, inputs, labels, classes=classes)
    _check_clients(federation, clients, client_states, examples)
    poisson = federation.server.privacy is not None
    turnout = sample_clients(root, number, federation.clients, participation, faults, poisson)
    broadcast = federation_lib.broadcast(federation, server, schedule, root, number, learning_rate)
    present = np.array([client for client in turnout.sampled if client not in turnout.dropped], np.int32)
    mesh = placement_lib.mesh()
    state = jax.tree.map(lambda x: x[0], client_states.state) if federation.norm == "local" else broadcast.state
    placement = resolve(federation, broadcast.params, state, inputs)
    data = placement_lib.replicate((inputs, labels), mesh)
    on_devices = placement_lib.replicate(broadcast, mesh), placement_lib.replicate(proxy, mesh)
    refused: dict[int, list[str]] = {}
    aggregate: Aggregate | None = None
    new_states: list[tuple[ClientState, np.ndarray, np.ndarray]] = []
    combines, parts, rows_accepted = aggregation.combines(federation), [], []
    # whoever drops out: one compiled program for all rounds
    size = min(group or min(federation.clients, GROUP), asked(federation.clients, participation))
    for rows, real in grouped(present, _num_steps(federation, clients, turnout), size, mesh.size):
        updates, states = train_group(
            federation, placement, mesh, on_devices[0], client_states, clients, root, number, turnout, rows, real, data
        )
        if faults.hostile:
            updates = attacked(updates, np.isin(rows, faults.hostile))
        accepted = _accept(updates, rows, real, faults, refused)
        if combines:
            parts.append(placement_lib.to_host(aggregation.summands(federation, on_devices[0], updates)))
            rows_accepted.append(accepted)
        part = _aggregate_program(federation, placement, mesh)(
            (updates, placement_lib.shard(accepted, mesh)), *on_devices
        )
        with np.errstate(over="ignore", invalid="ignore"):  # sums that overflow are found at the end
            part = jax.tree.map(lambda x: np.sum(x, axis=0, dtype=x.dtype), placement_lib.to_host(part))
            aggregate = part if aggregate is None else jax.tree.map(np.add, aggregate, part)
        # an update that was refused did not happen for its client either
        new_states.append((placement_lib.to_host(states), rows, accepted))
    if poisson and aggregate is None:
        aggregate = placement_lib.to_host(aggregation.of_nobody(federation, on_devices[0]))
    if aggregate is None or not (aggregate.accepted or poisson):
        zero = jax.tree.map(lambda x: np.zeros((), x.dtype), federation.objective.zero())
        return server, Round(turnout, refused, 0, zero, 0.0, False)
    if combines:
        together = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        aggregate = aggregation.combined(federation, aggregate, together, np.concatenate(rows_accepted))
    live = live_share(server.params, broadcast.mask, aggregate.steps)
    new_server = aggregation.server_update(
        federation, server, broadcast, aggregate, stream(root, DISTIL, number), proxy
    )
    stepped = aggregation.is_finite(new_server)
    for states, rows, accepted in new_states if stepped else ():
        _write_back(client_states, states, rows, accepted)
    return new_server if stepped else server, Round(
        turnout, refused, int(aggregate.accepted), aggregate.metrics, live, stepped
    )


def _check_clients(federation: Federation, clients: Clients, client_states: ClientState, examples: int) -> None:
    """Raises ValueError for another number of clients, and for rows that are not there: JAX would take the last one."""
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


def _num_steps(federation: Federation, clients: Clients, turnout: Turnout) -> np.ndarray:
    """(N,) local steps of each client in this round."""
    full = federation.num_steps(clients.count)
    steps: np.ndarray = np.ceil(turnout.share * full.astype(np.float32)).astype(int)
    return steps


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


def _accept(
    updates: ClientUpdate, rows: np.ndarray, real: np.ndarray, faults: Faults, refused: dict[int, list[str]]
) -> np.ndarray:
    """(G,) bool, which updates are accepted; the others are named in `refused`."""
    sound = placement_lib.to_host(_all_finite(updates))
    accepted: np.ndarray = real & sound
    like = jax.tree.map(lambda x: trees.shape_of(x, x.shape[1:]), updates)
    spoilt = np.isin(rows, [*faults.nan, *faults.wrong_shape])
    suspects = np.flatnonzero(real & (spoilt | ~sound))
    # all of them: cutting a row out would take all devices
    on_host = placement_lib.to_host(updates) if len(suspects) else updates
    for i in suspects:
        client = int(rows[i])
        update = jax.tree.map(lambda x, i=i: x[i], on_host)
        wrong = aggregation.validate_update(like, corrupted(faults, client, update))
        if wrong:
            accepted[i] = False
            refused[client] = wrong
    return accepted


@jax.jit
def _all_finite(updates: ClientUpdate) -> jax.Array:
    return jax.vmap(lambda update: client_lib.finite((update.delta, update.extra, update.state, update.metrics)))(
        updates
    )


@program_cache.by_contents()
def _aggregate_program(federation: Federation, placement: Placement, mesh: Mesh) -> Callable[..., Aggregate]:
    """Each device sums over its share of a group: leaves (devices, ...)."""

    def sums(group: tuple[ClientUpdate, jax.Array], broadcast: Broadcast, proxy: Any) -> Any:
        updates, accepted = group
        part = aggregation.sums(federation, placement, broadcast, updates, accepted, proxy)
        return jax.tree.map(lambda x: x[None], part)

    program: Callable[..., Aggregate] = jax.jit(placement_lib.shard_map_stacked(sums, mesh, 2))
    return program


def _write_back(client_states: ClientState, new: ClientState, rows: np.ndarray, accepted: np.ndarray) -> None:
    """Writes the new states of a group's accepted clients into the rows of all."""
    jax.tree.map(lambda all_, x: all_.__setitem__(rows[accepted], np.asarray(x)[accepted]), client_states, new)
