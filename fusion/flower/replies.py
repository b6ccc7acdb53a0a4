"""Reading clients' replies: whatever comes is either a reply of the right form or a list of what is wrong with it."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fusion.flower import exchange, wire
from fusion.flower.exchange import Answer
from fusion.flower.task import Task
from tna_jax import federated
from tna_jax.federated import Reply, Sent, local, packing
from tna_jax.federated.schedules import live_in_round
from tna_jax.masks import Params
from tna_jax.metrics import Metrics


def form(task: Task, server: federated.Server, sent: Sent) -> Reply:
    """The shapes of a reply to `sent`."""
    federation = task.federation
    own = federated.init_own(federation, server)

    def one(sent, own):
        running = local.start(federation, sent, own)
        counts = jnp.zeros(federation.num_classes, jnp.float32)
        step = jnp.int32(1)
        planned = local.Plan(jnp.zeros((federation.epochs, 1), jnp.int32), step, step, step, counts)
        examples = local.Examples(jnp.zeros(1, jnp.int32), jnp.int32(1))
        return local.finish(federation, sent, own, planned, examples, running)[0]

    return jax.eval_shape(one, sent, own)


def wrong_numbers(metrics: Mapping[str, Any], client: int, number: int) -> list[str]:
    """What is wrong with the numbers of an answer of `client` in round `number`, in words; empty if nothing is."""
    whole, any_number = ("client", "round", "num-examples"), ("loss-sum", "correct")
    problems = [f"its {name} is {metrics.get(name)!r}" for name in whole if type(metrics.get(name)) is not int]
    problems += [f"its {name} is {metrics.get(name)!r}" for name in any_number if type(metrics.get(name)) is not float]
    if problems:
        return problems
    if metrics["client"] != client:
        problems.append(f"it says that it is client {metrics['client']}")
    if metrics["round"] != number:
        problems.append(f"it answers round {metrics['round']}, this is round {number}")
    if not 1 <= metrics["num-examples"] < 2**53:
        problems.append(f"it counts {metrics['num-examples']} examples")
    return problems


def unpacked(like: Reply, params: Params, sent: Sent, answer: Answer) -> tuple[Reply | None, list[str]]:
    """The reply in an answer whose numbers are sound, or what is wrong with its arrays, each by name.

    Args:
      like: the form, see `form`.
      params: the server's; variates are like them.
      sent: what the clients work with in this round.
    """
    steps, problems = _steps(answer.metrics.get("steps"))
    if problems:
        return None, problems
    live = live_in_round(sent.mask, jnp.asarray(steps))
    parts, problems = wire.from_wire(answer.arrays, ("delta", "extra", "state"))
    trees: dict[str, Any] = {}
    for name, packed in parts.items():
        own = getattr(like, name)
        mask = None if name == "state" else exchange.mask_for(own, params, live)
        empty = exchange.zeros(own)
        if wrong := packing.misfits(packed, empty, mask):
            problems += [f"{name}: {words}" for words in wrong]
        else:
            trees[name] = packing.unpack(packed, empty, mask)
    if problems:
        return None, problems
    trees |= {"steps": steps, "examples": np.float32(answer.metrics["num-examples"])}
    return Reply(**trees, metrics=sums(answer.metrics)), []


def sums(metrics: Mapping[str, Any]) -> Metrics:
    """The sums in an answer; NaN for what is no number."""
    values = (metrics.get(name) for name in ("loss-sum", "correct", "count"))
    with np.errstate(over="ignore"):
        return Metrics(*(np.float32(value if isinstance(value, float) else np.nan) for value in values))


def _steps(value: Any) -> tuple[np.ndarray, list[str]]:
    """(2,) int32, or what is wrong with them."""
    sound = isinstance(value, list) and len(value) == 2 and all(type(n) is int and 0 <= n < 2**31 for n in value)
    if not sound or not sum(value):
        return np.zeros(2, np.int32), [f"its steps are {value!r}, expected two numbers, one of them above 0"]
    return np.array(value, np.int32), []
