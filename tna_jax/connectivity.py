"""Metrics along paths between models, all devices, one pass; and barriers.

>>> members = {"w": jnp.array([[[1.0, -1.0]], [[-1.0, 1.0]]])}  # M = 2 linear classifiers of one feature
>>> network = lambda params, inputs: inputs @ params["w"]
>>> data = {"test": (jnp.array([[1.0], [2.0]]), jnp.array([0, 0]))}  # the first is always right, the second always wrong
>>> path = evaluate_path(network, members, pairs(2), grid(5), data)["test"]  # P = 1 pair
>>> path.accuracy.tolist()
[[1.0, 1.0, 1.0, 0.0, 0.0]]
>>> barrier(path, metric="accuracy").tolist()  # (P,)
[0.25]
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32, Integer, PyTree, Shaped

from tna_jax import interpolation, metrics, networks, repair
from tna_jax import placement as placement_lib
from tna_jax.alphas import check_alphas as check_alphas
from tna_jax.alphas import grid as grid
from tna_jax.ensemble import member
from tna_jax.masks import Params
from tna_jax.metrics import Metrics
from tna_jax.networks import Network, State, Stateful
from tna_jax.placement import Placement

Data = Mapping[str, tuple[Shaped[Array | np.ndarray, "..."], Integer[Array | np.ndarray, "..."]]]
"""Inputs (N, ...) and labels (N,) by the name of the split; each split has an N of its own."""

BarrierKind = Literal["linear", "relative", "midpoint", "ends", "worst"]


class _Line(NamedTuple):
    """A point of the line between two members; (T, ...) for T points."""

    pair: Any
    """(2,) int32 indices."""
    alpha: Any
    """() float32."""

    def params(self, members: Params) -> Params:
        return interpolation.line(member(members, self.pair[0]), member(members, self.pair[1]), self.alpha)

    def corner(self) -> tuple[Array, Array]:
        """A member, and whether the point is that member itself."""
        ends = (self.alpha == 0) | (self.alpha == 1) | (self.pair[0] == self.pair[1])
        return jnp.where(self.alpha == 1, self.pair[1], self.pair[0]), ends


class _Mixture(NamedTuple):
    """A weighted sum of all members; (T, M) for T points."""

    weights: Any
    """(M,) float32."""

    def params(self, members: Params) -> Params:
        return interpolation.mixture(members, self.weights)

    def corner(self) -> tuple[Array, Array]:
        """As that of a line."""
        return interpolation.corner(self.weights)


_Point = _Line | _Mixture


class Path(NamedTuple):
    """Metrics along the lines between P pairs of models, at A points each."""

    alphas: Any
    """(A,) increasing, 0 at the first model and 1 at the second."""
    metrics: Metrics
    """Leaves (P, A), or (..., A) in general."""

    @property
    def loss(self) -> Any:
        """(..., A) mean cross-entropy, in nats."""
        return self.metrics.loss

    @property
    def accuracy(self) -> Any:
        """(..., A) share of correct examples, in [0, 1]."""
        return self.metrics.accuracy


def pairs(models: int) -> Int32[np.ndarray, "P 2"]:
    """Returns all unordered pairs of `models` models: (P, 2) int32, P = models (models - 1) / 2, in lexicographic order."""
    return np.array(list(itertools.combinations(range(models), 2)), np.int32).reshape(-1, 2)


def evaluate_path(
    network: Network,
    members: PyTree[Shaped[Array | np.ndarray, "M ..."]],
    pairs: Integer[np.ndarray, "..."] | Sequence[Sequence[int]],
    alphas: Float[np.ndarray, "..."] | Sequence[float],
    data: Data,
    *,
    state: State = (),
    calibration: Shaped[Array | np.ndarray, "N ..."] | None = None,
    batch_size: int = 1000,
    placement: Placement = "auto",
) -> dict[str, Path]:
    """Computes loss and accuracy of `line(members[i], members[j], alpha)` for P pairs x A alphas x every split, in one compiled call.

    The P * A models are spread over all devices; one interpolated model is alive per device (`map`). Every example counts
    once. Laws: the ends equal `evaluate` of the stand-alone models exactly (`vmap`: up to rounding); a pair (i, i) is flat.

    The running statistics of a network with BatchNorm are estimated again at every point inside the path, on
    `calibration` (`reset_batch_stats`); the ends keep their own.

    Args:
      network: (params, inputs (B, ...)) -> logits (B, C), or a `Stateful` network.
      members: pytree with leaves (M, ...).
      pairs: (P, 2) ints in [0, M).
      alphas: (A,) increasing, holding 0, 1/2 and 1 (see `grid`).
      data: inputs (N, ...) and labels (N,) by the name of the split.
      state: (M, ...) state of the members, for a `Stateful` network.
      calibration: (N, ...) training inputs, for a `Stateful` network; 2,000 are usually enough.
      batch_size: examples per forward pass; a smaller N is one batch. Also of the calibration.
      placement: `map`, `vmap` (all models of a device at once), `loop` (one dispatch per model and batch) or `auto`.

    Returns:
      A `Path` for each split, metrics (P, A) float32, NumPy.

    Raises:
      ValueError: alphas without 0, 1/2 or 1; pairs out of range; numbers of inputs and labels that differ; a `Stateful`
        network without calibration inputs.
    """
    alphas = check_alphas(alphas)
    pairs = np.asarray(pairs, np.int32)  # (P, 2)
    count = jax.tree.leaves(members)[0].shape[0]
    if pairs.ndim != 2 or pairs.shape[1] != 2 or (pairs.size and not 0 <= pairs.min() <= pairs.max() < count):
        raise ValueError(f"pairs must be (P, 2) indices of {count} members, got {pairs.tolist()}")
    calibration = _checked(calibration, network)
    tasks = _Line(np.repeat(pairs, len(alphas), axis=0), np.tile(alphas, len(pairs)))  # (P*A, 2), (P*A,)
    points = _evaluate(network, members, state, calibration, tasks, data, batch_size, placement)
    shape = (len(pairs), len(alphas))
    return {split: Path(alphas, jax.tree.map(lambda x: x.reshape(shape), m)) for split, m in points.items()}


def evaluate(
    network: Network,
    members: PyTree[Shaped[Array | np.ndarray, "M ..."]],
    data: Data,
    *,
    state: State = (),
    batch_size: int = 1000,
    placement: Placement = "auto",
) -> dict[str, Metrics]:
    """Computes loss and accuracy of M stand-alone models for every split: `Metrics` with leaves (M,). As `evaluate_path`."""
    indices = np.arange(jax.tree.leaves(members)[0].shape[0], dtype=np.int32)
    tasks = _Line(np.stack([indices, indices], axis=1), np.zeros(len(indices), np.float32))
    return _evaluate(network, members, state, None, tasks, data, batch_size, placement)


def evaluate_mixtures(
    network: Network,
    members: PyTree[Shaped[Array | np.ndarray, "M ..."]],
    weights: Shaped[Array | np.ndarray, "..."] | Sequence[Sequence[float]],
    data: Data,
    *,
    state: State = (),
    calibration: Shaped[Array | np.ndarray, "N ..."] | None = None,
    batch_size: int = 1000,
    placement: Placement = "auto",
) -> dict[str, Metrics]:
    """Computes loss and accuracy of T weighted sums of M models for every split, in one compiled call: soups, planes, simplices.

    A weight of 1 with zeros elsewhere is that model, its own statistics included; entries equal in all models are copied.
    Otherwise as `evaluate_path`.

    Args:
      weights: (T, M) floats; rows of averages sum to 1, which is not checked.

    Returns:
      `Metrics` with leaves (T,) float32 for each split, NumPy.

    Raises:
      ValueError: weights of another shape, or non-finite; and as `evaluate_path`.
    """
    count = jax.tree.leaves(members)[0].shape[0]
    weights = np.asarray(weights, np.float32)
    if weights.ndim != 2 or weights.shape[1] != count or not np.isfinite(weights).all():
        raise ValueError(f"weights must be finite and (T, {count}), a column for each member; got {weights.shape}")
    calibration = _checked(calibration, network)
    return _evaluate(network, members, state, calibration, _Mixture(weights), data, batch_size, placement)


def _checked(calibration: Any, network: Network) -> Any:
    """The calibration inputs that a network needs: `None` without running statistics; else ValueError if there are none."""
    if not isinstance(network, Stateful):
        return None
    if calibration is None or not len(calibration):
        raise ValueError(
            "a network with running statistics needs `calibration`: training inputs to estimate them on again"
        )
    return calibration


def _evaluate(
    network: Network,
    members: Params,
    state: State,
    calibration: Any,
    tasks: _Point,
    data: Data,
    batch_size: int,
    placement: Placement,
) -> dict[str, Metrics]:
    for split, (inputs, labels) in data.items():
        if labels.shape != inputs.shape[:1] or not len(labels):
            raise ValueError(f"split {split!r} has {inputs.shape[0]} inputs but labels of shape {labels.shape}")
    model = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape[1:], p.dtype), (members, state))
    first = next(iter(data.values()))[0]
    example = jax.ShapeDtypeStruct((1, *first.shape[1:]), first.dtype)
    placement = placement_lib.resolve(placement, functools.partial(networks.evaluate, network), *model, example)
    mesh, count = placement_lib.mesh(), len(jax.tree.leaves(tasks)[0])
    copies = placement_lib.replicate(((members, state), calibration, dict(data)), mesh)
    tasks = placement_lib.shard(placement_lib.pad(jax.tree.map(np.asarray, tasks), mesh.size), mesh)
    if placement == "loop":
        points = _loop_points(network, tasks, copies, batch_size, mesh)
    else:
        points = placement_lib.to_host(_path_program(network, placement, mesh, batch_size)(tasks, *copies))
    unpadded: dict[str, Metrics] = jax.tree.map(lambda x: x[:count], points)
    return unpadded


def _statistics(
    network: Network, params: Params, state: State, calibration: Any, point: _Point, batch_size: int
) -> State:
    """The state of a point: a member's own where the point is that member; else estimated again."""
    stored = member(state, point.corner()[0])
    if not isinstance(network, Stateful) or calibration is None:
        return stored
    return _chosen(state, repair.reset_batch_stats(network, params, stored, calibration, batch_size=batch_size), point)


