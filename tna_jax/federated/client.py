"""One client's round: K steps of SGD from the server's parameters, under the round's mask, and its reply.

`train_client` runs a round of one client by itself, on its own machine. The simulation runs the same functions for many
clients at once: with the same keys both give the same reply, however much padding the simulation adds.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import metrics, networks, transform
from tna_jax import placement as placement_lib
from tna_jax.federated.algorithm import Broadcast, ClientState, ClientUpdate, Context, gradient_weight, mean_loss
from tna_jax.federated.federation import Federation
from tna_jax.federated.schedules import first_phase, live_in_step
from tna_jax.masks import Params
from tna_jax.metrics import Metrics
from tna_jax.networks import State


class Examples(NamedTuple):
    """A client's examples: rows of arrays that it may share with others."""

    indices: jax.Array
    """(n,) int32 rows, of which the first `count` are the client's; the others are padding."""
    count: Any
    """int32 scalar, n_k."""


class Plan(NamedTuple):
    """What a client does in a round, before it does it."""

    order: jax.Array
    """(E, n) positions in `Examples.indices`, the real ones first, in the order of each pass."""
    steps: jax.Array
    """int32 scalar, K_k."""
    per_epoch: jax.Array
    """int32 scalar, steps of a full pass."""
    first: jax.Array
    """int32 scalar, steps of the first phase."""
    class_counts: jax.Array
    """(C,) float32."""


class Running(NamedTuple):
    """A client between two steps."""

    params: Params
    state: State
    opt_state: Any
    metrics: Metrics


def order(key: jax.Array, size: int, count: jax.Array) -> jax.Array:
    """A permutation of the first `count` of `size` positions, followed by the others: (size,) int32.

    It depends on `key` and `count` alone: padding changes nothing.
    """
    with jax.threefry_partitionable(True):
        drawn = jax.random.uniform(key, (size,), jnp.float32)
    return jnp.argsort(jnp.where(jnp.arange(size) < count, drawn, np.float32(2))).astype(jnp.int32)


