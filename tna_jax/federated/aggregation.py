"""From the clients' updates to the server's next state: what is refused, what is averaged, the server's step.

The same functions end a simulated round (whose updates are summed in groups, on several devices) and a deployed one.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray

from tna_jax import networks, sharding, trees
from tna_jax.federated import privacy as privacy_lib
from tna_jax.federated import schedules, servers
from tna_jax.federated.algorithm import Broadcast, ClientUpdate, Tree, gradient_weight
from tna_jax.federated.federation import Federation, Server
from tna_jax.federated.robust import clipped, widened
from tna_jax.federated.schedules import live_in_round
from tna_jax.masks import Mask, Params
from tna_jax.metrics import AnyMetrics
from tna_jax.networks import State
from tna_jax.placement import Placement
from tna_jax.program_cache import static_jit


class Aggregate(NamedTuple):
    """Sums over the accepted updates of a round; `merge` adds two of them."""

    total: dict[str, Tree]
    """Weighted sums of `Algorithm.summand`, and of `state`."""
    teacher: Tree
    """(P, C) summed logits on the server's proxy data; `()` without distillation."""
    weight: jax.Array
    """float32, the sum of the weights."""
    accepted: jax.Array
    """float32, how many updates."""
    steps: jax.Array
    """(2,) int32, steps made in each phase by all of them. Of a server with privacy: which phases the round can have, see `of_nobody`."""
    metrics: AnyMetrics


def merge(a: Aggregate, b: Aggregate) -> Aggregate:
    """Returns the sums over both sets of updates."""
    both: Aggregate = jax.tree.map(jnp.add, a, b)
    return both


@sharding.outside_meshes
def aggregate(
    federation: Federation, broadcast: Broadcast, updates: ClientUpdate, accepted: Bool[Array, " G"], proxy: Any = ()
) -> Aggregate:
    """Computes the sums over the accepted ones of G updates.

    Args:
      federation: what all parties agree on.
      broadcast: what the clients worked with.
      updates: leaves (G, ...).
      accepted: (G,) bool; an update that is not accepted may hold anything, non-finite numbers too.
      proxy: (P, ...) the server's proxy data, for distillation.

    Raises:
      ValueError: `accepted` is not one bool for each update; a server that distils without proxy data.
    """
    check_proxy(federation, proxy)
    count = np.shape(updates.examples)
    if np.shape(accepted) != count or jnp.result_type(accepted) != bool:
        raise ValueError(
            f"accepted says True or False of each update, bool {count}; got {jnp.result_type(accepted)} {np.shape(accepted)}"
        )
    summed: Aggregate = _sums(federation.of_sums(), "vmap", broadcast, updates, accepted, proxy)
    return (
        combined(federation, summed, summands(federation, broadcast, updates), accepted)
        if combines(federation)
        else summed
    )


@sharding.outside_meshes
def of_nobody(federation: Federation, broadcast: Broadcast) -> Aggregate:
    """Returns the sums over no update, of a server with privacy: its step is made of noise.

    Whether a round had a client at all must not show in the model, nor which steps its clients made: noise goes to every entry that can be
    live in the round.
    """
    nothing: Aggregate = _of_nobody(federation.of_sums(), broadcast)
    return nothing


@static_jit
def _of_nobody(federation: Federation, broadcast: Broadcast) -> Aggregate:
    zero, steps = jnp.float32(0), schedules.phases(broadcast.split).astype(jnp.int32)
    moves = servers.in_float32(jax.tree.map(jnp.zeros_like, broadcast.params))
    return Aggregate({"delta": moves}, (), zero, zero, steps, federation.objective.zero())


def combines(federation: Federation) -> bool:
    """Returns whether the server's rule needs all updates at once: then sums of parts of them cannot be merged."""
    return federation.server.robust is not None and federation.server.robust.combines


def combined(federation: Federation, aggregate: Aggregate, parts: dict[str, Tree], accepted: Any) -> Aggregate:
    """Returns the sums with what a robust rule makes of all updates in the place of their weighted sum.

    Args:
      federation: its server combines.
      aggregate: sums over all of the updates, for what is counted.
      parts: of `summands`, leaves (G, ...).
      accepted: (G,) bool.
    """
    total = _combine(federation.of_sums(), parts, jnp.asarray(accepted))
    return aggregate._replace(total=total, weight=jnp.float32(1))


@static_jit
def _combine(federation: Federation, parts: dict[str, Tree], accepted: jax.Array) -> dict[str, Tree]:
    assert federation.server.robust is not None
    total: dict[str, Tree] = federation.server.robust.combine(parts, accepted)
    return total


def summands(federation: Federation, broadcast: Broadcast, updates: ClientUpdate) -> dict[str, Tree]:
    """Returns what of each of G updates is averaged, leaves (G, ...)."""
    parts: dict[str, Tree] = _summands(federation.of_clients(), broadcast, updates)
    return parts