def _chosen(state: State, fresh: State, point: _Point) -> State:
    index, alone = point.corner()
    return jax.tree.map(lambda stored, new: jnp.where(alone, stored, new), member(state, index), fresh)


def _batch_metrics(network: Network, params: Params, state: State, inputs: Any, labels: Array) -> Metrics:
    logits = networks.evaluate(network, params, state, inputs)
    return metrics.classification(logits, labels, jnp.ones(labels.shape, jnp.float32))


@functools.lru_cache(maxsize=32)
def _path_program(network: Network, placement: Placement, mesh: Mesh, batch_size: int) -> Any:
    def split_metrics(params: Params, state: State, inputs: Any, labels: Array) -> Metrics:
        size = min(batch_size, inputs.shape[0])
        full = inputs.shape[0] // size * size  # examples of the batches that are full

        def step(total: Metrics, part: Any) -> tuple[Metrics, None]:
            return metrics.merge(total, _batch_metrics(network, params, state, *part)), None

        cut = jax.tree.map(lambda x: x[:full].reshape(-1, size, *x.shape[1:]), (inputs, labels))
        total, _ = jax.lax.scan(step, metrics.zero(), cut)
        if full == inputs.shape[0]:
            return total
        return metrics.merge(total, _batch_metrics(network, params, state, inputs[full:], labels[full:]))

    def on_share(tasks: Any, models: Any, calibration: Any, data: Any) -> Any:
        members, states = models

        def point_metrics(point: _Point) -> dict[str, Metrics]:
            params = point.params(members)
            state = _statistics(network, params, states, calibration, point, batch_size)
            return {split: split_metrics(params, state, *arrays) for split, arrays in data.items()}

        return jax.vmap(point_metrics)(tasks) if placement == "vmap" else jax.lax.map(point_metrics, tasks)

    return jax.jit(placement_lib.shard_map_stacked(on_share, mesh, replicated=3))


