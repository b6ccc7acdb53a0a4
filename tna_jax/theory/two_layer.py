"""The two-layer set-up of arXiv 2402.01342, Theorem III.4: how far a model on the path is from the linear path.

`f(x) = v . relu(U x)` with `v` (h,) and `U` (h, d). Two networks have independent entries where the mask is True and equal ones
where it is False; `rho_v`, `rho_u` are the shares of False. The gap is

    G(alpha) = f_alpha(x) - [(1 - alpha) f_0(x) + alpha f_1(x)].

The set-up is the paper's. The bounds and the exact second moment are derived by this project (statements and proofs:
`docs/theorem.md`); the paper's own inequality may differ. Draws are JAX functions of keys; bounds and moments are closed forms,
NumPy float64 on the host. Sigmas are sub-Gaussian parameters (`E exp(s X) <= exp(s^2 sigma^2 / 2)`, so mean 0); all three laws of
`ENTRIES` have that parameter equal to their standard deviation.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32
from numpy.typing import ArrayLike

from tna_jax import masks
from tna_jax.interpolation import line
from tna_jax.masks import Mask, Params

Scalar = float | Float[Array, ""]
"""A number, which may be traced."""


def _gaussian(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.normal(key, shape, jnp.float32)


def _uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.uniform(key, shape, jnp.float32, -np.sqrt(3), np.sqrt(3))


def _rademacher(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.rademacher(key, shape, jnp.float32)


ENTRIES: dict[str, Callable[[jax.Array, tuple[int, ...]], jax.Array]] = {
    "gaussian": _gaussian,
    "uniform": _uniform,
    "rademacher": _rademacher,
}
"""Laws of the entries, mean 0 and standard deviation 1."""


class Pair(NamedTuple):
    """Two networks, each {"U": (h, d), "v": (h,)} float32, and the mask of the same shape (True = independent, False = equal)."""

    first: Params
    second: Params
    mask: Mask


def sample(
    key: jax.Array,
    h: int,
    d: int,
    *,
    rho_v: Scalar,
    rho_u: Scalar,
    sigma_v: float = 1.0,
    sigma_u: float = 1.0,
    entries: str = "gaussian",
) -> Pair:
    """Draws mask, anchors and both networks.

    Args:
      key: a PRNG key.
      h, d: hidden units and inputs.
      rho_v, rho_u: the share of anchored entries to expect of `v` and of `U`, in [0, 1]; each entry by itself.
      sigma_v, sigma_u: standard deviations.
      entries: gaussian, uniform or rademacher.

    Raises:
      ValueError: an unknown law, or a ratio outside [0, 1].
    """
    if entries not in ENTRIES:
        raise ValueError(f"unknown law of the entries {entries!r}: known are {', '.join(ENTRIES)}")
    keys = jax.random.split(key, 3)
    flat = ENTRIES[entries](keys[0], (2 * h * (d + 1),))  # flat draws compile many times faster than shaped ones
    first, second = (
        {"U": sigma_u * network[:, :d], "v": sigma_v * network[:, d]} for network in flat.reshape(2, h, d + 1)
    )
    mask_u = masks.bernoulli(keys[1], first["U"].ravel(), rho_u)
    mask = {"U": mask_u.reshape(h, d), "v": masks.bernoulli(keys[2], first["v"], rho_v)}
    return Pair(first, masks.share_anchors(second, first, mask), mask)


def gap(pair: Pair, x: Float[Array, " d"], alpha: Scalar) -> Float32[Array, ""]:
    """Computes G(alpha) at the input `x` (d,): a float32 scalar.

    Computed as `sum_i (1-a) v_i [relu(z_i(a)) - relu(z_i)] + a v'_i [relu(z_i(a)) - relu(z'_i)]`, the same number without the
    cancellation of its definition, so that it is exactly 0 where all of `U` is anchored.
    """
    alpha = jnp.asarray(alpha, jnp.float32)
    (u, v), (u_prime, v_prime) = ((network["U"], network["v"]) for network in (pair.first, pair.second))
    between, first, second = (jax.nn.relu(weights @ x) for weights in (line(u, u_prime, alpha), u, u_prime))
    total: jax.Array = (1 - alpha) * v @ (between - first) + alpha * v_prime @ (between - second)
    return total


@functools.partial(jax.jit, static_argnames=("draws", "h", "entries"))
def gaps(
    key: jax.Array,
    x: Float[Array, " d"],
    alphas: Float[Array, " A"],
    draws: int,
    h: int,
    *,
    rho_v: Scalar,
    rho_u: Scalar,
    entries: str = "gaussian",
) -> Float32[Array, "draws A"]:
    """Samples the gaps of `draws` independent pairs with sigmas 1, at `alphas` (A,): (draws, A) float32.

    The gap scales with `sigma_v * sigma_u`. Other arguments and errors as in `sample`; nothing is compiled again for other ratios.
    """

    def sampled(draw_key: jax.Array) -> jax.Array:
        pair = sample(draw_key, h, x.shape[0], rho_v=rho_v, rho_u=rho_u, entries=entries)
        return jax.vmap(lambda alpha: gap(pair, x, alpha))(alphas)

    result: jax.Array = jax.lax.map(sampled, jax.random.split(key, draws), batch_size=min(draws, 64))
    return result


def bound(
    norm: ArrayLike,
    h: ArrayLike,
    *,
    rho_v: ArrayLike,
    rho_u: ArrayLike,
    alpha: ArrayLike,
    delta: ArrayLike,
    sigma_v: ArrayLike = 1.0,
    sigma_u: ArrayLike = 1.0,
) -> np.ndarray:
    """Computes what |G(alpha)| exceeds with probability at most `delta` over masks, anchors and entries (`docs/theorem.md`, part 3).

    `2 a (1-a) sigma_v sigma_u |x| [sqrt(h (2 - rho_v)(1 - rho_u) L) + L]`, `L = log(2 / delta)`, and 0 at `rho_u = 1`. It
    does not depend on `d`. It holds at one alpha chosen beforehand; for A of them at once pass `delta / A`.

    Args:
      norm: the Euclidean norm of the input `x`.
      h: hidden units.
      rho_v, rho_u: the probability that an entry of `v`, of `U` is anchored, in [0, 1].
      alpha: place on the path, in [0, 1].
      delta: in (0, 1).
      sigma_v, sigma_u: sub-Gaussian parameters of the entries.

    Returns:
      float64 of the shape all arguments broadcast to.

    Raises:
      ValueError: a ratio or alpha outside [0, 1], or delta outside (0, 1).
    """
    _check(alpha, delta, rho_v=rho_v, rho_u=rho_u)
    norm, h, rho_v, rho_u = (np.asarray(value, np.float64) for value in (norm, h, rho_v, rho_u))
    row = 2 * np.square(np.asarray(sigma_u, np.float64) * norm)  # variance of a row's difference, nothing anchored
    total = h * row * (2 - rho_v) * (1 - rho_u)
    largest = 2 * row * (rho_u < 1)
    return _tail(total, largest, sigma_v, alpha, delta)


def bound_of_masks(
    x: ArrayLike,
    mask: Mask,
    *,
    alpha: ArrayLike,
    delta: ArrayLike,
    sigma_v: ArrayLike = 1.0,
    sigma_u: ArrayLike = 1.0,
) -> np.ndarray:
    """Computes the bound for given masks: the probability is over anchors and entries (`docs/theorem.md`, part 2).

    Args:
      x: (d,) the input.
      mask: {"U": (..., h, d), "v": (..., h)} bool.
      alpha, delta, sigma_v, sigma_u: broadcast against the leading axes of the mask.

    Returns:
      float64, one for each leading axis.
    """
    _check(alpha, delta)
    trainable = np.asarray(mask["U"]) @ np.square(np.asarray(x, np.float64))  # (..., h)
    rows = 2 * np.square(sigma_u) * (1 + np.asarray(mask["v"])) * trainable
    return _tail(rows.sum(-1), rows.max(-1), sigma_v, alpha, delta)


def bound_of_first_layers(
    difference: ArrayLike, mask_v: ArrayLike, *, alpha: ArrayLike, delta: ArrayLike, sigma_v: ArrayLike = 1.0
) -> np.ndarray:
    """Computes the bound for given first layers: the probability is over `v` and `v'` alone (`docs/theorem.md`, part 1).

    Args:
      difference: (..., h), `(U - U') x`.
      mask_v: (..., h) bool.
      alpha, delta, sigma_v: broadcast against the leading axes.
    """
    _check(alpha, delta)
    total = np.sum((1 + np.asarray(mask_v)) * np.square(np.asarray(difference, np.float64)), -1)
    return _tail(total, np.zeros_like(total), sigma_v, alpha, delta)


def second_moment(x: ArrayLike, mask: Mask, *, alpha: float, sigma_v: float = 1.0, sigma_u: float = 1.0) -> np.ndarray:
    """Computes E G(alpha)^2 given the masks, exactly, for Gaussian `U` and any independent `v` of mean 0 and variance `sigma_v^2`.

    Args:
      x: (d,) the input, not all zeros.
      mask: {"U": (..., h, d), "v": (..., h)} bool.
      alpha: place on the path, in [0, 1].
      sigma_v, sigma_u: standard deviations.

    Returns:
      float64, one for each leading axis of the mask.
    """
    squares = np.square(np.asarray(x, np.float64))
    separate, shared = unit_moments(1 - (np.asarray(mask["U"]) @ squares) / squares.sum(), alpha)
    units = np.where(np.asarray(mask["v"]), separate, shared)
    return np.asarray(sigma_v**2 * sigma_u**2 * squares.sum() * units.sum(-1))


def unit_moments(correlation: ArrayLike, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Computes what one hidden unit adds to E G(alpha)^2, in units of `sigma_v^2 sigma_u^2 |x|^2`: Gaussian `U`, exact.

    Its inputs in the two networks are Gaussian with this correlation: the share of |x|^2 on anchored entries of its row.

    Args:
      correlation: any shape, in [0, 1].
      alpha: in [0, 1].

    Returns:
      `E [B^2 + B'^2]` (output weights independent) and `E [(B + B')^2]` (output weight shared), with B, B' of `docs/theorem.md`.
      Built from E relu(p) relu(q) of Gaussians, the arc-cosine kernel of order 1 (Cho and Saul 2009).
    """
    a, c = 1 - alpha, alpha
    angle = 2 * np.arcsin(np.sqrt((1 - np.asarray(correlation, np.float64)) / 2))  # between z and z'
    near = np.arctan2(c * np.sin(angle), a + c * np.cos(angle))  # between z and z(alpha)
    size = np.hypot(a + c * np.cos(angle), c * np.sin(angle))  # of z(alpha)
    power = size**2 / 2
    first, second, ends = size * _arc_cosine(near), size * _arc_cosine(angle - near), _arc_cosine(angle)
    squares = a**2 * (power + 0.5 - 2 * first) + c**2 * (power + 0.5 - 2 * second)
    return squares, squares + 2 * a * c * (power - first - second + ends)


