"""What goes from the server to a client and back, before Flower puts it into messages; and the rules both sides go by.

A *version* of the model is the number of rounds that ended before it: version r is what clients train from in round r. A server
that knows that a client holds version r - 1 sends the entries that were live in round r - 1, since no other can have changed;
to a client that holds version r it sends none; to any other the whole model. The digest of version r goes with it, so a client
that holds something else notices.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import trees
from tna_jax.federated import of_round
from tna_jax.federated.schedules import by_phase
from tna_jax.flower.task import Task
from tna_jax.flower.wire import Arrays
from tna_jax.masks import Mask

PROTOCOL = 1
WHOLE, LIVE, SAME = "whole", "live", "same"
"""How a model is sent."""
NEVER = -1
"""The number of a round that was not."""


class Request(NamedTuple):
    """From the server to a client."""

    config: dict[str, Any]
    """Text, numbers and lists of numbers by name."""
    arrays: Arrays


class Answer(NamedTuple):
    """From a client to the server."""

    metrics: dict[str, Any]
    """Numbers and lists of numbers by name."""
    arrays: Arrays
    notes: dict[str, str] = {}  # noqa: RUF012
    """Text by name."""


def round_mask(task: Task, params: Any, number: int, phases: Any) -> Mask:
    """Returns the entries that are live in round `number` in the given phases (2,) bool; `params` may be shapes."""
    return by_phase(of_round(task.schedule, task.root, params, number).mask, jnp.asarray(phases, bool))


def may_move(task: Task, params: Any, number: int) -> Mask:
    """Returns the entries that are live in some step of round `number`, whatever the number of steps."""
    drawn = of_round(task.schedule, task.root, params, number)
    return by_phase(drawn.mask, jnp.array([True, float(drawn.split) < 1]))


def model_mask(task: Task, model: Any, live: Mask) -> Mask:
    """Returns what of `{"params", "state"}` may differ between two versions: live entries, and running statistics that are shared."""
    shared = np.bool_(task.federation.norm == "shared")
    return {"params": live, "state": jax.tree.map(lambda _: shared, model["state"])}


def message_shapes(task: Task, params: Any) -> Any:
    """Returns the shapes of the algorithm's message to clients (SCAFFOLD: c)."""
    algorithm = task.federation.algorithm
    return jax.eval_shape(lambda p: algorithm.message(algorithm.init_server(p)), params)


def mask_for(tree: Any, params: Any, live: Mask) -> Mask | None:
    """Returns `live` for a tree like the parameters (a variate); `None`, which is everything, for any other."""
    same = [path for path, _ in trees.named_leaves(tree)] == [path for path, _ in trees.named_leaves(params)]
    return live if same else None


def zeros(shapes: Any) -> Any:
    """Returns zeros of a tree's shapes, to unpack into."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
