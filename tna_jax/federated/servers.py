"""The server's step: any optax transformation on the pseudo-gradient `-Delta` (Reddi et al. 2021, arXiv 2003.00295).

An entry that was anchored for the whole round is copied, and the optimizer's state of it too: momentum and second moments
neither decay nor move it. Step counts (Adam's bias correction) belong to no entry and run on.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from tna_jax import masks, optimizers, prng, transform
from tna_jax.federated.robust import Krum, Median, NormBound, Robust, TrimmedMean
from tna_jax.masks import Mask, Params

if TYPE_CHECKING:
    from tna_jax.federated.privacy import Privacy


@dataclasses.dataclass(frozen=True)
class Distillation:
    """FedDF (Lin et al. 2020, arXiv 2006.07242): after the average the server distils the clients' mean logits into it.

    Adam on `KL(softmax(mean of client logits) || softmax(server logits))` over unlabeled proxy data. Under a mask schedule (ours)
    entries that were anchored for the whole round stay, and running statistics are not touched.

    Attributes:
      steps: of Adam, in each round.
      batch_size: proxy examples of a step.
      learning_rate: of Adam.
    """

    steps: int = 50
    batch_size: int = 64
    learning_rate: float = 1e-3


@dataclasses.dataclass(frozen=True)
class ServerRule:
    """How the server moves.

    Attributes:
      optimizer: optax transformation; `optax.sgd(1.0)`, the default, takes the average as it is.
      distillation: FedDF after that, or `None`.
      title, paper: for listings; the arXiv number.
      robust: what takes the place of the average where clients may be hostile, see `tna_jax.federated.robust`; `None`: the average.
      privacy: clipping and noise, see `tna_jax.federated.privacy`; `None`: none.

    Raises:
      ValueError: two of the last three together.
    """

    optimizer: optax.GradientTransformation
    distillation: Distillation | None = None
    title: str = "mean"
    paper: str = "1602.05629"
    robust: Robust | None = None
    privacy: "Privacy | None" = None

    def __post_init__(self) -> None:
        both = [name for name in ("distillation", "robust", "privacy") if getattr(self, name) is not None]
        if len(both) > 1:
            raise ValueError(f"a server has one of distillation, robust and privacy, got {' and '.join(both)}")


MEAN = ServerRule(optax.sgd(1.0))


def mean() -> ServerRule:
    """Returns the average itself."""
    return MEAN


def fedavgm(learning_rate: float = 1.0, momentum: float = 0.9) -> ServerRule:
    """SGD with momentum on the server (Hsu et al. 2019)."""
    return ServerRule(optax.sgd(learning_rate, momentum=momentum), None, "FedAvgM", "1909.06335")


class Moments(NamedTuple):
    """State of `adaptive`: first and second moments, like the parameters."""

    first: Params
    second: Params


def adaptive(
    second: Callable[[jax.Array, jax.Array], jax.Array], learning_rate: float, b1: float, tau: float
) -> optax.GradientTransformation:
    """Algorithm 2 of arXiv 2003.00295: `m = b1 m + (1 - b1) g`, `v = second(v, g^2)`, a step of `learning_rate m / (sqrt(v) + tau)`.

    `m` starts at 0 and `v` at `tau^2`, with no correction of their bias; `tau` stands outside the root. Optax's optimizers of
    these names differ in that, which at changes far below 1 decides how far the server goes; use them by their own names.
    """

    def init(params: Params) -> Moments:
        return Moments(
            jax.tree.map(jnp.zeros_like, params), jax.tree.map(lambda p: jnp.full_like(jnp.real(p), tau**2), params)
        )

    def update(updates: Params, state: Any, params: Params | None = None) -> tuple[Params, Moments]:
        del params
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.first, updates)
        v = jax.tree.map(lambda v, g: second(v, jnp.real(g * jnp.conj(g))), state.second, updates)
        return jax.tree.map(lambda m, v: -learning_rate * m / (jnp.sqrt(v) + tau), m, v), Moments(m, v)

    return optax.GradientTransformation(init, update)


@functools.lru_cache(maxsize=64)  # equal rules are one rule: compiled once
def fedadam(learning_rate: float = 0.01, b1: float = 0.9, b2: float = 0.99, tau: float = 1e-3) -> ServerRule:
    """Adam on the server, see `adaptive`: `v = b2 v + (1 - b2) g^2`."""
    optimizer = adaptive(lambda v, square: b2 * v + (1 - b2) * square, learning_rate, b1, tau)
    return ServerRule(optimizer, None, "FedAdam", "2003.00295")


@functools.lru_cache(maxsize=64)
def fedyogi(learning_rate: float = 0.01, b1: float = 0.9, b2: float = 0.99, tau: float = 1e-3) -> ServerRule:
    """Yogi on the server, see `adaptive`: `v = v - (1 - b2) g^2 sign(v - g^2)`."""
    optimizer = adaptive(lambda v, square: v - (1 - b2) * square * jnp.sign(v - square), learning_rate, b1, tau)
    return ServerRule(optimizer, None, "FedYogi", "2003.00295")


@functools.lru_cache(maxsize=64)
def fedadagrad(learning_rate: float = 0.03, b1: float = 0.0, tau: float = 1e-3) -> ServerRule:
    """Adagrad on the server, see `adaptive`: `v = v + g^2`; the paper's experiments have no momentum in it."""
    return ServerRule(adaptive(jnp.add, learning_rate, b1, tau), None, "FedAdagrad", "2003.00295")


def feddf(learning_rate: float = 1e-3, steps: int = 50, batch_size: int = 64) -> ServerRule:
    """The average, then distillation."""
    return ServerRule(optax.sgd(1.0), Distillation(steps, batch_size, learning_rate), "FedDF", "2006.07242")