@functools.lru_cache(maxsize=32)
def _point_programs(network: Network, mesh: Mesh) -> list[Any]:
    """The pieces of one point on each device: one program each for all devices, compiled once (and once for a rest)."""

    def mixed(point: _Point, models: Any) -> tuple[Params, State]:
        return point.params(models[0]), repair.no_statistics(member(models[1], point.corner()[0]))

    def statistics(sums: Any, inputs: Any, share: Array) -> State:
        assert isinstance(network, Stateful)  # else there is no calibration
        total, params = sums
        return repair.add_statistics(network, total, params, total, inputs, share)

    def chosen(estimate: Any, models: Any) -> State:
        point, fresh = estimate
        return _chosen(models[1], fresh, point)

    def stored(point: _Point, models: Any) -> State:
        return member(models[1], point.corner()[0])

    def batch(running: Any, inputs: Any, labels: Array) -> Metrics:
        total, params, state = running
        return metrics.merge(total, _batch_metrics(network, params, state, inputs, labels))

    pieces = ((mixed, 1), (statistics, 2), (chosen, 1), (stored, 1), (batch, 2))
    return [jax.jit(placement_lib.shard_map_single(piece, mesh, replicated)) for piece, replicated in pieces]


def _loop_points(network: Network, tasks: _Point, copies: Any, batch_size: int, mesh: Mesh) -> dict[str, Metrics]:
    """The points as a plain Python loop over models and batches, all devices side by side: the reference of the one-pass
    program, and the fastest for convolutions on CPUs."""
    mixed, statistics, chosen, stored, batch = _point_programs(network, mesh)
    models, calibration, data = copies
    shares = jax.tree.leaves(tasks)[0].shape[0] // mesh.size
    turns = [
        placement_lib.shard(jax.tree.map(lambda x, i=i: x[i::shares], placement_lib.to_host(tasks)), mesh)
        for i in range(shares)
    ]
    points = []
    for task in turns:  # task t of each device's share
        params, state = mixed(task, models)
        if calibration is not None:
            for part in _parts(calibration.shape[0], batch_size):
                share = np.float32((part.stop - part.start) / calibration.shape[0])
                state = statistics((state, params), calibration[part], share)
            state = chosen((task, state), models)
        else:
            state = stored(task, models)
        totals = {}
        for split, (inputs, labels) in data.items():
            zero = jax.tree.map(lambda x: np.zeros(mesh.size, x.dtype), metrics.zero())
            totals[split] = placement_lib.shard(zero, mesh)
            for part in _parts(inputs.shape[0], batch_size):
                totals[split] = batch((totals[split], params, state), inputs[part], labels[part])
        points.append(totals)
    joined: dict[str, Metrics] = jax.tree.map(
        lambda *x: np.stack(x, axis=1).reshape(-1), *placement_lib.to_host(points)
    )
    return joined


