"""Curved paths between models, whose middle is trained: what the barrier of a straight line is read against.

Two networks that were trained apart are nearly always joined by some curve of low loss (Garipov et al. 2018, arXiv 1802.10026),
so a barrier on the straight line says that their weights cannot be averaged, not that a wall lies between them. The curves here
are the quadratic Bezier curves of that paper (section 3):

    phi(t) = (1 - t)^2 a + 2 t (1 - t) bend + t^2 b,    0 <= t <= 1,

whose bend minimizes the mean of the loss over t, one t a step. With the bend in the middle of the line the curve is the line,
which is where training begins (ours). An entry that both ends share is fixed in the bend too: anchors stay, bit for bit.

>>> a, b = {"w": jnp.zeros(2)}, {"w": jnp.array([4.0, 0.0])}
>>> bezier(a, {"w": jnp.array([0.0, 8.0])}, b, 0.5)["w"].tolist()
[1.0, 4.0]
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Key, PyTree, Shaped

from tna_jax import connectivity, interpolation, networks, trees
from tna_jax.barriers import Path
from tna_jax.connectivity import Data, check_alphas, grid
from tna_jax.ensemble import Members, Trainer, init_ensemble, train_ensemble
from tna_jax.masks import Params
from tna_jax.networks import Network, State, Stateful
from tna_jax.objectives import CLASSIFICATION, Objective
from tna_jax.placement import Placement

Tree = TypeVar("Tree")
"""The type of a model, which what lies between models has too."""

POSITION, NETWORK = 0, 1
"""Streams of a step's key: where on the curve its batch is, and what the network itself draws."""


def bernstein(t: Any) -> Float[Array, "... 3"]:
    """Returns the weights (..., 3) of the first end, the bend and the last end at positions t (...), whose sum is 1."""
    t = jnp.asarray(t, jnp.result_type(float))
    return jnp.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], axis=-1)


def bezier(a: Tree, bend: Tree, b: Tree, t: Any) -> Tree:
    """Returns the model at position t of the quadratic Bezier curve from `a` to `b`.

    Laws: position 0 is `a` and 1 is `b`, an entry that all three share is copied; all bit for bit. With `bend` in the middle of
    the line the curve is the line, up to rounding.

    Args:
      a, bend, b: pytrees of the same paths, shapes and dtypes.
      t: scalar in [0, 1], which is not checked; may be traced.

    Returns:
      A pytree like `a`.

    Raises:
      ValueError: the trees do not fit each other, all differing paths are listed; or more than one position.
    """
    return interpolation.simplex([a, bend, b], bernstein(t))


class Ends(NamedTuple):
    """The state of a network on a curve: what its bend is trained between."""

    first: Params
    last: Params
    state: State
    """Of the network itself; `()` without one."""


def on_curve(network: Network) -> Stateful:
    """Returns the network whose parameters are a bend: in training at a position drawn for each step, in evaluation at 1/2.

    Its state is `Ends`. Draws with the key of the step, whatever the network itself does.
    """
    curve = _OnCurve(network)
    return Stateful(curve.train, curve.evaluate, wants_key=True)


@dataclasses.dataclass(frozen=True)
class _OnCurve:
    network: Network

    def train(self, bend: Params, ends: Ends, inputs: Any, weight: Any, key: Any) -> tuple[Array, Ends]:
        t = 0.5 if key is None else jax.random.uniform(jax.random.fold_in(key, POSITION))
        own = None if key is None else jax.random.fold_in(key, NETWORK)
        outputs, state = networks.train(self.network, self._at(bend, ends, t), ends.state, inputs, weight, own)
        return outputs, ends._replace(state=state)

    def evaluate(self, bend: Params, ends: Ends, inputs: Any) -> Array:
        outputs: Array = networks.evaluate(self.network, self._at(bend, ends, 0.5), ends.state, inputs)
        return outputs

    def _at(self, bend: Params, ends: Ends, t: Any) -> Params:
        # ensembles keep states in float32 at least, which half-precision ends survive
        first, last = (jax.tree.map(lambda x, like: x.astype(like.dtype), end, bend) for end in ends[:2])
        return bezier(first, bend, last, t)


