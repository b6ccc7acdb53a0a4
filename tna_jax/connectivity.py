"""Metrics along paths between models, all devices, one pass; and barriers.

>>> members = {"w": jnp.array([[[1.0, -1.0]], [[-1.0, 1.0]]])}  # M = 2 linear classifiers of one feature
>>> network = lambda params, inputs: inputs @ params["w"]
>>> data = {"test": (jnp.array([[1.0], [2.0]]), jnp.array([0, 0]))}  # the first is always right, the second always wrong
>>> path = evaluate_paths(network, members, pairs(2), grid(5), data)["test"]  # P = 1 pair
>>> path.accuracy.tolist()
[[1.0, 1.0, 1.0, 0.0, 0.0]]
>>> barrier(path, metric="accuracy").tolist()  # (P,)
[0.25]
"""

import functools
import itertools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32, Integer, PyTree, Shaped

from tna_jax import averaging, interpolation, metrics, networks, objectives, program_cache, repair, sharding, streaming
from tna_jax import placement as placement_lib
from tna_jax.alphas import check_alphas as check_alphas
from tna_jax.alphas import grid as grid
from tna_jax.barriers import BarrierKind as BarrierKind
from tna_jax.barriers import Path as Path
from tna_jax.barriers import barrier as barrier
from tna_jax.ensemble import member
from tna_jax.masks import Params
from tna_jax.metrics import AnyMetrics
from tna_jax.networks import Network, State, Stateful
from tna_jax.objectives import CLASSIFICATION, Objective
from tna_jax.placement import Placement
from tna_jax.streaming import Stream

Split = tuple[PyTree[Shaped[Array | np.ndarray, "..."]], PyTree[Shaped[Array | np.ndarray, "..."]]]
"""Inputs (N, ...) and labels (N,), or other targets (N, ...), in every leaf."""

Data = Mapping[str, Split | Stream]
"""Inputs and targets, or a stream of them, by the name of the split; each split has an N of its own."""


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


def pairs(models: int) -> Int32[np.ndarray, "P 2"]:
    """Returns all unordered pairs of `models` models: (P, 2) int32, P = models (models - 1) / 2, in lexicographic order."""
    return np.array(list(itertools.combinations(range(models), 2)), np.int32).reshape(-1, 2)