@static_jit
def _summands(federation: Federation, broadcast: Broadcast, updates: ClientUpdate) -> dict[str, Tree]:
    return jax.vmap(lambda update: summand(federation, broadcast, update))(updates)


def check_proxy(federation: Federation, proxy: Any) -> None:
    """Raises ValueError where the server distils and there is nothing to distil on."""
    if federation.server.distillation is not None and not jax.tree.leaves(proxy):
        raise ValueError(f"{federation.server.title} distils on unlabeled inputs: give them as proxy=")


def sums(
    federation: Federation,
    placement: Placement,
    broadcast: Broadcast,
    updates: ClientUpdate,
    accepted: jax.Array,
    proxy: Any,
) -> Aggregate:
    """Computes what `aggregate` does, traced. `placement`: under `map` the clients' logits are computed one client after the other, else in lockstep."""
    rule = federation.server
    by_examples = federation.algorithm.weighting == "examples" and rule.robust is None and rule.privacy is None
    counted = updates.examples if by_examples else jnp.ones_like(updates.examples)
    if rule.robust is not None:
        updates = jax.vmap(rule.robust.bound)(updates)
    if rule.privacy is not None:
        norm = rule.privacy.clip
        updates = updates._replace(delta=jax.vmap(lambda delta: clipped(delta, norm))(updates.delta))
    weight = jnp.where(accepted, counted, jnp.float32(0))
    summands = jax.vmap(lambda update: summand(federation, broadcast, update))(updates)
    total = jax.tree.map(lambda leaf: _weighted(leaf, weight), summands)
    count = accepted.astype(jnp.float32)
    teacher: Any = ()
    if federation.server.distillation is not None:
        logits = functools.partial(_logits, federation, broadcast, proxy)
        models = (updates.delta, updates.state)
        teacher = _weighted(jax.lax.map(logits, models) if placement == "map" else jax.vmap(logits)(models), count)
    steps = jnp.sum(jnp.where(accepted[:, None], updates.steps, 0), axis=0, dtype=jnp.int32)
    if rule.privacy is not None:
        steps = schedules.phases(broadcast.split).astype(jnp.int32)
    scores = jax.tree.map(lambda x: _weighted(x, count), updates.metrics)
    return Aggregate(total, teacher, jnp.sum(weight), jnp.sum(count), steps, scores)


_sums = static_jit(sums, 1)


def summand(federation: Federation, broadcast: Broadcast, update: ClientUpdate) -> dict[str, Tree]:
    """Returns what of one update is averaged."""
    weight = gradient_weight(update.steps, federation.momentum)
    parts = federation.algorithm.summand(update, broadcast.mask, weight)
    return {**parts, "state": update.state} if federation.norm == "shared" else parts


@sharding.outside_meshes
def server_update(
    federation: Federation,
    server: Server,
    broadcast: Broadcast,
    aggregate: Aggregate,
    key: PRNGKeyArray,
    proxy: Any = (),
) -> Server:
    """Returns the server after the round.

    Args:
      federation: what all parties agree on.
      server: before the round.
      broadcast: what the clients worked with.
      aggregate: sums over the updates; at least one was accepted, or `of_nobody` under a server with privacy.
      key: `stream(root, DISTIL, round)`. Of a server with `privacy` it draws the noise: outside of simulations it must be secret.
      proxy: as in `aggregate`.

    Returns:
      The server; whatever belongs to an entry that was live in no step of any client is copied from `server`, bit for bit.
    """
    if federation.server.privacy is not None:
        aggregate = _with_noise(federation, broadcast, aggregate, key)
    server, live, teacher = _stepped(federation, server, broadcast, aggregate)
    rule = federation.server.distillation
    if rule is None:
        return server
    state = _distiller(federation, server.params)
    params = server.params
    for number in range(rule.steps):
        params, state = _distil(federation, params, state, server.state, live, proxy, teacher, key, np.int32(number))
    return server._replace(params=params)


@static_jit
def _with_noise(federation: Federation, broadcast: Broadcast, aggregate: Aggregate, key: jax.Array) -> Aggregate:
    """The sum of the clipped moves with noise on what could be live, over the number of clients that was to be expected."""
    privacy = federation.server.privacy
    assert privacy is not None
    live = live_in_round(broadcast.mask, aggregate.steps)
    noisy = privacy_lib.noise(privacy, key, aggregate.total["delta"], live)
    return aggregate._replace(total={"delta": noisy}, weight=jnp.float32(privacy.expected))


def is_finite(server: Server) -> bool:
    """Returns whether every number of the server's state is finite. The sum of finite updates may not be: it can overflow."""
    return bool(_finite(server))


@jax.jit
def _finite(server: Server) -> jax.Array:
    numbers = [leaf for leaf in jax.tree.leaves(server) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in numbers]))