def train_bends(
    data_keys: Key[Array, " P"],
    trainer: Trainer,
    members: PyTree[Shaped[Array | np.ndarray, "M ..."]],
    pairs: Integer[np.ndarray, "..."] | Sequence[Sequence[int]],
    inputs: PyTree[Shaped[Array | np.ndarray, "N ..."]],
    targets: PyTree[Shaped[Array | np.ndarray, "N ..."]],
    epochs: int,
    *,
    state: State = (),
    on_epoch: Callable[[int, Callable[..., Members], Any], None] | None = None,
) -> PyTree[Shaped[Array | np.ndarray, "P ..."]]:
    """Trains the bends of the curves between P pairs of M models, all in one program; returns them with leaves (P, ...).

    Each begins in the middle of its line, and takes one position drawn from U(0, 1) a step. What comes of a pair
    depends on its own key alone, not on the other pairs or the placement (`vmap`: up to rounding).

    Args:
      data_keys: (P,) typed keys, of each pair's order of the data and of its positions.
      trainer: of the network itself: optimizer, batch size, objective, augmentation. Its optimizer must be the same for all pairs, and
        it must not have `papa`.
      members: (M, ...) parameters.
      pairs: (P, 2) ints in [0, M).
      inputs, targets: (N, ...), as of `train_ensemble`.
      epochs: passes over them.
      state: (M, ...) of the members, for a `Stateful` network; the curves begin with the first end's.
      on_epoch: as of `train_ensemble`.

    Raises:
      ValueError: pairs out of range; a trainer with `papa`, whose members would be pulled towards each other; and as `train_ensemble`.
    """
    if trainer.papa is not None:
        raise ValueError("the bends of different pairs do not train towards each other: give a trainer without papa")
    first, last = (np.asarray(column) for column in _checked(pairs, members).T)

    def of_side(tree: Any, side: np.ndarray) -> Any:
        return jax.tree.map(lambda x: jnp.asarray(x)[side], tree)

    ends = Ends(of_side(members, first), of_side(members, last), of_side(state, first))
    middles = jax.vmap(lambda a, b: interpolation.line(a, b, 0.5))(ends.first, ends.last)
    apart = jax.tree.map(lambda a, b: a != b, ends.first, ends.last)
    curves = dataclasses.replace(trainer, network=on_curve(trainer.network))
    begun = init_ensemble(curves, middles, data_keys, mask=apart, state=ends)
    trained, _ = train_ensemble(curves, begun, inputs, targets, epochs, on_epoch=on_epoch)
    bends: Any = trees.like(middles, jax.tree.leaves(trained.params))
    return bends


def evaluate_curves(
    network: Network,
    members: PyTree[Shaped[Array | np.ndarray, "M ..."]],
    bends: PyTree[Shaped[Array | np.ndarray, "P ..."]],
    pairs: Integer[np.ndarray, "..."] | Sequence[Sequence[int]],
    alphas: int | Float[np.ndarray, "..."] | Sequence[float],
    data: Data,
    *,
    state: State = (),
    calibration: PyTree[Shaped[Array | np.ndarray, "N ..."]] | None = None,
    objective: Objective = CLASSIFICATION,
    batch_size: int = 1000,
    placement: Placement = "auto",
) -> dict[str, Path]:
    """Computes the metrics of A positions of the curves between P pairs, for every split; `barrier` takes them as those of a line.

    Arguments, returns and errors as of `connectivity.evaluate_paths`; `alphas` are the positions t.

    Args:
      bends: (P, ...), see `train_bends`.
    """
    positions = grid(alphas) if isinstance(alphas, int) else check_alphas(alphas)
    chosen = _checked(pairs, members)
    counts = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(bends)}
    if counts != {(len(chosen),)}:
        raise ValueError(
            f"expected one bend for each of the {len(chosen)} pairs, leaves (P, ...), got leading axes {sorted(counts)}"
        )
    weights = np.asarray(bernstein(positions))
    found: list[dict[str, Any]] = []
    for i, (a, b) in enumerate(chosen):
        three = jax.tree.map(lambda x, y, i=i, a=a, b=b: np.stack([x[a], y[i], x[b]]), members, bends)
        states = jax.tree.map(lambda x, a=a, b=b: np.stack([x[a], x[a], x[b]]), state)
        found.append(
            connectivity.evaluate_mixtures(
                network, three, weights, data, state=states, calibration=calibration, objective=objective,
                batch_size=batch_size, placement=placement,
            )
        )  # fmt: skip
    return {
        split: Path(positions, jax.tree.map(lambda *leaves: np.stack(leaves), *(one[split] for one in found)))
        for split in data
    }


def deflection(
    members: PyTree[Shaped[Array | np.ndarray, "M ..."]],
    bends: PyTree[Shaped[Array | np.ndarray, "P ..."]],
    pairs: Integer[np.ndarray, "..."] | Sequence[Sequence[int]],
) -> Float[np.ndarray, " P"]:
    """Computes how far each of P curves leaves its line: |bend - (a + b) / 2| / |b - a|, in float64; not finite where both ends are one model.

    The curve itself leaves the line by half of that at most, at t = 1/2. The measure is ours.

    Args:
      members: (M, ...) parameters.
      bends: (P, ...), see `train_bends`.
      pairs: (P, 2) ints in [0, M).
    """
    first, last = _checked(pairs, members).T

    def square(tree: Any) -> Float[np.ndarray, " P"]:
        leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
        total: np.ndarray = np.sum([np.square(leaf).reshape(len(leaf), -1).sum(1) for leaf in leaves], axis=0)
        return total

    off = jax.tree.map(lambda x, y: np.asarray(y, np.float64) - (np.asarray(x[first], np.float64) + np.asarray(x[last], np.float64)) / 2, members, bends)  # fmt: skip
    apart = jax.tree.map(lambda x: np.asarray(x[last], np.float64) - np.asarray(x[first], np.float64), members)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: np.ndarray = np.sqrt(square(off) / square(apart))
    return ratio


def _checked(pairs: Any, members: Any) -> np.ndarray:
    """(P, 2) int32; ValueError for what is not a pair of members."""
    chosen, count = np.asarray(pairs, np.int32), jax.tree.leaves(members)[0].shape[0]
    if chosen.ndim != 2 or chosen.shape[1:] != (2,) or not chosen.size or not 0 <= chosen.min() <= chosen.max() < count:
        raise ValueError(
            f"pairs must be (P, 2) indices of {count} members, one pair or more; got {np.asarray(pairs).tolist()}"
        )
    return chosen