def plan(
    federation: Federation, sent: Broadcast, labels: jax.Array, own: Examples, key: jax.Array, share: jax.Array
) -> Plan:
    """What a client does.

    Args:
      labels: (N,) of the shared arrays.
      key: of this client in this round.
      share: float32 in [0, 1], of its steps that it makes (a straggler makes fewer), at least one; 0: none at all.
    """
    size = own.indices.shape[0]
    orders = [order(jax.random.fold_in(key, epoch), size, own.count) for epoch in range(federation.epochs)]
    per_epoch = -(-own.count // federation.batch_size)
    whole = per_epoch * federation.epochs
    made = jnp.ceil(share * whole.astype(jnp.float32)).astype(jnp.int32)
    real = jnp.arange(size) < own.count
    hot = jax.nn.one_hot(labels[own.indices], federation.num_classes, dtype=jnp.float32)
    counts = jnp.sum(hot * real[:, None].astype(jnp.float32), axis=0)
    return Plan(jnp.stack(orders), made, jnp.maximum(per_epoch, 1), first_phase(sent.split, made), counts)


def start(federation: Federation, sent: Broadcast, own: ClientState) -> Running:
    """A client before its first step."""
    state = own.state if federation.norm == "local" else sent.state
    optimizer = federation.client_optimizer(sent.learning_rate)
    return Running(sent.params, state, optimizer.init(sent.params), metrics.zero())


def step(
    federation: Federation,
    sent: Broadcast,
    own: ClientState,
    planned: Plan,
    examples: Examples,
    inputs: jax.Array,
    labels: jax.Array,
    number: jax.Array,
    running: Running,
    rows: int | None = None,
) -> Running:
    """Local step `number` (from 0, below `planned.steps`) on `rows` rows, see `rows_of`; other arguments as in `train_client`."""
    size, batch = examples.indices.shape[0], federation.batch_size
    at = (number % planned.per_epoch) * batch + jnp.arange(rows or batch, dtype=jnp.int32)
    weight = (at < examples.count).astype(jnp.float32)
    chosen = examples.indices[planned.order[number // planned.per_epoch][jnp.minimum(at, size - 1)]]
    x, y = inputs[chosen], labels[chosen]
    algorithm = federation.algorithm
    live = live_in_step(sent.mask, number >= planned.first)
    context = Context(sent, own.memory, live, planned.class_counts, federation.features, running.state)

    def loss(params):
        logits, state = networks.train(federation.network, params, running.state, x, weight)
        found = metrics.classification(logits, y, weight)
        value = mean_loss(algorithm.logits(logits, context), y, weight)
        penalty = algorithm.penalty(params, x, weight, context)
        return value if penalty is None else value + penalty, (found, state)

    gradient, (found, state) = algorithm.descend(jax.grad(loss, has_aux=True), running.params, context)
    gradient = algorithm.gradient(gradient, running.params, context)
    optimizer = federation.client_optimizer(sent.learning_rate)
    updates, opt_state = optimizer.update(gradient, running.opt_state, running.params, mask=live)
    params = transform.apply_updates(running.params, updates, live)
    return Running(params, state, opt_state, metrics.merge(running.metrics, found))


def rows_of(federation: Federation, counts: np.ndarray, number: int) -> int:
    """Rows that hold the examples of step `number` for clients with `counts` examples each: one to four quarters of a batch.

    The last batch of a pass is seldom full. A program for each size is what a loop over steps can have; a compiled loop cannot.
    """
    batch = federation.batch_size
    at = number % np.maximum(-(-counts // batch), 1) * batch
    most, quarter = int(np.minimum(counts - at, batch).max()), -(-batch // 4)
    return min(-(-most // quarter) * quarter, batch)


def finish(
    federation: Federation, sent: Broadcast, own: ClientState, planned: Plan, examples: Examples, running: Running
):
    """A client's reply, and what it keeps: where either is not finite, it keeps what it had. Arguments as in `step`."""
    steps = jnp.stack([planned.first, planned.steps - planned.first])
    delta = jax.tree.map(jnp.subtract, running.params, sent.params)
    context = Context(sent, own.memory, sent.mask, planned.class_counts, federation.features, running.state)
    memory, extra = federation.algorithm.after(delta, context, gradient_weight(steps, federation.momentum))
    shared = running.state if federation.norm == "shared" else ()
    reply = ClientUpdate(delta, extra, shared, steps, examples.count.astype(jnp.float32), running.metrics)
    kept = ClientState(memory, running.state if federation.norm == "local" else ())
    good = finite((delta, extra, kept))
    return reply, jax.tree.map(lambda new, old: jnp.where(good, new, old), kept, own)


def update_shapes(federation: Federation, sent: Broadcast, own: ClientState) -> ClientUpdate:
    """The shapes of a reply to `sent`, for `problems`; `own` is what any client keeps, see `init_own`."""

    def reply(sent, own):
        one, counts = jnp.int32(1), jnp.zeros(federation.num_classes, jnp.float32)
        planned = Plan(jnp.zeros((federation.epochs, 1), jnp.int32), one, one, one, counts)
        examples = Examples(jnp.zeros(1, jnp.int32), one)
        return finish(federation, sent, own, planned, examples, start(federation, sent, own))[0]

    return jax.eval_shape(reply, sent, own)


def finite(tree) -> jax.Array:
    """Whether every number of the tree is finite: a bool scalar."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def whole(federation: Federation, sent: Broadcast, own: ClientState, examples: Examples, key, share, inputs, labels):
    """A client's round as one traced function: (reply, what it keeps); arguments as in `train_client`."""
    planned = plan(federation, sent, labels, examples, key, share)

    def one(number, running):
        return step(federation, sent, own, planned, examples, inputs, labels, number, running)

    running = jax.lax.fori_loop(0, planned.steps, one, start(federation, sent, own))
    return finish(federation, sent, own, planned, examples, running)


def train_client(
    federation: Federation,
    sent: Broadcast,
    own: ClientState,
    inputs: jax.Array,
    labels: jax.Array,
    key: jax.Array,
    share: float = 1.0,
) -> tuple[ClientUpdate, ClientState]:
    """A round of one client by itself.

    Args:
      federation: what all agree on.
      sent: see `federation.send`.
      own: what the client kept from its last round, at first `init_own`.
      inputs: (n, ...) its examples, as they are stored.
      labels: (n,) integers.
      key: `stream(root, ORDER, round, client)`.
      share: of its steps that it makes, in (0, 1].

    Returns:
      The reply, and what the client keeps.

    Raises:
      ValueError: no examples, or another number of labels.
    """
    if len(labels) != len(inputs) or not len(labels):
        raise ValueError(f"a client needs examples and as many labels, got {len(inputs)} and {len(labels)}")
    examples = Examples(jnp.arange(len(labels), dtype=jnp.int32), jnp.int32(len(labels)))
    run = functools.partial(networks.evaluate, federation.network)
    state = own.state if federation.norm == "local" else sent.state
    placement = placement_lib.resolve(federation.placement, run, sent.params, state, inputs[:1])
    federation = federation.of_clients()
    first = (federation, sent, own)
    data, share = (jnp.asarray(inputs), jnp.asarray(labels)), jnp.float32(share)
    if placement != "loop":
        return _whole(*first, examples, key, share, *data)
    planned = _plan(federation, sent, data[1], examples, key, share)
    running = start(*first)
    counts = np.array([len(labels)])
    for number in range(int(planned.steps)):
        rows = rows_of(federation, counts, number)
        running = _step(*first, planned, examples, *data, jnp.int32(number), running, rows)
    return _finish(*first, planned, examples, running)


_whole, _plan, _finish = (jax.jit(function, static_argnums=0) for function in (whole, plan, finish))
_step = jax.jit(step, static_argnums=(0, 9))