@overload
def evaluate_path(
    network: Network,
    a: Params,
    b: Params,
    data: Split,
    /,
    *,
    alphas: int | Float[np.ndarray, "..."] | Sequence[float] = ...,
    state: State = ...,
    calibration: Any = ...,
    objective: Objective = ...,
    batch_size: int = ...,
    placement: Placement = ...,
) -> Path: ...
@overload
def evaluate_path(
    network: Network,
    a: Params,
    b: Params,
    data: Data,
    /,
    *,
    alphas: int | Float[np.ndarray, "..."] | Sequence[float] = ...,
    state: State = ...,
    calibration: Any = ...,
    objective: Objective = ...,
    batch_size: int = ...,
    placement: Placement = ...,
) -> dict[str, Path]: ...
@overload
def evaluate_path(network: Network, *stacked: Any, **options: Any) -> Any: ...
@sharding.outside_meshes
def evaluate_path(
    network: Network,
    a: Params = None,
    b: Params = None,
    data: Any = None,
    *stacked: Any,
    alphas: Any = 11,
    state: State = (),
    calibration: Any = None,
    objective: Objective = CLASSIFICATION,
    batch_size: int = 1000,
    placement: Placement = "auto",
    **renamed: Any,
) -> Any:
    """Computes the metrics of `line(a, b, alpha)` for two models: what lies between them.

    The ends equal `evaluate` of the models alone exactly (`vmap`: up to rounding). For many pairs at once see `evaluate_paths`,
    whose call (network, members, pairs, alphas, data) is still understood here, with a warning.

    Args:
      network: a function (params, inputs (B, ...)) -> outputs, or a `Stateful` network.
      a, b: parameters of two models, of one structure.
      data: (inputs (N, ...), targets (N, ...)), or a mapping of names to such splits; a split may be a stream (`tna_jax.streaming`).
      alphas: their number, odd, or (A,) increasing, holding 0, 1/2 and 1.
      state: (state of a, state of b), for a `Stateful` network.
      calibration, objective, batch_size, placement: as in `evaluate_paths`.

    Returns:
      A `Path` with metrics (A,) float32, NumPy: `path.alphas` and `path.loss` are ready to plot; of a mapping a dict of them.

    Raises:
      ValueError: models of different structure or shapes; and as `evaluate_paths`.

    >>> network = lambda params, inputs: inputs @ params["w"]
    >>> a, b = {"w": jnp.array([[1.0, -1.0]])}, {"w": jnp.array([[-1.0, 1.0]])}
    >>> path = evaluate_path(network, a, b, (jnp.array([[1.0], [2.0]]), jnp.array([0, 0])), alphas=5)
    >>> path.accuracy.tolist(), float(barrier(path))
    ([1.0, 1.0, 1.0, 0.0, 0.0], 0.25)
    """
    options: dict[str, Any] = {
        "calibration": calibration, "objective": objective, "batch_size": batch_size, "placement": placement
    }  # fmt: skip
    if stacked or renamed or _is_pairs(b):
        warnings.warn(
            "evaluate_path of stacked members and pairs is called evaluate_paths now", DeprecationWarning, stacklevel=2
        )
        if stacked:
            before = {"members": a, "pairs": b, "alphas": data, "data": stacked[0]}
        else:
            before = {"members": a, "pairs": b, "alphas": alphas, "data": data} | renamed
        return evaluate_paths(network, **before, state=state, **options)
    if jax.tree.leaves(state) and not (isinstance(state, (tuple, list)) and len(state) == 2):
        raise ValueError("state must be a pair, that of the first model and that of the second")
    members = averaging.stack([a, b])
    states = averaging.stack(state) if jax.tree.leaves(state) else ()
    splits = data if isinstance(data, Mapping) else {"": data}
    paths = evaluate_paths(network, members, [(0, 1)], alphas, splits, state=states, **options)
    single = {split: Path(path.alphas, jax.tree.map(lambda x: x[0], path.metrics)) for split, path in paths.items()}
    return single if isinstance(data, Mapping) else single[""]


def _is_pairs(b: Any) -> bool:
    """Whether what stands in the place of the second model are pairs (P, 2), as before."""
    if isinstance(b, Mapping):
        return False
    try:
        pairs = np.asarray(b)
    except (TypeError, ValueError):  # a tree
        return False
    return bool(pairs.ndim == 2 and pairs.shape[1] == 2 and np.issubdtype(pairs.dtype, np.integer))


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
    alphas = grid(alphas) if isinstance(alphas, int) else check_alphas(alphas)
    _check_splits(data)
    members, state = _stacked(network, members, state, data)
    pairs = np.asarray(pairs, np.int32)  # (P, 2)
    count = jax.tree.leaves(members)[0].shape[0]
    if pairs.ndim != 2 or pairs.shape[1] != 2 or (pairs.size and not 0 <= pairs.min() <= pairs.max() < count):
        raise ValueError(f"pairs must be (P, 2) indices of {count} members, got {pairs.tolist()}")
    calibration = _checked(calibration, network, state)
    tasks = _Line(np.repeat(pairs, len(alphas), axis=0), np.tile(alphas, len(pairs)))  # (P*A, 2), (P*A,)
    points = _evaluate(network, members, state, calibration, tasks, data, objective, batch_size, placement)
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
    _check_splits(data)
    members, state = _stacked(network, members, state, data)
    indices = np.arange(jax.tree.leaves(members)[0].shape[0], dtype=np.int32)
    tasks = _Line(np.stack([indices, indices], axis=1), np.zeros(len(indices), np.float32))
    return _evaluate(network, members, state, None, tasks, data, objective, batch_size, placement)


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
    _check_splits(data)
    members, state = _stacked(network, members, state, data)
    count = jax.tree.leaves(members)[0].shape[0]
    weights = np.asarray(weights, np.float32)
    if weights.ndim != 2 or weights.shape[1] != count or not np.isfinite(weights).all():
        raise ValueError(f"weights must be finite and (T, {count}), a column for each member; got {weights.shape}")
    calibration = _checked(calibration, network, state)
    return _evaluate(network, members, state, calibration, _Mixture(weights), data, objective, batch_size, placement)


