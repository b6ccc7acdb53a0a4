"""Many lines, many mixtures, many models alone: each in one call."""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Float, Integer, PyTree, Shaped

from tna_jax import sharding
from tna_jax.alphas import check_alphas, grid
from tna_jax.barriers import Path
from tna_jax.connectivity.inputs import Data, check_calibration, check_splits, stacked_models
from tna_jax.connectivity.points import Line, Mixture
from tna_jax.connectivity.splits import evaluate_points
from tna_jax.metrics import AnyMetrics
from tna_jax.networks import Network, State
from tna_jax.objectives import CLASSIFICATION, Objective
from tna_jax.placement import Placement


@sharding.outside_meshes
def evaluate_paths(
    network: Network,
    members: PyTree[Shaped[Array | np.ndarray, "M ..."]],
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
    """Computes the metrics of `line(members[i], members[j], alpha)` for P pairs x A alphas x every split, in one compiled call.

    The P * A models are spread over all devices; one interpolated model is alive per device (`map`). Every example counts
    once. Laws: the ends equal `evaluate` of the stand-alone models exactly (`vmap`: up to rounding); a pair (i, i) is flat.

    The running statistics of a network with BatchNorm are estimated again at every point inside the path, on
    `calibration` (`reset_batch_stats`); the ends keep their own.

    Args:
      network: (params, inputs (B, ...)) -> outputs, or a `Stateful` network.
      members: pytree with leaves (M, ...).
      pairs: (P, 2) ints in [0, M).
      alphas: (A,) increasing, holding 0, 1/2 and 1 (see `grid`), or their number.
      data: inputs (N, ...) and labels (N,), or the objective's targets (N, ...), by the name of the split; any pytrees. A split
        may be a stream, see `tna_jax.streaming`: it is read once, part by part.
      state: (M, ...) state of the members, for a `Stateful` network.
      calibration: (N, ...) training inputs, for a `Stateful` network; 2,000 are usually enough.
      objective: what is measured, see `tna_jax.objectives`; default: classification.
      batch_size: examples per forward pass; a smaller N is one batch. Also of the calibration.
      placement: `map`, `vmap` (all models of a device at once), `loop` (one dispatch per model and batch) or `auto`.

    Returns:
      A `Path` for each split, metrics (P, A) float32, NumPy.

    Raises:
      ValueError: alphas without 0, 1/2 or 1; pairs out of range; numbers of inputs and labels that differ; a `Stateful`
        network without calibration inputs.
    """
    alphas = grid(int(alphas)) if isinstance(alphas, (int, np.integer)) else check_alphas(alphas)
    check_splits(data)
    members, state = stacked_models(network, members, state, data)
    pairs = np.asarray(pairs)  # (P, 2)
    count = jax.tree.leaves(members)[0].shape[0]
    whole = not pairs.size or np.issubdtype(pairs.dtype, np.integer)
    if (
        not whole
        or pairs.ndim != 2
        or pairs.shape[1] != 2
        or (pairs.size and not 0 <= pairs.min() <= pairs.max() < count)
    ):
        raise ValueError(f"pairs must be (P, 2) indices of {count} members, got {pairs.tolist()}")
    pairs = pairs.astype(np.int32)
    calibration = check_calibration(calibration, network, state)
    tasks = Line(np.repeat(pairs, len(alphas), axis=0), np.tile(alphas, len(pairs)))  # (P*A, 2), (P*A,)
    points = evaluate_points(network, members, state, calibration, tasks, data, objective, batch_size, placement)
    shape = (len(pairs), len(alphas))
    return {split: Path(alphas, jax.tree.map(lambda x: x.reshape(shape), m)) for split, m in points.items()}


@sharding.outside_meshes
def evaluate(
    network: Network,
    members: PyTree[Shaped[Array | np.ndarray, "M ..."]],
    data: Data,
    *,
    state: State = (),
    objective: Objective = CLASSIFICATION,
    batch_size: int = 1000,
    placement: Placement = "auto",
) -> dict[str, AnyMetrics]:
    """Computes the metrics of M stand-alone models for every split, leaves (M,). As `evaluate_paths`."""
    check_splits(data)
    members, state = stacked_models(network, members, state, data)
    indices = np.arange(jax.tree.leaves(members)[0].shape[0], dtype=np.int32)
    tasks = Line(np.stack([indices, indices], axis=1), np.zeros(len(indices), np.float32))
    return evaluate_points(network, members, state, None, tasks, data, objective, batch_size, placement)


@sharding.outside_meshes
def evaluate_mixtures(
    network: Network,
    members: PyTree[Shaped[Array | np.ndarray, "M ..."]],
    weights: Shaped[Array | np.ndarray, "..."] | Sequence[Sequence[float]],
    data: Data,
    *,
    state: State = (),
    calibration: PyTree[Shaped[Array | np.ndarray, "N ..."]] | None = None,
    objective: Objective = CLASSIFICATION,
    batch_size: int = 1000,
    placement: Placement = "auto",
) -> dict[str, AnyMetrics]:
    """Computes the metrics of T weighted sums of M models for every split, in one compiled call: soups, planes, simplices.

    A weight of 1 with zeros elsewhere is that model, its own statistics included; entries equal in all models are copied.
    Otherwise as `evaluate_paths`.

    Args:
      weights: (T, M) floats; rows of averages sum to 1, which is not checked.

    Returns:
      The objective's metrics with leaves (T,) float32 for each split, NumPy.

    Raises:
      ValueError: weights of another shape, or non-finite; and as `evaluate_paths`.
    """
    check_splits(data)
    members, state = stacked_models(network, members, state, data)
    count = jax.tree.leaves(members)[0].shape[0]
    weights = np.asarray(weights, np.float32)
    if weights.ndim != 2 or weights.shape[1] != count or not np.isfinite(weights).all():
        raise ValueError(f"weights must be finite and (T, {count}), a column for each member; got {weights.shape}")
    calibration = check_calibration(calibration, network, state)
    return evaluate_points(
        network, members, state, calibration, Mixture(weights), data, objective, batch_size, placement
    )
