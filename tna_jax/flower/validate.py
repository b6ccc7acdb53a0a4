"""Reading clients' answers: whatever comes is either an update of the right form or a list of what is wrong with it."""

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
from tna_jax.flower.sanitize import sanitize
from tna_jax.flower.task import Task
from tna_jax.masks import Params
from tna_jax.metrics import Metrics


def update_shapes(task: Task, server: federated.Server, broadcast: Broadcast) -> ClientUpdate:
    """Returns the shapes of an update under `broadcast`."""
    return federated.update_shapes(task.federation, broadcast, federated.init_client_state(task.federation, server))


def validate_numbers(metrics: Mapping[str, Any], client: int, number: int, examples: int | None = None) -> list[str]:
    """Returns what is wrong with the numbers of an answer of `client` in round `number`, in words; empty if nothing is.

    Args:
      examples: how many the client introduced itself with, if it did. They are compared as integers: float32 has no 2^24 + 1.
    """
    whole, any_number = ("client", "round", "num-examples"), ("loss-sum", "correct")
    problems = [f"its {name} is {sanitize(metrics.get(name))}" for name in whole if type(metrics.get(name)) is not int]
    problems += [
        f"its {name} is {sanitize(metrics.get(name))}" for name in any_number if type(metrics.get(name)) is not float
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


def validate_sums(metrics: Mapping[str, Any], count: int) -> list[str]:
    """Returns what is wrong with the sums over `count` examples, in words."""
    problems, limit = [], float(np.finfo(np.float32).max)
    loss, correct, counted = (_float(metrics.get(name)) for name in ("loss-sum", "correct", "count"))
    if not -1e-6 * count <= loss <= limit:  # a loss is 0 up to rounding, or more
        problems.append(f"its loss-sum is {sanitize(metrics.get('loss-sum'))}")
    if not _counted(counted, count):
        problems.append(f"its count is {sanitize(metrics.get('count'))}, expected {count}")
    elif not 0 <= correct <= counted:
        problems.append(f"its correct is {sanitize(metrics.get('correct'))}, of {count}")
    return problems


def _float(value: Any) -> float:
    return value if isinstance(value, float) else float("nan")


def _counted(value: float, expected: int) -> bool:
    """Whether a sum of float32 ones is what it should be: exact below 2^24, beyond it need not grow."""
    return value == expected if expected <= 2**24 else 2**24 <= value <= 1.01 * expected


def num_steps(federation: Federation, split: jax.Array, examples: int) -> list[int]:
    """Returns the steps in both phases of a client with so many examples, as `client.plan` makes them."""
    steps = int(np.ceil(np.float32(federation.num_steps(examples))))
    first = int(first_phase(jnp.float32(split), jnp.int32(steps)))
    return [first, steps - first]


def unpack_update(
    task: Task, like: ClientUpdate, params: Params, broadcast: Broadcast, answer: Answer
) -> tuple[ClientUpdate | None, list[str]]:
    """Returns the update in an answer whose numbers are sound, or what is wrong with its steps, sums and arrays, each by name.

    Args:
      like: its form, see `update_shapes`.
      params: the server's; variates are like them.
      broadcast: what the clients work with in this round.
    """
    examples = answer.metrics["num-examples"]
    steps, claimed = num_steps(task.federation, broadcast.split, examples), answer.metrics.get("steps")
    problems = [] if claimed == steps else [f"its steps are {sanitize(claimed)}, expected {steps}"]
    if problems := problems + validate_sums(answer.metrics, task.federation.num_seen(examples)):
        return None, problems
    live = live_in_round(broadcast.mask, jnp.array(steps))
    parts, problems = wire.from_wire(answer.arrays, PARTS)
    trees: dict[str, Any] = {}
    for name, packed in parts.items():
        shapes = getattr(like, name)
        mask = None if name == "state" else protocol.mask_for(shapes, params, live)
        empty = protocol.zeros(shapes)
        if wrong := packing.misfits(packed, empty, mask):
            problems += [f"{name}: {words}" for words in wrong]
        else:
            trees[name] = packing.unpack(packed, empty, mask)
    if problems:
        return None, problems
    trees |= {"steps": np.array(steps, np.int32), "examples": np.float32(examples)}
    return ClientUpdate(**trees, metrics=metrics_of(answer.metrics)), []


PARTS = ("delta", "extra", "state")
"""Of an update."""


def array_names(like: ClientUpdate) -> set[str]:
    """Returns what the arrays of an update of this form may be called."""
    return wire.array_names({part: getattr(like, part) for part in PARTS})


def update_norm(update: ClientUpdate) -> float:
    """Computes the Euclidean norm of all that an update moves."""
    leaves = jax.tree.leaves([getattr(update, part) for part in PARTS])
    return float(np.sqrt(sum(np.sum(np.square(np.asarray(leaf, np.float64))) for leaf in leaves)))


def metrics_of(metrics: Mapping[str, Any]) -> Metrics:
    """Returns the sums in an answer."""
    return Metrics(*(np.float32(metrics[name]) for name in ("loss-sum", "correct", "count")))
