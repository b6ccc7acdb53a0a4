"""Differential privacy of clients: what the model says of whether a client took part at all (DP-FedAvg, arXiv 1710.06963).

Each client takes part in a round with the same chance, by itself; its update is clipped to a norm; Gaussian noise is added to the sum, which
is divided by the number of clients that was to be expected. A round in which nobody is drawn is noise alone, and noise goes to every entry that
can be live in the round, whichever steps were made: else the model told who took part. Anchors (ours): an entry that was anchored for the whole round is the same in all
updates, says nothing of anybody, and gets no noise: at ratio 0.4 four in ten coordinates are spared, at the same epsilon.

What is covered is the model. Numbers that come with updates (losses, counts of examples and steps) are for the operator, and are not.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from tna_jax.federated.algorithm import Tree
from tna_jax.masks import Mask
from tna_jax.prng import same_bits


@dataclasses.dataclass(frozen=True)
class Privacy:
    """Clipping and noise.

    Attributes:
      clip: C, the largest norm of an update, above 0.
      noise: z, the noise multiplier: the standard deviation of the noise on the sum is `z C`; above 0.
      expected: the number of clients that is expected in a round, participation times their number.

    Raises:
      ValueError: a number that is not above 0.
    """

    clip: float
    noise: float
    expected: float

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name} must be above 0, got {getattr(self, field.name)}")


@same_bits
def noise(privacy: Privacy, key: PRNGKeyArray, total: Tree, live: Mask) -> Tree:
    """Returns a sum of updates with noise on the entries that can be live in the round, and none on the others.

    Args:
      privacy: how much.
      key: of this round; who knows it can take the noise off again.
      total: sum over clients, at least float32; a complex number is two numbers.
      live: bool leaves of the same shapes, or scalars.
    """
    leaves, structure = jax.tree.flatten(total)
    keys = jax.random.split(key, len(leaves))
    scale = jnp.float32(privacy.noise * privacy.clip)

    def noisy(key: jax.Array, leaf: jax.Array, m: jax.Array) -> jax.Array:
        if jnp.iscomplexobj(leaf):  # both parts, each a number of its own
            parts = [
                noisy(key, part, m) for key, part in zip(jax.random.split(key), (leaf.real, leaf.imag), strict=True)
            ]
            return jax.lax.complex(*parts)
        drawn = jnp.where(m, scale * jax.random.normal(key, leaf.shape, jnp.float32), jnp.float32(0))
        return leaf + drawn.astype(leaf.dtype)

    return jax.tree.unflatten(structure, list(map(noisy, keys, leaves, jax.tree.leaves(live))))


@functools.lru_cache(maxsize=64)
def epsilon(noise_multiplier: float, participation: float, rounds: int, delta: float) -> float:
    """Computes epsilon of (epsilon, delta)-differential privacy of clients after some rounds, by privacy loss distributions.

    Neighbors are federations with and without one client. Needs the package dp-accounting (`pip install 'tna-jax[privacy]'`).

    Args:
      noise_multiplier: z, see `Privacy`.
      participation: the chance with which a client takes part in a round, in (0, 1].
      rounds: how many.
      delta: below 1 over the number of clients.

    Raises:
      ValueError: a number out of range; all are listed.
      ImportError: dp-accounting is not installed.
    """
    inside = {
        "noise_multiplier above 0": 0 < noise_multiplier < math.inf,
        "participation in (0, 1]": 0 < participation <= 1,
        "rounds a whole number, at least 1": rounds == int(rounds) >= 1,
        "delta in (0, 1)": 0 < delta < 1,
    }
    if not all(inside.values()):
        wrong = ", ".join(words for words, right in inside.items() if not right)
        raise ValueError(f"epsilon needs {wrong}; got {noise_multiplier}, {participation}, {rounds}, {delta}")
    import dp_accounting
    from dp_accounting import pld

    event = dp_accounting.GaussianDpEvent(noise_multiplier)
    sampled = event if participation >= 1 else dp_accounting.PoissonSampledDpEvent(participation, event)
    accountant = pld.PLDAccountant()
    accountant.compose(sampled, rounds)
    return float(accountant.get_epsilon(delta))
