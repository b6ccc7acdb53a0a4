"""From the clients' replies to the server's next state: what is refused, what is averaged, the step.

The same functions close a simulated round (whose replies are summed in groups, on several devices) and a deployed one.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import metrics, networks, trees
from tna_jax.federated import servers
from tna_jax.federated.algorithm import Broadcast, ClientUpdate, Tree, gradient_weight
from tna_jax.federated.federation import Federation, Server
from tna_jax.federated.schedules import live_in_round
from tna_jax.metrics import Metrics
from tna_jax.placement import Placement


class Aggregate(NamedTuple):
    """Sums over the replies that were taken; `merge` adds two of them."""

    total: dict[str, Tree]
    """Weighted sums of `Algorithm.summand`, and of `state`."""
    teacher: Tree
    """(P, C) summed logits on the server's proxy data; `()` without distillation."""
    weight: jax.Array
    """float32, the sum of the weights."""
    taken: jax.Array
    """float32, how many replies."""
    steps: jax.Array
    """(2,) int32, steps made in each phase by all of them."""
    metrics: Metrics


def merge(a: Aggregate, b: Aggregate) -> Aggregate:
    """The sums over both sets of replies."""
    return jax.tree.map(jnp.add, a, b)


def aggregate(
    federation: Federation, sent: Broadcast, replies: ClientUpdate, taken: jax.Array, proxy: Any = ()
) -> Aggregate:
    """Sums over G replies.

    Args:
      sent: what the clients worked with.
      replies: leaves (G, ...).
      taken: (G,) bool; a reply that is not taken may hold anything, also non-finite numbers.
      proxy: (P, ...) the server's proxy data, for distillation.
    """
    check_proxy(federation, proxy)
    if federation.server.distillation is None:
        federation = federation.of_clients()  # sums do not depend on the server: compiled once for all
    return _sums(federation, "vmap", sent, replies, taken, proxy)


def check_proxy(federation: Federation, proxy: Any) -> None:
    """Raises ValueError where the server distils and there is nothing to distil on."""
    if federation.server.distillation is not None and not jax.tree.leaves(proxy):
        raise ValueError(f"{federation.server.title} distils on unlabelled inputs: give them as proxy=")


def sums(
    federation: Federation, placement: Placement, sent: Broadcast, replies: ClientUpdate, taken: jax.Array, proxy: Any
) -> Aggregate:
    """As `gather`, traced. `placement`: under `map` the clients' logits are computed one client after the other, else in lockstep."""
    counted = replies.examples if federation.algorithm.weighting == "examples" else jnp.ones_like(replies.examples)
    weight = jnp.where(taken, counted, jnp.float32(0))
    summands = jax.vmap(lambda reply: summand(federation, sent, reply))(replies)
    total = jax.tree.map(lambda leaf: _weighted(leaf, weight), summands)
    one = taken.astype(jnp.float32)
    teacher: Any = ()
    if federation.server.distillation is not None:
        each = functools.partial(_logits, federation, sent, proxy)
        both = (replies.delta, replies.state)
        teacher = _weighted(jax.lax.map(each, both) if placement == "map" else jax.vmap(each)(both), one)
    steps = jnp.sum(jnp.where(taken[:, None], replies.steps, 0), axis=0, dtype=jnp.int32)
    found = metrics.Metrics(*(_weighted(x, one) for x in replies.metrics))
    return Aggregate(total, teacher, jnp.sum(weight), jnp.sum(one), steps, found)


_sums = jax.jit(sums, static_argnums=(0, 1))


def summand(federation: Federation, sent: Broadcast, reply: ClientUpdate) -> dict[str, Tree]:
    """What of one reply is averaged."""
    weight = gradient_weight(reply.steps, federation.momentum)
    found = federation.algorithm.summand(reply, sent.mask, weight)
    return {**found, "state": reply.state} if federation.norm == "shared" else found


def server_update(
    federation: Federation, server: Server, sent: Broadcast, found: Aggregate, key: jax.Array, proxy: Any = ()
) -> Server:
    """The server after the round.

    Args:
      server: before the round.
      sent: what the clients worked with.
      found: sums over the replies; at least one was taken.
      key: `stream(root, DISTIL, round)`.
      proxy: as in `gather`.

    Returns:
      The server; whatever belongs to an entry that was live in no step of any client is copied from `server`, bit for bit.
    """
    server, live, teacher = _stepped(federation, server, sent, found)
    rule = federation.server.distillation
    if rule is None:
        return server
    state = _distiller(federation, server.params)
    params = server.params
    for number in range(rule.steps):
        params, state = _distil(federation, params, state, server.state, live, proxy, teacher, key, np.int32(number))
    return server._replace(params=params)


