"""A round of a simulated federation: all its clients in one program, in groups that fit the memory, over all devices.

`map`, `vmap` and `loop` (see `tna_jax.placement`) and any number of devices give the same round up to rounding: clients' updates
are those of `train_client`, only the order of sums differs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray, PyTree, Shaped

from tna_jax import objectives, program_cache, sharding, trees
from tna_jax import placement as placement_lib
from tna_jax.federated import aggregation
from tna_jax.federated import client as client_lib
from tna_jax.federated import federation as federation_lib
from tna_jax.federated.aggregation import Aggregate
from tna_jax.federated.algorithm import Broadcast, ClientState, ClientUpdate
from tna_jax.federated.client_groups import GROUP, check_clients, grouped, resolve, train_group
from tna_jax.federated.faults import NO_FAULTS, Faults, Turnout, asked, attacked, corrupted, sample_clients
from tna_jax.federated.federation import Federation, Server, init_client_state
from tna_jax.federated.partition import Clients
from tna_jax.federated.prng import DISTIL, stream
from tna_jax.federated.schedules import Schedule, live_share
from tna_jax.metrics import AnyMetrics
from tna_jax.placement import Placement


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
      is made of noise. It stays, too, and the rows of `client_states` with it, if its numbers would not be finite: the sum of finite
      updates overflows.

    Raises:
      ValueError: a server that distils, without proxy data; a participation out of range; labels that are none (see `tna_jax.labels`); fewer
        logits than classes; another number of clients than the federation has, rows or
        faulty clients that are not there, or a group of none.
    """
    aggregation.check_proxy(federation, proxy)
    classes = federation.num_classes if federation.objective.classes else None
    examples = objectives.check_examples(federation.objective, inputs, labels, classes=classes)
    check_clients(federation, clients, client_states, examples, group)
    faults.check(federation.clients)
    private = federation.server.privacy is not None
    turnout = sample_clients(root, number, federation.clients, participation, faults, poisson=private)
    broadcast = federation_lib.broadcast(federation, server, schedule, root, number, learning_rate)
    mesh = placement_lib.mesh()
    state = jax.tree.map(lambda x: x[0], client_states.state) if federation.norm == "local" else broadcast.state
    placement = resolve(federation, broadcast.params, state, inputs)
    data, on_devices, proxy_there = (placement_lib.replicate(x, mesh) for x in ((inputs, labels), broadcast, proxy))
    # of all that are asked, whoever drops out: one compiled program for all rounds
    size = min(group or min(federation.clients, GROUP), asked(federation.clients, participation))
    present = np.array([client for client in turnout.sampled if client not in turnout.dropped], np.int32)
    sums = _Sums(federation, placement, mesh, on_devices, proxy_there, faults)
    for rows, real in grouped(present, _num_steps(federation, clients, turnout), size, mesh.size):
        updates, states = train_group(
            federation, placement, mesh, on_devices, client_states, clients, root, number, turnout, rows, real, data
        )
        sums.add(updates, states, rows, real)
    if private and sums.aggregate is None:
        sums.aggregate = placement_lib.to_host(aggregation.of_nobody(federation, on_devices))
    if sums.aggregate is None or not (sums.aggregate.accepted or private):
        zero = jax.tree.map(lambda x: np.zeros((), x.dtype), federation.objective.zero())
        return server, Round(turnout, sums.refused, 0, zero, 0.0, False)
    aggregate = sums.combined()
    live = live_share(server.params, broadcast.mask, aggregate.steps)
    new_server = aggregation.server_update(
        federation, server, broadcast, aggregate, stream(root, DISTIL, number), proxy
    )
    stepped = aggregation.is_finite(new_server)
    for states, rows, accepted in sums.new_states if stepped else ():
        _write_back(client_states, states, rows, accepted)
    outcome = Round(turnout, sums.refused, int(aggregate.accepted), aggregate.metrics, live, stepped)
    return new_server if stepped else server, outcome


class _Sums:
    """What the updates of a round add up to, group by group, and which of them were refused."""

    def __init__(
        self, federation: Federation, placement: Placement, mesh: Mesh, broadcast: Broadcast, proxy: Any, faults: Faults
    ) -> None:
        self.federation, self.broadcast, self.faults = federation, broadcast, faults
        self.program = _aggregate_program(federation, placement, mesh)
        self.mesh, self.proxy = mesh, proxy
        self.aggregate: Aggregate | None = None
        self.refused: dict[int, list[str]] = {}
        self.new_states: list[tuple[ClientState, np.ndarray, np.ndarray]] = []
        """Of each group's clients, their rows, and which of their updates were accepted."""
        self.combines = aggregation.combines(federation)
        self.summands: list[Any] = []
        """Of servers that need every update: of each group."""

    def add(self, updates: ClientUpdate, states: ClientState, rows: np.ndarray, real: np.ndarray) -> None:
        """Adds a group's updates (G, ...), but for those that are refused and for padding."""
        if self.faults.hostile:
            updates = attacked(updates, np.isin(rows, self.faults.hostile))
        accepted = _accept(updates, rows, real, self.faults, self.refused)
        if self.combines:
            summands = aggregation.summands(self.federation, self.broadcast, updates)
            self.summands.append(placement_lib.to_host(summands))
        part = self.program((updates, placement_lib.shard(accepted, self.mesh)), self.broadcast, self.proxy)
        with np.errstate(over="ignore", invalid="ignore"):  # sums that overflow are found at the end
            part = jax.tree.map(lambda x: np.sum(x, axis=0, dtype=x.dtype), placement_lib.to_host(part))
            self.aggregate = part if self.aggregate is None else jax.tree.map(np.add, self.aggregate, part)
        # an update that was refused did not happen for its client either
        self.new_states.append((placement_lib.to_host(states), rows, accepted))

    def combined(self) -> Aggregate:
        """Returns the sums, for servers that need every update with what they make of those."""
        assert self.aggregate is not None
        if not self.combines:
            return self.aggregate
        together = jax.tree.map(lambda *leaves: np.concatenate(leaves), *self.summands)
        accepted = np.concatenate([accepted for _, _, accepted in self.new_states])
        return aggregation.combined(self.federation, self.aggregate, together, accepted)


def _num_steps(federation: Federation, clients: Clients, turnout: Turnout) -> np.ndarray:
    """(N,) local steps of each client in this round."""
    full = federation.num_steps(clients.count)
    steps: np.ndarray = np.ceil(turnout.share * full.astype(np.float32)).astype(int)
    return steps


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
