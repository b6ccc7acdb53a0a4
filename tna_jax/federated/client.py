"""One client's round: K steps of SGD from the server's parameters, under the round's mask, and the update that it returns.

`train_client` runs a round of one client by itself, on its own machine. The simulation runs the same functions for many
clients at once: with the same keys both give the same update, however much padding the simulation adds.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, PyTree, Shaped

from tna_jax import labels as labels_lib
from tna_jax import metrics, networks, objectives, optimizers, sharding, transform
from tna_jax import placement as placement_lib
from tna_jax.federated.algorithm import Broadcast, ClientState, ClientUpdate, Context, Tree, gradient_weight, mean_loss
from tna_jax.federated.federation import Federation
from tna_jax.federated.schedules import first_phase, live_in_step
from tna_jax.masks import Params
from tna_jax.metrics import AnyMetrics
from tna_jax.networks import State
from tna_jax.program_cache import static_jit

NETWORK = 2**31 - 1
"""Stream of a client's key for what its network draws in training; the numbers of its passes, from 0, draw their orders."""


class Examples(NamedTuple):
    """A client's examples: rows of arrays that it may share with others."""

    indices: jax.Array
    """(n,) int32 rows, of which the first `count` are the client's; the others are padding."""
    count: Any
    """int32 scalar, n_k."""


class Plan(NamedTuple):
    """What a client does in a round, before it does it."""

    order: jax.Array
    """(E, n) positions in `Examples.indices`, the real ones first, in the order of each pass; (0, n) where the number of passes differs
    between clients: then a step draws the order of its pass."""
    steps: jax.Array
    """int32 scalar, K_k."""
    per_epoch: jax.Array
    """int32 scalar, steps of a full pass."""
    first: jax.Array
    """int32 scalar, steps of the first phase."""
    class_counts: jax.Array
    """(C,) float32, zeros where targets are no class labels."""
    key: jax.Array
    """Of this client in this round, for networks that draw in training."""


class Running(NamedTuple):
    """A client between two steps."""

    params: Params
    state: State
    opt_state: Any
    metrics: AnyMetrics


def order(key: PRNGKeyArray, size: int, count: Int[Array, ""]) -> Int[Array, " size"]:
    """Draws a permutation of the first `count` of `size` positions, followed by the others: (size,) int32.

    It depends on `key` and `count` alone: padding changes nothing.
    """
    with jax.threefry_partitionable(True):
        drawn = jax.random.uniform(key, (size,), jnp.float32)
    return jnp.argsort(jnp.where(jnp.arange(size) < count, drawn, np.float32(2))).astype(jnp.int32)