def _arc_cosine(angle: np.ndarray) -> np.ndarray:
    """E relu(p) relu(q) of two standard Gaussians with correlation cos(angle)."""
    return np.asarray((np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi))


def _tail(total: np.ndarray, largest: np.ndarray, sigma_v: ArrayLike, alpha: ArrayLike, delta: ArrayLike) -> np.ndarray:
    """`a (1-a) sigma_v [sqrt(2 total L) + sqrt(largest) L]`: the sub-gamma tail both ways, `L = log(2 / delta)`."""
    alpha, level = np.asarray(alpha, np.float64), np.log(2 / np.asarray(delta, np.float64))
    return np.asarray(sigma_v * alpha * (1 - alpha) * (np.sqrt(2 * total * level) + np.sqrt(largest) * level))


def _check(alpha: ArrayLike, delta: ArrayLike, **ratios: ArrayLike) -> None:
    for name, value in {"alpha": alpha, **ratios}.items():
        if not np.all((np.asarray(value) >= 0) & (np.asarray(value) <= 1)):
            raise ValueError(f"{name} must lie in [0, 1], got {np.asarray(value)}")
    if not np.all((np.asarray(delta) > 0) & (np.asarray(delta) < 1)):
        raise ValueError(f"delta is a probability and must lie in (0, 1), got {np.asarray(delta)}")
