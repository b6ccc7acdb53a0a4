"""PAPA: a population that trains apart is pulled a little towards its average every few steps (arXiv 2304.03094)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, PyTree, Shaped

from tna_jax.masks import Mask, Params, bitwise_where
from tna_jax.masks.operations import is_anchored


@dataclasses.dataclass(frozen=True)
class Papa:
    """Every `every` steps of an epoch all members take `w <- (1 - rate) w + rate * mean`, the mean over all members.

    `Trainer(papa=Papa())`. The members are one population: what one of them is depends on all, and one that diverges takes the
    others with it. All of them stay on one device. Anchors keep every bit, and so do leaves that `Trainer.freeze` fixes; under
    soft anchors `rate` is multiplied by the mask. Optimizer states, and running averages of BatchNorm, are each member's own. The
    steps of an epoch are counted from its start.

    Attributes:
      every: steps between two pulls, at least 1; the paper's 10.
      rate: how far, in [0, 1]; the paper's 0.01, there multiplied by the learning rate's schedule, here constant. 0 is training
        apart, 1 replaces all members by their average.

    Raises:
      ValueError: a value that is not allowed.
    """

    every: int = 10
    rate: float = 0.01

    def __post_init__(self) -> None:
        if not isinstance(self.every, (int, np.integer)) or self.every < 1:
            raise ValueError(f"every: members are pulled every 1 or more steps, a whole number; got {self.every}")
        if not 0 <= self.rate <= 1:
            raise ValueError(f"rate: a member moves by a share in [0, 1] of its way to the mean, got {self.rate}")


def pull(
    papa: Papa, params: PyTree[Shaped[Array, "M ..."]], mask: PyTree[Shaped[Array, "M ..."]]
) -> PyTree[Shaped[Array, "M ..."]]:
    """Returns the members after one pull towards their average, which is accumulated in float32.

    Laws: entries that are equal in all members stay, bit for bit, so that equal networks stay what they are; so do anchors, also
    where members differ in them.

    Args:
      papa: how far.
      params: (M, ...) parameters.
      mask: (M, ...) bool or soft masks of the same structure.
    """

    def moved(w: Array, m: Array) -> Array:
        wide = jnp.promote_types(w.dtype, jnp.float32)
        mean = w.astype(wide).mean(0, keepdims=True)
        share = np.float32(papa.rate) if m.dtype == bool else np.float32(papa.rate) * m
        share = jnp.asarray(share).astype(jnp.finfo(wide).dtype)
        pulled = ((1 - share) * w.astype(wide) + share * mean).astype(w.dtype)
        fixed = (w == w[:1]).all(0, keepdims=True) | (is_anchored(m) if m.dtype == bool else m == 0)
        return bitwise_where(jnp.broadcast_to(fixed, w.shape), w, pulled)

    tree: Params = jax.tree.map(moved, params, mask)
    return tree


def check_device(papa: Papa | None, mesh: Mesh) -> None:
    """Raises ValueError where a population lies on several devices."""
    if papa is not None and mesh.size > 1:
        raise ValueError(
            f"the members of a population with papa stay on one device, but these lie on {mesh.size}: place them with "
            "placement.shard(members, placement.mesh(jax.devices()[:1]))"
        )


def in_blocks(
    papa: Papa,
    steps: int,
    some_steps: Callable[[Any, Any], Any],
    pulled: Callable[[Any], Any],
    state: Any,
    batches: Any,
) -> Any:
    """Runs the steps of an epoch in blocks of `every`, with a pull after each whole one.

    Args:
      papa: how often.
      steps: S, of the epoch.
      some_steps: (state of all members, batches (M, K, ...)) -> state after these K steps.
      pulled: state -> state after a pull.
      state: of all members.
      batches: (M, S, ...).
    """
    whole = steps // papa.every
    blocks = jax.tree.map(
        lambda x: x[:, : whole * papa.every].reshape(x.shape[0], whole, papa.every, *x.shape[2:]), batches
    )

    def block(state: Any, batches: Any) -> tuple[Any, None]:
        return pulled(some_steps(state, batches)), None

    if whole:
        state, _ = jax.lax.scan(block, state, jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), blocks))
    if steps % papa.every:
        state = some_steps(state, jax.tree.map(lambda x: x[:, whole * papa.every :], batches))
    return state


@jax.jit
def _stacked(parts: Any) -> Any:
    return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)


def pull_in_turn(papa: Papa, params: list[Params], masks: list[Mask]) -> list[Params]:
    """Returns `pull` of members that are kept apart, each with a leading axis of 1: for the placement `loop`."""
    program: Any = _pull_program(papa)
    together = program(_stacked(params), _stacked(masks))
    return [jax.tree.map(lambda x, i=i: x[i : i + 1], together) for i in range(len(params))]


def _pull_program(papa: Papa) -> Any:
    return jax.jit(lambda params, mask: pull(papa, params, mask))