def is_finite(server: Server) -> bool:
    """Whether every number of the server's state is finite. The sum of finite replies may not be: it can overflow."""
    return bool(_finite(server))


@jax.jit
def _finite(server: Server) -> jax.Array:
    numbers = [leaf for leaf in jax.tree.leaves(server) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in numbers]))


@functools.partial(jax.jit, static_argnums=0)
def _stepped(federation: Federation, server: Server, sent: Broadcast, found: Aggregate):
    """The server after its step, what was live, and the mean of the clients' logits."""
    live = live_in_round(sent.mask, found.steps)
    average = jax.tree.map(lambda x: x / jnp.maximum(found.weight, jnp.float32(1e-30)), found.total)
    state = jax.tree.map(
        lambda new, old: jnp.where(found.taken > 0, new, old), average.pop("state", server.state), server.state
    )
    share = found.taken / np.float32(federation.clients)
    direction, extra = federation.algorithm.direction(average, server.extra, live, share)
    params, opt_state = servers.step(federation.server.optimizer, server.params, server.opt_state, direction, live)
    teacher = jax.tree.map(lambda x: x / jnp.maximum(found.taken, jnp.float32(1)), found.teacher)
    return Server(params, state, opt_state, extra), live, teacher


@functools.partial(jax.jit, static_argnums=0)
def _distiller(federation: Federation, params):
    assert federation.server.distillation is not None
    return servers.distiller(federation.server.distillation).init(params)


@functools.partial(jax.jit, static_argnums=0)
def _distil(federation: Federation, params, opt_state, state, live, proxy, teacher, key, number):
    """A step of distillation: a Python loop over it serves networks with convolutions too."""
    assert federation.server.distillation is not None
    rule = federation.server.distillation

    def evaluate(params, inputs):
        return networks.evaluate(federation.network, params, state, inputs)

    own = jax.random.fold_in(key, number)
    return servers.distil(rule, evaluate, params, opt_state, live, proxy, teacher, own)


def validate_update(like: ClientUpdate, reply: ClientUpdate, examples: float | None = None) -> list[str]:
    """What is wrong with a reply, in words, each with the path of its array; empty if it can be taken.

    Args:
      like: a reply of the right form, arrays or shapes.
      reply: what came, NumPy or JAX.
      examples: the number of examples that the client is known to have, if it is.
    """
    wanted = {trees.name(path): leaf for path, leaf in trees.named_leaves(like._asdict())}
    got = {trees.name(path): leaf for path, leaf in trees.named_leaves(reply._asdict())}
    wrong = [f"{name} is missing" for name in wanted if name not in got]
    wrong += [f"{name} was not asked for" for name in got if name not in wanted]
    for name, leaf in got.items():
        if name not in wanted:
            continue
        form, expected = (np.shape(leaf), np.dtype(leaf.dtype)), (np.shape(wanted[name]), np.dtype(wanted[name].dtype))
        if form != expected:
            wrong.append(f"{name} is {form[1]} {list(form[0])}, expected {expected[1]} {list(expected[0])}")
        elif jnp.issubdtype(form[1], np.inexact) and not np.isfinite(np.asarray(leaf, np.float32)).all():
            wrong.append(
                f"{name} holds {np.count_nonzero(~np.isfinite(np.asarray(leaf, np.float32)))} numbers that are not finite"
            )
    if wrong:
        return wrong
    if not float(reply.examples) > 0:
        wrong.append(f"it counts {float(reply.examples):g} examples")
    elif examples is not None and float(reply.examples) != np.float32(examples):
        wrong.append(f"it counts {float(reply.examples):g} examples, it has {examples:g}")
    if int(np.asarray(reply.steps).min()) < 0 or not int(np.asarray(reply.steps).sum()):
        wrong.append(f"it made {np.asarray(reply.steps).tolist()} steps")
    return wrong


def stack(replies: Sequence[ClientUpdate]) -> ClientUpdate:
    """Replies one by one as leaves (G, ...)."""
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *replies)


def _logits(federation: Federation, sent: Broadcast, proxy: jax.Array, client) -> jax.Array:
    """(P, C) logits of one client's model."""
    delta, state = client
    params = jax.tree.map(jnp.add, sent.params, delta)
    return networks.evaluate(federation.network, params, state, proxy)


def _weighted(leaf: jax.Array, weight: jax.Array) -> jax.Array:
    """(G, ...) by (G,): the weighted sum; what has weight 0 may be anything."""
    w = weight.reshape(-1, *(1,) * (leaf.ndim - 1))
    return jnp.sum(jnp.where(w > 0, w * leaf.astype(jnp.float32), jnp.zeros((), jnp.float32)), axis=0)