def _parts(examples: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, examples)) for start in range(0, examples, size)]


def barrier(
    path: Path, kind: BarrierKind = "linear", metric: Literal["accuracy", "loss"] = "accuracy"
) -> Float[Any, "..."]:  # of NumPy or JAX, as the path
    """Computes how much worse the models between two ends are than the ends: 0 for a flat path, larger is worse.

    With L(a) the loss at alpha a, or the error (1 - accuracy), and `lin(a) = (1 - a) L(0) + a L(1)`:

    | kind | definition | source |
    | --- | --- | --- |
    | `linear` | max over a of L(a) - lin(a) | Entezari et al. 2022, arXiv 2110.06296 |
    | `relative` | max over a of that gap divided by the linear value at a: of the accuracy, or of the loss | code of arXiv 2402.01342's authors |
    | `midpoint` | L(1/2) - lin(1/2) | |
    | `ends` | max over a of L(a) - (L(0) + L(1)) / 2 | Git Re-Basin, arXiv 2209.04836 |
    | `worst` | max over a of L(a), for accuracy the largest error | Lim et al. 2024, arXiv 2405.20231 |

    Laws: 0 (but for `worst`) where both ends are one model; `linear` and `relative` are at least 0; reversing a path
    changes nothing.

    Args:
      path: a `Path` with metrics (..., A), NumPy or JAX.
      kind: one of the table.
      metric: `accuracy` (result as a share, 0.1 = ten points) or `loss` (in nats).

    Returns:
      (...,) of the path's dtype; non-finite where the path is.

    Raises:
      ValueError: an unknown kind or metric, or a grid without 0, 1/2 and 1.
    """
    if kind not in get_args(BarrierKind) or metric not in ("accuracy", "loss"):
        raise ValueError(f"unknown barrier {kind!r} of {metric!r}: kinds are {', '.join(get_args(BarrierKind))}")
    alphas = check_alphas(path.alphas)
    accuracy = metric == "accuracy"
    values = path.accuracy if accuracy else path.loss
    a = alphas.astype(values.dtype)
    linear = (1 - a) * values[..., :1] + a * values[..., -1:]
    gap = linear - values if accuracy else values - linear  # (..., A), 0 at both ends
    measure: Any
    if kind == "linear":
        measure = gap.max(-1)
    elif kind == "relative":
        nowhere = (linear == 0).astype(linear.dtype)  # no model at either end is ever right: there is nothing to lose
        measure = (gap / (linear + nowhere)).max(-1)
    elif kind == "midpoint":
        measure = gap[..., int(np.argmax(alphas == 0.5))]
    elif kind == "worst":
        measure = (1 - values if accuracy else values).max(-1)
    else:
        ends = (values[..., :1] + values[..., -1:]) / 2
        measure = (ends - values if accuracy else values - ends).max(-1)
    return measure
