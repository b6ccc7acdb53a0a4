"""Mask schedules: which weights are anchored in a round, and in which of a client's local steps.

A schedule is data, not code: a mask and the share of a client's steps that are made under it; the rest is made under its
complement. So all schedules run in one compiled program, and each goes with every algorithm and every server.

- `none`: all entries are live in all steps.
- `pfn`, FedPFN (arXiv 2402.01342, partially fixed neurons; known in outline): each round a fresh mask, shared by all clients;
  an entry is anchored for the whole round, on all clients, or live for the whole round.
- `pnu`, FedPNU (progressive; the paper's form is not confirmed here, this default is ours): a fresh mask each round; the first
  half of a client's steps under it, the others under its complement.
- `pnu-rounds`: the across-rounds reading of FedPNU: even rounds under a fresh mask, the odd round after it under its complement.

The mask of round r depends on the root key, r and the parameters' paths and shapes alone: it travels as a seed.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from tna_jax import masks, trees
from tna_jax.federated.prng import MASK, stream
from tna_jax.masks import Mask, Params

ScheduleKind = Literal["none", "pfn", "pnu", "pnu-rounds"]
Draw = Callable[[PRNGKeyArray, Params, float], Mask]
"""(key, params, ratio) -> bool mask, e.g. `tna_jax.masks.bernoulli`."""


class RoundMask(NamedTuple):
    """What is live when, in one round."""

    mask: Mask
    """Bool leaves like the parameters, or shape () for a whole parameter: `True` = live in the first phase of a client's steps,
    `False` = live in the second."""
    split: jax.Array
    """float32 scalar in [0, 1]: the share of a client's steps that make the first phase, see `first_phase`. At 1 there is no
    second phase, and `False` is anchored for the whole round."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A mask schedule.

    Attributes:
      kind: `none`, `pfn`, `pnu` or `pnu-rounds`, see the module.
      ratio: the share of entries that the mask anchors, in [0, 1].
      split: of `pnu`, the share of a client's local steps that are made under the mask itself.
      draw: how masks are drawn.

    Raises:
      ValueError: an unknown kind, a share outside [0, 1].
    """

    kind: ScheduleKind = "none"
    ratio: float = 0.4
    split: float = 0.5
    draw: Draw = masks.bernoulli

    def __post_init__(self) -> None:
        if self.kind not in get_args(ScheduleKind):
            raise ValueError(f"unknown mask schedule {self.kind!r}: known are {', '.join(get_args(ScheduleKind))}")
        for name in ("ratio", "split"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"the {name} of a mask schedule must lie in [0, 1], got {getattr(self, name)}")


def of_round(schedule: Schedule, root: PRNGKeyArray, params: Params, number: int) -> RoundMask:
    """Returns the mask of round `number` (from 0): the same on every machine that has the root key.

    Args:
      schedule: the schedule.
      root: the federation's key, see `prng`.
      params: the parameters, or their shapes.
      number: of the round.

    Raises:
      TypeError: `draw` gives leaves that are not bool.
    """
    if schedule.kind == "none":
        return RoundMask(jax.tree.map(lambda _: jnp.ones((), bool), params), jnp.float32(1))
    across = schedule.kind == "pnu-rounds"
    drawn = schedule.draw(stream(root, MASK, number // 2 if across else number), params, schedule.ratio)
    odd = [
        f"{trees.name(path)} ({jnp.result_type(m)})"
        for path, m in trees.named_leaves(drawn)
        if jnp.result_type(m) != bool
    ]
    if odd:
        raise TypeError(
            f"masks of a schedule are drawn as bools, and these leaves are not: {', '.join(odd)}; soft anchors have no rounds"
        )
    if across and number % 2:
        drawn = masks.complement(drawn)
    return RoundMask(drawn, jnp.float32(schedule.split if schedule.kind == "pnu" else 1))


def first_phase(split: Float[Array, ""], steps: Int[Array, ""]) -> Int[Array, ""]:
    """Returns how many of `steps` local steps are made under the mask itself: `split * steps`, halves rounded up; int32."""
    return jnp.floor(split * steps.astype(jnp.float32) + np.float32(0.5)).astype(jnp.int32)


def phases(split: Float[Array, ""]) -> Bool[Array, "2"]:
    """Returns which of the two phases a round can have, whatever its clients and their numbers of steps: (2,) bool."""
    return jnp.stack([split > 0, split < 1])


def live_in_step(mask: Mask, second: Bool[Array, ""]) -> Mask:
    """Returns the mask of one step; `second` is a bool scalar, whether the step belongs to the second phase."""
    return jax.tree.map(lambda m: m ^ second, mask)


def by_phase(mask: Mask, pair: Shaped[Array | np.ndarray, "2"]) -> Mask:
    """Spreads a number of each phase (2,) over the entries: `pair[0]` where the mask is `True`, `pair[1]` where it is not."""
    return jax.tree.map(lambda m: jnp.where(m, pair[0], pair[1]), mask)


def live_share(params: Params, mask: Mask, steps: Shaped[Array | np.ndarray, "2"]) -> float:
    """Returns the share of entries that were live in some step of a round (see `live_in_round`); what has to travel, in both directions."""
    first, second = (float(count) > 0 for count in np.asarray(steps))
    if first == second:
        return float(first)
    sizes = [np.size(leaf) for leaf in jax.tree.leaves(params)]
    trues = (float(jnp.mean(leaf, dtype=jnp.float32)) for leaf in jax.tree.leaves(mask))
    shares = [share if first else 1 - share for share in trues]
    return sum(size * share for size, share in zip(sizes, shares, strict=True)) / sum(sizes)


def live_in_round(mask: Mask, steps: Shaped[Array | np.ndarray, "2"]) -> Mask:
    """Returns the entries that were live in any step of any client, `True`; all others were anchored for the whole round.

    Args:
      steps: (2,) steps made in each phase by any client.
    """
    return by_phase(mask, steps > 0)