def _check_splits(data: Any) -> None:
    """Raises TypeError where the splits are not given by name."""
    if not isinstance(data, Mapping):
        raise TypeError(
            f"data must be a mapping of names to (inputs, targets), {{'test': (inputs, labels)}}; got {type(data).__name__}"
        )
    for split, pair in data.items():
        if isinstance(pair, Stream):
            continue
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise TypeError(f"split {split!r} must be (inputs, targets), got {type(pair).__name__}")


def _stacked(network: Network, members: Params, state: State, data: Data) -> tuple[Params, State]:
    """Models and their states (M, ...): a list or tuple of models is stacked, unless the network runs on it as it is."""
    models = averaging.stacked(members)
    if models is members:
        return members, state
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x)[1:], jnp.result_type(x)), (members, state))
    inputs = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((1, *np.shape(x)[1:]), jnp.result_type(x)), _first_inputs(data)
    )
    try:
        jax.eval_shape(functools.partial(networks.evaluate, network), *shapes, inputs)
    except Exception:  # whatever a network says of parameters that are not its own
        return models, averaging.stacked(state) if jax.tree.leaves(state) else state
    return members, state


def _checked(calibration: Any, network: Network, state: State) -> Any:
    """The calibration inputs that a network needs: `None` without running statistics (a state of integers or keys has none); else
    ValueError if there are none."""
    if not isinstance(network, Stateful) or not any(map(repair.is_statistic, jax.tree.leaves(state))):
        return None
    if calibration is None or not len(jax.tree.leaves(calibration)[0]):
        raise ValueError(
            "a network with running statistics needs `calibration`: training inputs to estimate them on again"
        )
    return calibration


def _first_inputs(data: Data) -> Any:
    """Inputs (N, ...) of the first split; of a stream those of its first example."""
    split = next(iter(data.values()))
    return (streaming.example(split) if isinstance(split, Stream) else split)[0]


_STREAMED_BYTES = 2**27
"""Inputs of a stream that are measured at once, about, where something has to be computed for them beside the batches."""