def plan(
    federation: Federation,
    broadcast: Broadcast,
    labels: Any,
    examples: Examples,
    key: jax.Array,
    share: jax.Array,
) -> Plan:
    """Returns what a client does in a round: the order of its examples, its steps, its class counts.

    Args:
      federation: what all parties agree on.
      broadcast: what the client works with.
      labels: (N,) of the shared arrays, or the targets of another objective.
      examples: the client's.
      key: of this client in this round.
      share: float32 in [0, 1], of its steps that it makes (a straggler makes fewer), at least one; 0: none at all.
    """
    size = examples.indices.shape[0]
    passes = 0 if federation.steps is not None else federation.epochs
    orders = [order(jax.random.fold_in(key, epoch), size, examples.count) for epoch in range(passes)]
    per_epoch, full = -(-examples.count // federation.batch_size), federation.num_steps(examples.count)
    steps = jnp.ceil(share * full.astype(jnp.float32)).astype(jnp.int32)
    real = jnp.arange(size) < examples.count
    if federation.objective.classes:
        numbers = labels_lib.class_numbers(labels)[examples.indices]
        hot = jax.nn.one_hot(numbers, federation.num_classes, dtype=jnp.float32)
        counts = jnp.sum(hot * real[:, None].astype(jnp.float32), axis=0)
    else:
        counts = jnp.zeros(federation.num_classes, jnp.float32)
    first = first_phase(broadcast.split, steps)
    return Plan(
        jnp.stack(orders) if orders else jnp.zeros((0, size), jnp.int32),
        steps,
        jnp.maximum(per_epoch, 1),
        first,
        counts,
        key,
    )


def start(federation: Federation, broadcast: Broadcast, client_state: ClientState) -> Running:
    """Returns a client before its first step."""
    state = client_state.state if federation.norm == "local" else broadcast.state
    optimizer = federation.client_optimizer(broadcast.learning_rate)
    return Running(broadcast.params, state, optimizer.init(broadcast.params), federation.objective.zero())


def step(
    federation: Federation,
    broadcast: Broadcast,
    client_state: ClientState,
    local_plan: Plan,
    examples: Examples,
    inputs: Any,
    labels: Any,
    number: jax.Array,
    running: Running,
    rows: int | None = None,
) -> Running:
    """Makes local step `number` (from 0, below the plan's `steps`) on `rows` rows, see `num_rows`; other arguments as in `train_client`."""
    size, batch = examples.indices.shape[0], federation.batch_size
    at = (number % local_plan.per_epoch) * batch + jnp.arange(rows or batch, dtype=jnp.int32)
    weight = (at < examples.count).astype(jnp.float32)
    which = number // local_plan.per_epoch
    if local_plan.order.shape[0]:
        positions = local_plan.order[which]
    else:
        positions = order(jax.random.fold_in(local_plan.key, which), size, examples.count)
    chosen = examples.indices[positions[jnp.minimum(at, size - 1)]]
    x, y = jax.tree.map(lambda array: array[chosen], (inputs, labels))
    algorithm, objective = federation.algorithm, federation.objective
    drawn = jax.random.fold_in(local_plan.key, NETWORK)
    key = jax.random.fold_in(drawn, number) if networks.wants_key(federation.network) else None
    live = live_in_step(broadcast.mask, number >= local_plan.first)
    context = Context(broadcast, client_state.memory, live, local_plan.class_counts, federation.features, running.state)

    def loss(params: Params) -> tuple[jax.Array, tuple[AnyMetrics, State]]:
        outputs, state = networks.train(federation.network, params, running.state, x, weight, key)
        _check_outputs(federation, outputs)
        sums = objective.sums(outputs, y, weight)
        value = mean_loss(algorithm.logits(outputs, context), y, weight, objective)
        penalty = algorithm.penalty(params, x, weight, context)
        return value if penalty is None else value + penalty, (sums, state)

    def evaluate(params: Params) -> tuple[Params, tuple[AnyMetrics, State]]:
        gradient, rest = jax.grad(loss, has_aux=True)(params)
        return optimizers.steepest(gradient), rest

    gradient, (sums, state) = algorithm.descend(evaluate, running.params, context)
    gradient = algorithm.gradient(gradient, running.params, context)
    optimizer = federation.client_optimizer(broadcast.learning_rate)
    updates, opt_state = optimizer.update(gradient, running.opt_state, running.params, mask=live)
    params = transform.apply_updates(running.params, updates, live)
    return Running(params, state, opt_state, metrics.merge(running.metrics, sums))


def _check_outputs(federation: Federation, outputs: Any) -> None:
    """Raises ValueError for logits of fewer classes than there are: a label without a logit has no loss, and JAX would take that of another."""
    shape = np.shape(outputs) if federation.objective.classes else (federation.num_classes,)
    if not shape or shape[-1] < federation.num_classes:
        raise ValueError(
            f"the network's outputs have the shape {shape}, for {federation.num_classes} classes (num_classes) they must end in as many logits"
        )


def num_rows(federation: Federation, counts: np.ndarray, number: int) -> int:
    """Returns how many rows hold the examples of step `number` for clients with `counts` examples
    each: one to four quarters of a batch.

    The last batch of a pass is seldom full. A program for each size is what a loop over steps can have; a compiled loop cannot.
    """
    batch = federation.batch_size
    at = number % np.maximum(-(-counts // batch), 1) * batch
    most, quarter = int(np.minimum(counts - at, batch).max()), -(-batch // 4)
    return min(-(-most // quarter) * quarter, batch)


def finish(
    federation: Federation,
    broadcast: Broadcast,
    client_state: ClientState,
    local_plan: Plan,
    examples: Examples,
    running: Running,
) -> tuple[ClientUpdate, ClientState]:
    """Returns a client's update and its new state: the one it had where either is not finite. Arguments as in `step`."""
    steps = jnp.stack([local_plan.first, local_plan.steps - local_plan.first])
    delta = jax.tree.map(jnp.subtract, running.params, broadcast.params)
    context = Context(
        broadcast, client_state.memory, broadcast.mask, local_plan.class_counts, federation.features, running.state
    )
    memory, extra = federation.algorithm.after(delta, context, gradient_weight(steps, federation.momentum))
    shared = running.state if federation.norm == "shared" else ()
    update = ClientUpdate(delta, extra, shared, steps, examples.count.astype(jnp.float32), running.metrics)
    new_state = ClientState(memory, running.state if federation.norm == "local" else ())
    all_finite = finite((delta, extra, new_state))
    return update, jax.tree.map(lambda new, old: jnp.where(all_finite, new, old), new_state, client_state)


def update_shapes(federation: Federation, broadcast: Broadcast, client_state: ClientState) -> ClientUpdate:
    """Returns the shapes of an update under `broadcast`, for `validate_update`; `client_state`: of any client, see `init_client_state`."""

    def update(broadcast: Broadcast, client_state: ClientState) -> ClientUpdate:
        unit, counts = jnp.int32(1), jnp.zeros(federation.num_classes, jnp.float32)
        key = jax.random.key(0)
        local_plan = Plan(jnp.zeros((federation.epochs, 1), jnp.int32), unit, unit, unit, counts, key)
        examples = Examples(jnp.zeros(1, jnp.int32), unit)
        return finish(
            federation, broadcast, client_state, local_plan, examples, start(federation, broadcast, client_state)
        )[0]

    shapes: ClientUpdate = jax.eval_shape(update, broadcast, client_state)
    return shapes


def finite(tree: Tree) -> jax.Array:
    """Returns whether every number of the tree is finite: a bool scalar."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def run_round(
    federation: Federation,
    broadcast: Broadcast,
    client_state: ClientState,
    examples: Examples,
    key: jax.Array,
    share: jax.Array,
    inputs: jax.Array,
    labels: jax.Array,
) -> tuple[ClientUpdate, ClientState]:
    """Makes a client's round as one traced function: (its update, its new state); arguments as in `train_client`."""
    local_plan = plan(federation, broadcast, labels, examples, key, share)

    def body(number: jax.Array, running: Running) -> Running:
        return step(federation, broadcast, client_state, local_plan, examples, inputs, labels, number, running)

    running = jax.lax.fori_loop(0, local_plan.steps, body, start(federation, broadcast, client_state))
    return finish(federation, broadcast, client_state, local_plan, examples, running)


@sharding.outside_meshes
def train_client(
    federation: Federation,
    broadcast: Broadcast,
    client_state: ClientState,
    inputs: PyTree[Shaped[Array | np.ndarray, "..."]],
    labels: PyTree[Shaped[Array | np.ndarray, "..."]],
    key: PRNGKeyArray,
    share: float = 1.0,
) -> tuple[ClientUpdate, ClientState]:
    """Trains one client for a round, by itself.

    Args:
      federation: what all parties agree on.
      broadcast: what the server sent, see `federation.broadcast`.
      client_state: from the client's last round, at first `init_client_state`.
      inputs: (n, ...) its examples, as they are stored, any pytree.
      labels: (n,) integers, or the objective's targets, (n, ...) in every leaf.
      key: `stream(root, ORDER, round, client)`.
      share: of its steps that it makes, in (0, 1].

    Its examples are padded to `num_padded` rows, which changes nothing but that clients of different sizes share compiled programs.

    Returns:
      The client's update, and its new state.

    Raises:
      ValueError: no examples, or another number of labels; fewer logits than classes; a share out of range.
    """
    if not 0 < float(share) <= 1:
        raise ValueError(f"the share of its steps that a client makes must lie in (0, 1], got {float(share):g}")
    count = _count(federation, inputs, labels)
    rows = num_padded(count, inputs, labels)
    inputs, labels = jax.tree.map(lambda array: _padded(array, rows), (inputs, labels))
    examples = Examples(jnp.minimum(jnp.arange(rows, dtype=jnp.int32), count - 1), jnp.int32(count))
    run = functools.partial(networks.evaluate, federation.network)
    state = client_state.state if federation.norm == "local" else broadcast.state
    placement = placement_lib.resolve(
        federation.placement, run, broadcast.params, state, jax.tree.map(lambda x: x[:1], inputs)
    )
    federation = federation.of_clients()
    first = (federation, broadcast, client_state)
    data, share = jax.tree.map(jnp.asarray, (inputs, labels)), jnp.float32(share)
    if placement != "loop":
        reply: tuple[ClientUpdate, ClientState] = _run_round(*first, examples, key, share, *data)
        return reply
    local_plan = _plan(federation, broadcast, data[1], examples, key, share)
    running = start(*first)
    counts = np.array([count])
    for number in range(int(local_plan.steps)):
        rows = num_rows(federation, counts, number)
        running = _step(*first, local_plan, examples, *data, jnp.int32(number), running, rows)
    reply = _finish(*first, local_plan, examples, running)
    return reply


def num_padded(count: int, *data: Any) -> int:
    """Returns to how many rows a client's `count` examples are padded, so that clients of different sizes share a compiled program.

    1,024, then 4 times as many and so on, as long as that is at most 64 MiB; else the next power of two.
    """
    sizes = [np.prod(np.shape(x)[1:], dtype=np.int64) * x.dtype.itemsize for x in jax.tree.leaves(data)]
    rows = 1024
    while rows < count:
        rows *= 4
    return rows if rows * int(sum(sizes)) <= PADDED_BYTES else 1 << (count - 1).bit_length()


PADDED_BYTES = 64 * 2**20
"""See `num_padded`."""


def _padded(array: Any, rows: int) -> Any:
    """Repeats the last row; where a NumPy array is given, without compiling anything."""
    xp = np if isinstance(array, np.ndarray) else jnp
    more = rows - array.shape[0]
    return xp.concatenate([array, xp.repeat(array[-1:], more, axis=0)]) if more else array


def _count(federation: Federation, inputs: Any, labels: Any) -> int:
    """n; ValueError where a client has no examples, or not as many targets."""
    classes = federation.num_classes if federation.objective.classes else None
    if not (count := objectives.check_examples(federation.objective, inputs, labels, "a client: ", classes)):
        raise ValueError("a client needs examples and as many labels, got none")
    return count


_run_round, _plan, _finish = (static_jit(function) for function in (run_round, plan, finish))
_step = static_jit(step, 9)