def norm_bound(learning_rate: float = 1.0, bound_at: float = 1.0) -> ServerRule:
    """The average of updates whose norms are bounded, see `robust.NormBound`."""
    return robust_rule(learning_rate, NormBound(bound_at))


def median(learning_rate: float = 1.0) -> ServerRule:
    """The median of each coordinate, see `robust.Median`."""
    return robust_rule(learning_rate, Median())


def trimmed_mean(learning_rate: float = 1.0, share: float = 0.2) -> ServerRule:
    """The trimmed mean of each coordinate, see `robust.TrimmedMean`."""
    return robust_rule(learning_rate, TrimmedMean(share))


def krum(learning_rate: float = 1.0, share: float = 0.2, keep: int = 1) -> ServerRule:
    """The updates that lie nearest to others, see `robust.Krum`."""
    return robust_rule(learning_rate, Krum(share, keep))


@functools.lru_cache(maxsize=64)
def robust_rule(learning_rate: float, robust: Robust) -> ServerRule:
    """Returns SGD on what a robust rule makes of the updates; other optimizers go with it as well."""
    return ServerRule(optax.sgd(learning_rate), None, robust.title, robust.paper, robust)


SERVERS: dict[str, Callable[..., ServerRule]] = {
    "mean": mean, "fedavgm": fedavgm, "fedadam": fedadam, "fedyogi": fedyogi, "fedadagrad": fedadagrad, "feddf": feddf,
    "norm-bound": norm_bound, "median": median, "trimmed-mean": trimmed_mean, "krum": krum,
}  # fmt: skip
"""By name; each takes `learning_rate`, but for `mean`."""


def step(
    optimizer: optax.GradientTransformation, params: Params, opt_state: Any, direction: Params, live: Mask
) -> tuple[Params, Any]:
    """Makes one step along `direction` in the live entries; everything of an anchored entry stays, bit for bit.

    Args:
      params, opt_state: the server's.
      direction: like `params`, minus the pseudo-gradient.
      live: bool leaves of the same shapes, or scalars.
    """
    anchored = transform.anchored(optimizer)
    gradient = jax.tree.map(jnp.negative, in_float32(direction))
    updates, moved = anchored.update(gradient, transform.AnchoredState((), opt_state), in_float32(params), mask=live)
    params = transform.apply_updates(params, updates, live)
    return params, keep_anchored(params, live, moved.inner, opt_state)


def in_float32(tree: Params) -> Params:
    """Returns arrays of 16 bits as float32, others as they are: what rounds add up in is at least float32."""

    def wide(x: jax.Array) -> jax.Array:
        return x.astype(jnp.promote_types(x.dtype, jnp.float32)) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(wide, tree)


def keep_anchored(params: Params, live: Mask, new: Any, old: Any) -> Any:
    """Returns an optimizer's state with the entries of anchored parameters as they were before; what belongs to no entry is new.

    Entries are found in the parts of the state that have the parameters' structure (momentum, second moments; of some parameters alone under
    `optax.masked` and `optax.partition`), leaf by leaf where the shapes agree. Counts belong to no entry, nor do sums over entries such as the factors of Adafactor's and SM3's second
    moments, which stand there in other shapes.
    """
    structure: Any = jax.tree.structure(params)

    def alike(part: Any) -> bool:
        return bool(jax.tree.structure(part, is_leaf=_is_masked) == structure)

    def keep(after: Any, before: Any) -> Any:
        if not alike(after):
            return after

        def leaf(m: jax.Array, param: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
            if _is_masked(new) or jnp.shape(new) != jnp.shape(param):
                return new
            return masks.bitwise_where(m, new, old)

        return jax.tree.map(leaf, live, params, after, before)

    return jax.tree.map(keep, new, old, is_leaf=alike)


def _is_masked(part: Any) -> bool:
    return isinstance(part, optax.MaskedNode)


@prng.same_bits
def distil(
    rule: Distillation,
    evaluate: Callable[[Params, jax.Array], jax.Array],
    params: Params,
    opt_state: Any,
    live: Mask,
    proxy: Shaped[Array, "P ..."],
    teacher: Float[Array, "P C"],
    key: PRNGKeyArray,
) -> tuple[Params, Any]:
    """Makes one step of FedDF's distillation; `opt_state` is that of `distiller(rule)`.

    Args:
      evaluate: parameters and inputs (B, ...) to logits (B, C).
      params: the server's, after its step.
      live: entries that may move.
      proxy: (P, ...) unlabeled examples.
      teacher: (P, C) mean of the clients' logits on them.
      key: of this step, draws the batch, with replacement.
    """
    batch = min(rule.batch_size, proxy.shape[0])
    rows = jax.random.randint(key, (batch,), 0, proxy.shape[0], jnp.int32)
    target = jax.nn.log_softmax(teacher[rows])

    def loss(params: Params) -> jax.Array:
        student = jax.nn.log_softmax(evaluate(params, proxy[rows]))
        terms = jnp.exp(target) * (target - student)  # not a number where the teacher rules a class out: nothing
        return jnp.mean(jnp.sum(jnp.where(jnp.isneginf(target), jnp.zeros_like(terms), terms), -1))

    gradient = optimizers.steepest(jax.grad(loss)(params))
    updates, opt_state = distiller(rule).update(gradient, opt_state, params, mask=live)
    return transform.apply_updates(params, updates, live), opt_state


def distiller(rule: Distillation) -> optax.GradientTransformationExtraArgs:
    """Returns the optimizer of the distillation."""
    return transform.anchored(optax.adam(rule.learning_rate))