@static_jit
def _stepped(
    federation: Federation, server: Server, broadcast: Broadcast, aggregate: Aggregate
) -> tuple[Server, Mask, Tree]:
    """The server after its step, what was live, and the mean of the clients' logits."""
    live = live_in_round(broadcast.mask, aggregate.steps)
    weight = jnp.maximum(aggregate.weight, jnp.float32(1e-30))
    average = jax.tree.map(lambda x: x / weight.astype(x.dtype), aggregate.total)
    state = jax.tree.map(
        lambda new, old: jnp.where(aggregate.accepted > 0, _in_type(new, old.dtype), old),
        average.pop("state", server.state),
        server.state,
    )
    share = aggregate.accepted / np.float32(federation.clients)
    direction, extra = federation.algorithm.direction(average, server.extra, live, share)
    params, opt_state = servers.step(federation.server.optimizer, server.params, server.opt_state, direction, live)
    teacher = jax.tree.map(lambda x: x / jnp.maximum(aggregate.accepted, jnp.float32(1)), aggregate.teacher)
    return Server(params, state, opt_state, extra), live, teacher


def _in_type(average: jax.Array, dtype: Any) -> jax.Array:
    """An average, float32, in the type of what was averaged: a counter's is the nearest integer, not the one below."""
    return (jnp.round(average) if jnp.issubdtype(dtype, jnp.integer) else average).astype(dtype)


@static_jit
def _distiller(federation: Federation, params: Params) -> Any:
    assert federation.server.distillation is not None
    return servers.distiller(federation.server.distillation).init(params)


@static_jit
def _distil(
    federation: Federation,
    params: Params,
    opt_state: Any,
    state: State,
    live: Mask,
    proxy: jax.Array,
    teacher: jax.Array,
    key: jax.Array,
    number: jax.Array,
) -> tuple[Params, Any]:
    """A step of distillation: a Python loop over it serves networks with convolutions too."""
    assert federation.server.distillation is not None
    rule = federation.server.distillation

    def evaluate(params: Params, inputs: jax.Array) -> jax.Array:
        return networks.evaluate(federation.network, params, state, inputs)

    step_key = jax.random.fold_in(key, number)
    return servers.distil(rule, evaluate, params, opt_state, live, proxy, teacher, step_key)


def validate_update(like: ClientUpdate, update: ClientUpdate, examples: float | None = None) -> list[str]:
    """Returns what is wrong with an update, in words, each with the path of its array; empty if it can be accepted.

    Args:
      like: an update of the right form, arrays or shapes: `update_shapes`.
      update: what came, NumPy or JAX.
      examples: the number of examples that the client is known to have, if it is.
    """
    expected = {trees.name(path): leaf for path, leaf in trees.named_leaves(like._asdict())}
    received = {trees.name(path): leaf for path, leaf in trees.named_leaves(update._asdict())}
    wrong = [f"{name} is missing" for name in expected if name not in received]
    wrong += [f"{name} was not asked for" for name in received if name not in expected]
    for name, leaf in received.items():
        if name not in expected:
            continue
        shape, dtype = np.shape(leaf), np.dtype(leaf.dtype)
        want_shape, want_dtype = np.shape(expected[name]), np.dtype(expected[name].dtype)
        if (shape, dtype) != (want_shape, want_dtype):
            wrong.append(f"{name} is {dtype} {list(shape)}, expected {want_dtype} {list(want_shape)}")
        elif jnp.issubdtype(dtype, np.inexact) and (odd := np.count_nonzero(~np.isfinite(np.asarray(leaf)))):
            wrong.append(f"{name} holds {odd} numbers that are not finite")
    if wrong:
        return wrong
    if not float(update.examples) > 0:
        wrong.append(f"it counts {float(update.examples):g} examples")
    elif examples is not None and float(update.examples) != np.float32(examples):
        wrong.append(f"it counts {float(update.examples):g} examples, it has {examples:g}")
    if int(np.asarray(update.steps).min()) < 0 or not int(np.asarray(update.steps).sum()):
        wrong.append(f"it made {np.asarray(update.steps).tolist()} steps")
    return wrong


def stack(updates: Sequence[ClientUpdate]) -> ClientUpdate:
    """Stacks updates: leaves (G, ...); ValueError if there are none."""
    if not updates:
        raise ValueError(
            "there are no updates to stack: without any the server stays as it is (with privacy: of_nobody)"
        )
    stacked: ClientUpdate = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *updates)
    return stacked


def _logits(federation: Federation, broadcast: Broadcast, proxy: jax.Array, client: tuple[Params, State]) -> jax.Array:
    """(P, C) logits of one client's model."""
    delta, state = client
    params = jax.tree.map(jnp.add, broadcast.params, delta)
    return networks.evaluate(federation.network, params, state, proxy)


def _weighted(leaf: jax.Array, weight: jax.Array) -> jax.Array:
    """(G, ...) by (G,): the weighted sum; what has weight 0 may be anything."""
    w = weight.reshape(-1, *(1,) * (leaf.ndim - 1))
    leaf = widened(leaf)
    return jnp.sum(jnp.where(w > 0, w.astype(leaf.dtype) * leaf, jnp.zeros((), leaf.dtype)), axis=0)