def _evaluate(
    network: Network,
    members: Params,
    state: State,
    calibration: Any,
    tasks: _Point,
    data: Data,
    objective: Objective,
    batch_size: int,
    placement: Placement,
) -> dict[str, AnyMetrics]:
    """The metrics of the points by split. A stream is read part by part, and the sums are added on the host in float64."""
    model = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape[1:], p.dtype), (members, state))
    first = _first_inputs(data)
    example = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), first)
    run = functools.partial(networks.evaluate, network)
    placement = placement_lib.resolve(placement, run, *model, example)
    classes = (
        getattr(program_cache.output_shapes(run, *model, example), "shape", (None,))[-1] if objective.classes else None
    )
    arrays = {split: part for split, part in data.items() if not isinstance(part, Stream)}
    results = {}
    if arrays:
        results = _evaluate_arrays(
            network, members, state, calibration, tasks, arrays, objective, batch_size, placement, classes
        )
    for split, stream in data.items():
        if not isinstance(stream, Stream):
            continue
        if not len(stream):
            raise ValueError(f"split {split!r} has no examples")
        size, mesh = batch_size, placement_lib.mesh()
        params, states, fixed = placement_lib.replicate((members, state, calibration), mesh)
        if calibration is not None:  # its statistics are estimated anew for every part
            example_bytes = sum(x[:1].nbytes for x in jax.tree.leaves(streaming.example(stream)[0]))
            size *= max(1, _STREAMED_BYTES // max(batch_size * example_bytes, 1))
        total: Any = None
        for part in streaming.parts(stream, size):
            points = _evaluate_arrays(
                network, params, states, fixed, tasks, {split: part}, objective, batch_size, placement, classes
            )
            total = streaming.sum_parts(total, points[split])
        results[split] = total
    return {split: results[split] for split in data}


def _evaluate_arrays(
    network: Network,
    members: Params,
    state: State,
    calibration: Any,
    tasks: _Point,
    data: Mapping[str, Split],
    objective: Objective,
    batch_size: int,
    placement: Placement,
    classes: int | None,
) -> dict[str, AnyMetrics]:
    for split, (inputs, targets) in data.items():
        what = f"split {split!r} has " if split else ""
        if not objectives.check_examples(objective, inputs, targets, what, classes):
            raise ValueError(f"split {split!r} has no examples")
    mesh, count = placement_lib.mesh(), len(jax.tree.leaves(tasks)[0])
    if not count:  # one model has no pairs
        return {split: jax.tree.map(lambda x: np.zeros(0, x.dtype), objective.zero()) for split in data}
    copies = placement_lib.replicate(((members, state), calibration, dict(data)), mesh)
    if calibration is not None:
        _check_reset(network, mesh, copies[0], copies[1])
    tasks = placement_lib.shard(placement_lib.pad(jax.tree.map(np.asarray, tasks), mesh.size), mesh)
    if placement == "loop":
        points = _loop_points(network, objective, tasks, copies, batch_size, mesh)
    else:
        points = placement_lib.to_host(_path_program(network, objective, placement, mesh, batch_size)(tasks, *copies))
    unpadded: dict[str, AnyMetrics] = jax.tree.map(lambda x: x[:count], points)
    return unpadded


def _check_reset(network: Network, mesh: Mesh, models: Any, calibration: Any) -> None:
    """Raises ValueError where statistics estimated anew are not what the first member's evaluation reads."""
    batch = min(_examples(calibration), _RESET_BATCH)
    gap = float(placement_lib.to_host(_reset_program(network, mesh, batch)(models, calibration)))
    if not gap <= repair.RESET_TOLERANCE:
        raise ValueError(
            "the running statistics of this network cannot be estimated anew: on one batch, evaluation with that batch's statistics "
            f"is {gap:.0%} away from training mode. Floating-point leaves of the state must be running averages of what training "
            "normalizes by; where evaluation corrects them by a count, give `settled` to networks.Stateful"
        )


_RESET_BATCH = 128
"""Examples on which a reset is tried."""


@program_cache.by_contents()
def _reset_program(network: Network, mesh: Mesh, batch: int) -> Any:
    def disagreement(models: Any, calibration: Any) -> Array:
        assert isinstance(network, Stateful)
        params, state = models
        first = _part(calibration, slice(batch))
        return repair.reset_disagreement(network, member(params, 0), member(state, 0), first)

    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.jit(disagreement, out_shardings=replicated)


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
    return jax.tree.map(
        lambda stored, new: jnp.where(alone, stored, new.astype(stored.dtype)), member(state, index), fresh
    )


def _batch_metrics(
    network: Network,
    params: Params,
    state: State,
    inputs: Any,
    targets: Any,
    objective: Objective = CLASSIFICATION,
) -> AnyMetrics:
    outputs = networks.evaluate(network, params, state, inputs)
    return objective.sums(outputs, targets, jnp.ones(jax.tree.leaves(targets)[0].shape[:1], jnp.float32))


@program_cache.by_contents()
def _path_program(network: Network, objective: Objective, placement: Placement, mesh: Mesh, batch_size: int) -> Any:
    def split_metrics(params: Params, state: State, *data: Any) -> AnyMetrics:
        examples = _examples(data)
        size = min(batch_size, examples)
        full = examples // size * size  # examples of the batches that are full

        def step(total: AnyMetrics, part: Any) -> tuple[AnyMetrics, None]:
            inputs, targets = part
            return metrics.merge(total, _batch_metrics(network, params, state, inputs, targets, objective)), None

        cut = jax.tree.map(lambda x: x[:full].reshape(-1, size, *x.shape[1:]), data)
        total, _ = jax.lax.scan(step, objective.zero(), cut)
        if full == examples:
            return total
        inputs, targets = _part(data, slice(full, None))
        return metrics.merge(total, _batch_metrics(network, params, state, inputs, targets, objective))

    def on_share(tasks: Any, models: Any, calibration: Any, data: Any) -> Any:
        members, states = models

        def point_metrics(point: _Point) -> dict[str, AnyMetrics]:
            params = point.params(members)
            state = _statistics(network, params, states, calibration, point, batch_size)
            return {split: split_metrics(params, state, *arrays) for split, arrays in data.items()}

        return jax.vmap(point_metrics)(tasks) if placement == "vmap" else jax.lax.map(point_metrics, tasks)

    return jax.jit(placement_lib.shard_map_stacked(on_share, mesh, replicated=3))


@program_cache.by_contents()
def _point_programs(network: Network, objective: Objective, mesh: Mesh) -> list[Any]:
    """The pieces of one point on each device: one program each for all devices, compiled once (and once for a rest)."""

    def mixed(point: _Point, models: Any) -> tuple[Params, State]:
        return point.params(models[0]), repair.no_statistics(member(models[1], point.corner()[0]))

    def statistics(sums: Any, inputs: Any, share: Array) -> State:
        assert isinstance(network, Stateful)  # else there is no calibration
        total, form, params = sums
        return repair.add_statistics(network, total, params, form, inputs, share)

    def chosen(estimate: Any, models: Any) -> State:
        point, fresh = estimate
        return _chosen(models[1], fresh, point)

    def stored(point: _Point, models: Any) -> State:
        return member(models[1], point.corner()[0])

    def batch(running: Any, inputs: Any, targets: Any) -> AnyMetrics:
        total, params, state = running
        merged: AnyMetrics = metrics.merge(total, _batch_metrics(network, params, state, inputs, targets, objective))
        return merged

    pieces = ((mixed, 1), (statistics, 2), (chosen, 1), (stored, 1), (batch, 2))
    return [jax.jit(placement_lib.shard_map_single(piece, mesh, replicated)) for piece, replicated in pieces]


def _loop_points(
    network: Network, objective: Objective, tasks: _Point, copies: Any, batch_size: int, mesh: Mesh
) -> dict[str, AnyMetrics]:
    """The points as a plain Python loop over models and batches, all devices side by side: the reference of the one-pass
    program, and the fastest for convolutions on CPUs."""
    mixed, statistics, chosen, stored, batch = _point_programs(network, objective, mesh)
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
            form = stored(task, models)
            for part in _parts(_examples(calibration), batch_size):
                share = np.float32((part.stop - part.start) / _examples(calibration))
                state = statistics((state, form, params), _part(calibration, part), share)
            state = chosen((task, state), models)
        else:
            state = stored(task, models)
        totals = {}
        for split, arrays in data.items():
            zero = jax.tree.map(lambda x: np.zeros(mesh.size, x.dtype), objective.zero())
            totals[split] = placement_lib.shard(zero, mesh)
            for part in _parts(_examples(arrays), batch_size):
                totals[split] = batch((totals[split], params, state), *_part(arrays, part))
        points.append(totals)
    joined: dict[str, AnyMetrics] = jax.tree.map(
        lambda *x: np.stack(x, axis=1).reshape(-1), *placement_lib.to_host(points)
    )
    return joined


def _examples(arrays: Any) -> int:
    """N of (N, ...)."""
    return int(jax.tree.leaves(arrays)[0].shape[0])


def _part(arrays: Any, part: slice) -> Any:
    return jax.tree.map(lambda x: x[part], arrays)


def _parts(examples: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, examples)) for start in range(0, examples, size)]
