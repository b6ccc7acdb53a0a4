"""Servers that a share of hostile clients cannot steer: bounded norms, coordinate-wise median and trimmed mean, Krum.

Each is the `robust` of a `ServerRule`. A complex number is two coordinates. An update counts once, whatever its number of examples: that number is the client's own word.
Anchors (ours): an entry that was anchored for the whole round is 0 in every honest update, is left out of no rule, and is copied on the
server whatever hostile clients send for it. What an algorithm sends beside its move (SCAFFOLD's variates) goes through the same rule.
"""

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from tna_jax.federated.algorithm import ClientUpdate

Stacked = dict[str, Any]
"""Of G updates what is averaged (see `Algorithm.summand`), leaves (G, ...)."""


@dataclasses.dataclass(frozen=True)
class Robust:
    """What a rule can replace: `bound`, of one update, or `combine`, of all."""

    title: ClassVar[str] = "mean"
    paper: ClassVar[str] = "-"
    """arXiv number."""
    combines: ClassVar[bool] = True
    """Whether `combine` replaces the average: then the server needs all updates of a round at once."""

    def bound(self, update: "ClientUpdate") -> "ClientUpdate":
        """Returns the update as it enters the average."""
        return update

    def combine(self, updates: Stacked, accepted: jax.Array) -> Stacked:
        """Returns what takes the place of the average of the accepted ones, (G,) bool."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class NormBound(Robust):
    """Updates are scaled down to a norm of at most `bound_at` before they are averaged (Sun et al. 2019, arXiv 1911.07963).

    The norm is that of the move and of what the algorithm sends beside it, together.

    Attributes:
      bound_at: largest norm, above 0.
    """

    title: ClassVar[str] = "norm bound"
    paper: ClassVar[str] = "1911.07963"
    combines: ClassVar[bool] = False
    bound_at: float = 1.0

    def __post_init__(self) -> None:
        if not self.bound_at > 0:
            raise ValueError(f"the bound of the norms must be above 0, got {self.bound_at}")

    def bound(self, update: "ClientUpdate") -> "ClientUpdate":
        delta, extra = clipped((update.delta, update.extra), self.bound_at)
        return update._replace(delta=delta, extra=extra)


@dataclasses.dataclass(frozen=True)
class Median(Robust):
    """The median of each coordinate (Yin et al. 2018, arXiv 1803.01498); of an even number the mean of the two in the middle."""

    title: ClassVar[str] = "median"
    paper: ClassVar[str] = "1803.01498"

    def combine(self, updates: Stacked, accepted: jax.Array) -> Stacked:
        count = jnp.sum(accepted)

        def middle(leaf: jax.Array) -> jax.Array:
            ordered = _ordered(leaf, accepted)
            return (ordered[jnp.maximum(count - 1, 0) // 2] + ordered[count // 2]) / 2

        medians: Stacked = jax.tree.map(lambda leaf: _joined(middle(_parts(leaf)), leaf), updates)
        return medians


@dataclasses.dataclass(frozen=True)
class _AgainstShare(Robust):
    """Rules that expect a share of hostile clients.

    Attributes:
      share: of the updates of a round, in [0, 0.5).
    """

    share: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.share < 0.5:
            raise ValueError(f"the share of hostile clients must lie in [0, 0.5), got {self.share}")

    def hostile(self, accepted: jax.Array) -> jax.Array:
        """How many of the accepted updates may be hostile: the share, rounded up; int32."""
        return jnp.ceil(self.share * jnp.sum(accepted).astype(jnp.float32) - 1e-4).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class TrimmedMean(_AgainstShare):
    """The mean of each coordinate without its largest and smallest values, of each as many as may be hostile (arXiv 1803.01498)."""

    title: ClassVar[str] = "trimmed mean"
    paper: ClassVar[str] = "1803.01498"

    def combine(self, updates: Stacked, accepted: jax.Array) -> Stacked:
        count = jnp.sum(accepted)
        cut = jnp.minimum(self.hostile(accepted), jnp.maximum(count - 1, 0) // 2)
        place = jnp.arange(accepted.shape[0])
        kept = (place >= cut) & (place < count - cut)

        def trimmed(leaf: jax.Array) -> jax.Array:
            ordered = _ordered(leaf, accepted)
            inside = jnp.where(_along(kept, leaf), ordered, jnp.zeros((), ordered.dtype))
            return jnp.sum(inside, axis=0) / jnp.maximum(count - 2 * cut, 1).astype(ordered.dtype)

        means: Stacked = jax.tree.map(lambda leaf: _joined(trimmed(_parts(leaf)), leaf), updates)
        return means


@dataclasses.dataclass(frozen=True)
class Krum(_AgainstShare):
    """The mean of the `keep` updates that lie nearest to others (Blanchard et al. 2017, arXiv 1703.02757; `keep` above 1: Multi-Krum).

    Of n updates, f of which may be hostile, the score of one is the sum of its squared distances to the `n - f - 2` nearest others.

    Attributes:
      keep: updates that are averaged, at least 1.
    """

    title: ClassVar[str] = "Krum"
    paper: ClassVar[str] = "1703.02757"
    keep: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep < 1:
            raise ValueError(f"Krum keeps at least 1 update, got {self.keep}")

    def combine(self, updates: Stacked, accepted: jax.Array) -> Stacked:
        count, size = jnp.sum(accepted), accepted.shape[0]
        leaves = [_parts(leaf).reshape(size, -1).astype(jnp.float32) for leaf in jax.tree.leaves(updates["delta"])]

        def distances(i: jax.Array) -> jax.Array:
            squares = [
                jnp.sum(jnp.where(accepted[:, None], leaf - leaf[i][None], jnp.float32(0)) ** 2, axis=1)
                for leaf in leaves
            ]
            return jnp.where(accepted & (jnp.arange(size) != i), sum(squares, start=jnp.float32(0)), jnp.inf)

        near = jnp.sort(jax.lax.map(distances, jnp.arange(size)), axis=1)  # (G, G)
        nearest = jnp.minimum(jnp.maximum(count - self.hostile(accepted) - 2, 1), count - 1)
        # A distance beyond float32 is infinite, and counts: whoever is so far lies near to nobody.
        counted = (jnp.arange(size) < nearest)[None]
        score = jnp.sum(jnp.where(counted, near, jnp.float32(0)), axis=1)
        rank = jnp.argsort(jnp.lexsort((score, ~accepted)))
        chosen = accepted & (rank < self.keep)

        def mean(leaf: jax.Array) -> jax.Array:
            leaf = widened(leaf)
            inside = jnp.where(_along(chosen, leaf), leaf, jnp.zeros((), leaf.dtype))
            return jnp.sum(inside, axis=0) / jnp.maximum(jnp.sum(chosen), 1).astype(leaf.dtype)

        means: Stacked = jax.tree.map(mean, updates)
        return means


def clipped(tree: Any, norm: float) -> Any:
    """Returns the arrays scaled by one number so that their common Euclidean norm is at most `norm`.

    They come back in at least float32: rounded to 16 bits again their norm could lie above it.
    """
    squares = [jnp.sum(jnp.square(_parts(leaf).astype(jnp.float32))) for leaf in jax.tree.leaves(tree)]
    total = jnp.sqrt(sum(squares, start=jnp.float32(0)))
    scale = jnp.minimum(jnp.float32(1), jnp.float32(norm) / jnp.maximum(total, jnp.float32(1e-30)))
    return jax.tree.map(lambda leaf: widened(leaf) * scale.astype(widened(leaf).dtype), tree)


def widened(leaf: jax.Array) -> jax.Array:
    """Returns an array in the type in which updates are summed: float32 at least, complex numbers and 64 bits as they are."""
    return leaf if jnp.iscomplexobj(leaf) or leaf.dtype == jnp.float64 else leaf.astype(jnp.float32)


def _parts(leaf: jax.Array) -> jax.Array:
    """Complex numbers as real ones, their two parts on a last axis; others as they are."""
    return jnp.stack([leaf.real, leaf.imag], axis=-1) if jnp.iscomplexobj(leaf) else leaf


def _joined(parts: jax.Array, like: jax.Array) -> jax.Array:
    """What `_parts` took apart."""
    return jax.lax.complex(parts[..., 0], parts[..., 1]) if jnp.iscomplexobj(like) else parts


def _along(rows: jax.Array, leaf: jax.Array) -> jax.Array:
    return rows.reshape(-1, *(1,) * (leaf.ndim - 1))


def _ordered(leaf: jax.Array, accepted: jax.Array) -> jax.Array:
    """Each coordinate in ascending order, (G, ...), with infinity after the accepted ones."""
    return jnp.sort(jnp.where(_along(accepted, leaf), widened(leaf), jnp.inf), axis=0)
