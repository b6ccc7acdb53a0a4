"""Reading clients' replies: whatever comes is either a reply of the right form or a list of what is wrong with it."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import federated
from tna_jax.federated import Broadcast, ClientUpdate, Federation, packing
from tna_jax.federated.schedules import first_phase, live_in_round
from tna_jax.flower import protocol, wire
from tna_jax.flower.protocol import Answer
from tna_jax.flower.sanitize import shown
from tna_jax.flower.task import Task
from tna_jax.masks import Params
from tna_jax.metrics import Metrics


def form(task: Task, server: federated.Server, sent: Broadcast) -> ClientUpdate:
    """The shapes of a reply to `sent`."""
    return federated.update_shapes(task.federation, sent, federated.init_client_state(task.federation, server))


def wrong_numbers(metrics: Mapping[str, Any], client: int, number: int, examples: int | None = None) -> list[str]:
    """What is wrong with the numbers of an answer of `client` in round `number`, in words; empty if nothing is.

    Args:
      examples: how many the client introduced itself with, if it did. They are compared as integers: float32 has no 2^24 + 1.
    """
    whole, any_number = ("client", "round", "num-examples"), ("loss-sum", "correct")
    problems = [f"its {name} is {shown(metrics.get(name))}" for name in whole if type(metrics.get(name)) is not int]
    problems += [
        f"its {name} is {shown(metrics.get(name))}" for name in any_number if type(metrics.get(name)) is not float
    ]
    if problems:
        return problems
    if metrics["client"] != client:
        problems.append(f"it says that it is client {metrics['client']}")
    if metrics["round"] != number:
        problems.append(f"it answers round {metrics['round']}, this is round {number}")
    counted = metrics["num-examples"]
    if not 1 <= counted < 2**53:
        problems.append(f"it counts {counted} examples")
    elif examples is not None and counted != examples:
        problems.append(f"it counts {counted} examples, it introduced itself with {examples}")
    return problems


def wrong_sums(metrics: Mapping[str, Any], count: int) -> list[str]:
    """What is wrong with the sums over `count` examples, in words."""
    problems, limit = [], float(np.finfo(np.float32).max)
    loss, correct, counted = (_float(metrics.get(name)) for name in ("loss-sum", "correct", "count"))
    if not -1e-6 * count <= loss <= limit:  # a loss is 0 up to rounding, or more
        problems.append(f"its loss-sum is {shown(metrics.get('loss-sum'))}")
    if not _counted(counted, count):
        problems.append(f"its count is {shown(metrics.get('count'))}, expected {count}")
    elif not 0 <= correct <= counted:
        problems.append(f"its correct is {shown(metrics.get('correct'))}, of {count}")
    return problems


def _float(value: Any) -> float:
    return value if isinstance(value, float) else float("nan")


def _counted(value: float, expected: int) -> bool:
    """Whether a sum of float32 ones is what it should be: exact below 2^24, beyond it need not grow."""
    return value == expected if expected <= 2**24 else 2**24 <= value <= 1.01 * expected


def steps_of(federation: Federation, split: jax.Array, examples: int) -> list[int]:
    """The steps in both phases of a client with so many examples, as `local.plan` makes them."""
    made = int(np.ceil(np.float32(-(-examples // federation.batch_size) * federation.epochs)))
    first = int(first_phase(split, jnp.int32(made)))
    return [first, made - first]


def unpacked(
    task: Task, like: ClientUpdate, params: Params, sent: Broadcast, answer: Answer
) -> tuple[ClientUpdate | None, list[str]]:
    """The reply in an answer whose numbers are sound, or what is wrong with its steps, sums and arrays, each by name.

    Args:
      like: the form, see `form`.
      params: the server's; variates are like them.
      sent: what the clients work with in this round.
    """
    examples = answer.metrics["num-examples"]
    steps, made = steps_of(task.federation, sent.split, examples), answer.metrics.get("steps")
    problems = [] if made == steps else [f"its steps are {shown(made)}, expected {steps}"]
    if problems := problems + wrong_sums(answer.metrics, examples * task.federation.epochs):
        return None, problems
    live = live_in_round(sent.mask, jnp.array(steps))
    parts, problems = wire.from_wire(answer.arrays, PARTS)
    trees: dict[str, Any] = {}
    for name, packed in parts.items():
        own = getattr(like, name)
        mask = None if name == "state" else protocol.mask_for(own, params, live)
        empty = protocol.zeros(own)
        if wrong := packing.misfits(packed, empty, mask):
            problems += [f"{name}: {words}" for words in wrong]
        else:
            trees[name] = packing.unpack(packed, empty, mask)
    if problems:
        return None, problems
    trees |= {"steps": np.array(steps, np.int32), "examples": np.float32(examples)}
    return ClientUpdate(**trees, metrics=sums(answer.metrics)), []


PARTS = ("delta", "extra", "state")
"""Of a reply."""


def names(like: ClientUpdate) -> set[str]:
    """What the arrays of a reply of this form may be called."""
    return wire.names({part: getattr(like, part) for part in PARTS})


def norm(reply: ClientUpdate) -> float:
    """The Euclidean norm of all that a reply moves."""
    leaves = jax.tree.leaves([getattr(reply, part) for part in PARTS])
    return float(np.sqrt(sum(np.sum(np.square(np.asarray(leaf, np.float64))) for leaf in leaves)))


def sums(metrics: Mapping[str, Any]) -> Metrics:
    """The sums in an answer."""
    return Metrics(*(np.float32(metrics[name]) for name in ("loss-sum", "correct", "count")))
