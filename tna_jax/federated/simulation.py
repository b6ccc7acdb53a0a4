"""A round of a simulated federation: all its clients in one program, in groups that fit the memory, over all devices.

Clients differ in their numbers of examples and steps; each makes exactly its own steps, and its examples count once in each pass,
whatever the padding. The groups are made of clients of like size, dealt out so that every device has about as many steps.
`map`, `vmap` and `loop` (see `tna_jax.placement`) and any number of devices give the same round up to rounding: clients' replies
are those of `train_client`, only the order of sums differs.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import networks
from tna_jax import placement as placement_lib
from tna_jax.federated import aggregation
from tna_jax.federated import client as local_training
from tna_jax.federated.aggregation import Aggregate
from tna_jax.federated.algorithm import Broadcast, ClientState, ClientUpdate
from tna_jax.federated.client import Examples
from tna_jax.federated.faults import NO_FAULTS, Faults, Turnout, corrupted, sample_clients
from tna_jax.federated.federation import Federation, Server, broadcast, init_client_state
from tna_jax.federated.partition import Clients
from tna_jax.federated.prng import DISTIL, ORDER, stream
from tna_jax.federated.schedules import Schedule, live_share
from tna_jax.metrics import Metrics
from tna_jax.placement import Placement


class Round(NamedTuple):
    """What happened in a round."""

    turnout: Turnout
    refused: dict[int, list[str]]
    """Clients whose replies were not taken, with what was wrong."""
    taken: int
    """How many replies were."""
    metrics: Metrics
    """Training metrics of the taken ones, summed over their steps."""
    live: float
    """Share of the entries that were live in some step of some client; 0 if no reply was taken."""
    stepped: bool
    """Whether the server moved: not without replies, nor if its numbers would not have been finite."""


def init_owns(federation: Federation, server: Server) -> ClientState:
    """What all N clients keep, (N, ...) NumPy."""
    one = init_client_state(federation, server)
    return jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], federation.clients, axis=0), one)


def simulate_round(
    federation: Federation,
    schedule: Schedule,
    root: jax.Array,
    number: int,
    server: Server,
    owns: ClientState,
    clients: Clients,
    inputs: jax.Array,
    labels: jax.Array,
    learning_rate: float,
    *,
    participation: float = 1.0,
    faults: Faults = NO_FAULTS,
    group: int | None = None,
    proxy: Any = (),
) -> tuple[Server, Round]:
    """Round `number` of a federation.

    Args:
      federation, schedule: what all agree on.
      root: the federation's key.
      number: of the round, from 0.
      server: its state before the round.
      owns: (N, ...) NumPy, what clients keep; the rows of this round's clients are written to.
      clients: who has which rows of the data.
      inputs, labels: (n, ...), (n,): the data of all clients; replicated over the devices they are not copied in each round.
      learning_rate: of this round.
      participation: the share of the N clients that take part in a round, at least one.
      faults: drop-outs, stragglers, and clients whose replies are spoilt.
      group: how many clients at once, over all devices; `None` for all.
      proxy: (P, ...) inputs for a server that distils.

    Returns:
      The server's state after the round, and what happened. If no reply could be taken the server stays as it was. So it does,
      and the rows of `owns` with it, if its numbers would not be finite: the sum of finite replies overflows.

    Raises:
      ValueError: a server that distils, without proxy data; a participation out of range.
    """
    aggregation.check_proxy(federation, proxy)
    who = sample_clients(root, number, federation.clients, participation, faults)
    sent = broadcast(federation, server, schedule, root, number, learning_rate)
    here = np.array([client for client in who.sampled if client not in who.dropped], np.int32)
    mesh = placement_lib.mesh()
    state = jax.tree.map(lambda x: x[0], owns.state) if federation.norm == "local" else sent.state
    placement = resolve(federation, sent.params, state, inputs)
    data = placement_lib.replicate((inputs, labels), mesh)
    shared, extra = placement_lib.replicate(sent, mesh), placement_lib.replicate(proxy, mesh)
    refused: dict[int, list[str]] = {}
    found: Aggregate | None = None
    keep: list[tuple[ClientState, np.ndarray, np.ndarray]] = []
    size = min(group or federation.clients, len(who.sampled))  # whoever drops out: one compiled program for all rounds
    for rows, real in _groups(here, _steps(federation, clients, who), size, mesh.size):
        replies, kept = _run(federation, placement, mesh, shared, owns, clients, root, number, who, rows, real, data)
        good = _judge(federation, sent, replies, rows, real, faults, refused)
        part = _sums(federation, placement, mesh)((replies, placement_lib.shard(good, mesh)), shared, extra)
        with np.errstate(over="ignore", invalid="ignore"):  # sums that overflow are found at the end
            part = jax.tree.map(lambda x: np.sum(x, axis=0, dtype=x.dtype), placement_lib.to_host(part))
            found = part if found is None else jax.tree.map(np.add, found, part)
        keep.append(
            (placement_lib.to_host(kept), rows, good)
        )  # a reply that was refused did not happen for its client either
    if found is None or not found.taken:
        zero = Metrics(*(np.zeros((), np.float32) for _ in Metrics._fields))
        return server, Round(who, refused, 0, zero, 0.0, False)
    live = live_share(server.params, sent.mask, found.steps)
    moved = aggregation.server_update(federation, server, sent, found, stream(root, DISTIL, number), proxy)
    stepped = aggregation.is_finite(moved)
    for new, rows, good in keep if stepped else ():
        _keep(owns, new, rows, good)
    return moved if stepped else server, Round(who, refused, int(found.taken), found.metrics, live, stepped)


def resolve(federation: Federation, params, state, inputs) -> Placement:
    """How clients share a device, for a model (arrays or shapes) and inputs (n, ...)."""
    leaves, structure = jax.tree.flatten((params, state, jax.ShapeDtypeStruct((1, *inputs.shape[1:]), inputs.dtype)))
    return _resolved(federation.of_clients(), structure, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves))


@functools.lru_cache(maxsize=32)
def _resolved(federation: Federation, structure: Any, forms: tuple[tuple[Any, str], ...]) -> Placement:
    """`placement.resolve` traces the network: once for each."""
    shapes = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(shape, np.dtype(dtype)) for shape, dtype in forms])
    return placement_lib.resolve(
        federation.placement, functools.partial(networks.evaluate, federation.network), *shapes
    )


def _steps(federation: Federation, clients: Clients, who: Turnout) -> np.ndarray:
    """(N,) local steps of each client in this round."""
    whole = -(-clients.count // federation.batch_size) * federation.epochs
    return np.ceil(who.share * whole.astype(np.float32)).astype(int)


def _groups(here: np.ndarray, steps: np.ndarray, group: int, devices: int):
    """The clients in groups of like size: rows (G,), and which of them are real; G is a multiple of the devices.

    Within a group the leading axis is cut into equal shares, one for each device: clients are dealt out in turns, from the
    largest to the smallest and back, so that shares have about equal numbers of steps.
    """
    if not len(here):
        return
    ranked = here[np.argsort(-steps[here], kind="stable")]
    size = -(-group // devices) * devices
    for start in range(0, len(ranked), size):
        own = ranked[start : start + size]
        filled = np.concatenate([own, np.full(size - len(own), own[-1], np.int32)])
        real = np.arange(size) < len(own)
        turns = np.arange(size).reshape(-1, devices)
        turns[1::2] = turns[1::2, ::-1]
        dealt = turns.T.reshape(-1)
        yield filled[dealt], real[dealt]


def _run(federation, placement, mesh, sent, owns, clients, root, number, who, rows, real, data):
    """The replies and what is kept, (G, ...), of one group; padding makes no step."""
    own = jax.tree.map(lambda x: x[rows], owns)
    share = np.where(real, who.share[rows], np.float32(0)).astype(np.float32)
    federation = federation.of_clients()
    examples = Examples(clients.indices[rows], clients.count[rows])
    keys = _keys(root, np.int32(number), rows)
    stacked = placement_lib.shard((own, examples, keys, share), mesh)
    if placement == "loop":
        return _loop(federation, mesh, sent, stacked, data, clients.count[rows])
    return _program(federation, placement, mesh)(stacked, sent, *data)


@jax.jit
def _keys(root: jax.Array, number: jax.Array, rows: jax.Array) -> jax.Array:
    return jax.vmap(lambda client: stream(root, ORDER, number, client))(rows)


@functools.lru_cache(maxsize=32)
def _program(federation: Federation, placement: Placement, mesh):
    def one(client, sent, inputs, labels):
        own, examples, key, share = client
        return local_training.whole(federation, sent, own, examples, key, share, inputs, labels)

    def of_share(stacked, sent, inputs, labels):
        if placement == "vmap":
            return jax.vmap(one, in_axes=(0, None, None, None))(stacked, sent, inputs, labels)
        return jax.lax.map(lambda client: one(client, sent, inputs, labels), stacked)

    return jax.jit(placement_lib.shard_map_stacked(of_share, mesh, replicated=3))


@functools.lru_cache(maxsize=32)
def _step_programs(federation: Federation, mesh):
    """What begins and ends one client's round on each device, cuts clients out of the devices' shares and puts them back."""

    def begin(client, sent, labels):
        own, examples, key, share = client
        planned = local_training.plan(federation, sent, labels, examples, key, share)
        return planned, local_training.start(federation, sent, own)

    def end(both, sent):
        (own, examples, _, _), planned, running = both
        return local_training.finish(federation, sent, own, planned, examples, running)

    def cut(share, number):
        return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, number, 1), share)

    def join(parts):
        return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)

    programs = (placement_lib.shard_map_single(begin, mesh, 2), placement_lib.shard_map_single(end, mesh, 1),
                placement_lib.shard_map_stacked(cut, mesh, 1), placement_lib.shard_map_stacked(join, mesh, 0))  # fmt: skip
    return tuple(jax.jit(program) for program in programs)


@functools.lru_cache(maxsize=128)
def _step_program(federation: Federation, mesh, rows: int):
    """A step of one client on each device that has steps left, on `rows` rows."""

    def step(both, sent, inputs, labels, number):
        (own, examples, _, _), planned, running = both
        made = local_training.step(federation, sent, own, planned, examples, inputs, labels, number, running, rows)
        # chosen afterwards, not by `cond`: XLA's CPU backend computes a convolution inside control flow many times slower
        return jax.tree.map(lambda new, same: jnp.where(number < planned.steps, new, same), made, running)

    return jax.jit(placement_lib.shard_map_single(step, mesh, 4))


def _loop(federation: Federation, mesh, sent: Broadcast, stacked, data, counts: np.ndarray):
    """A Python loop over clients and steps: the fastest for convolutions on CPUs. Each device has a client of its own.

    Args:
      counts: (G,) examples of the clients.
    """
    begin, end, cut, join = _step_programs(federation, mesh)
    done = []
    counts = counts.reshape(mesh.size, -1)
    for i in range(counts.shape[1]):
        client = cut(stacked, np.int32(i))
        planned, running = begin(client, sent, data[1])
        steps = placement_lib.to_host(planned.steps).reshape(-1)
        for number in range(int(steps.max())):
            rows = local_training.rows_of(federation, counts[number < steps, i], number)
            step = _step_program(federation, mesh, rows)
            running = step((client, planned, running), sent, *data, np.int32(number))
        done.append(end((client, planned, running), sent))
    return join(done)


def _judge(federation, sent, replies, rows, real, faults, refused) -> np.ndarray:
    """(G,) bool, which replies are taken; the others are named in `refused`."""
    good = placement_lib.to_host(_good(replies))
    taken = real & good
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), replies)
    spoilt = np.isin(rows, [*faults.nan, *faults.wrong_shape])
    looked = np.flatnonzero(real & (spoilt | ~good))
    arrived = (
        placement_lib.to_host(replies) if len(looked) else replies
    )  # whole: cutting a row out would take all devices
    for i in looked:
        client = int(rows[i])
        one = jax.tree.map(lambda x, i=i: x[i], arrived)
        wrong = aggregation.validate_update(like, corrupted(faults, client, one))
        if wrong:
            taken[i] = False
            refused[client] = wrong
    return taken


@jax.jit
def _good(replies: ClientUpdate) -> jax.Array:
    return jax.vmap(lambda reply: local_training.finite((reply.delta, reply.extra, reply.state, reply.metrics)))(
        replies
    )


@functools.lru_cache(maxsize=32)
def _sums(federation: Federation, placement: Placement, mesh):
    """Each device sums over its share of a group: leaves (devices, ...)."""

    def sums(both, sent, proxy):
        return jax.tree.map(lambda x: x[None], aggregation.sums(federation, placement, sent, both[0], both[1], proxy))

    return jax.jit(placement_lib.shard_map_stacked(sums, mesh, 2))


def _keep(owns: ClientState, kept: ClientState, rows: np.ndarray, taken: np.ndarray) -> None:
    """Writes what clients keep, whose replies were taken, into the rows of all."""
    jax.tree.map(lambda all_, new: all_.__setitem__(rows[taken], np.asarray(new)[taken]), owns, kept)
