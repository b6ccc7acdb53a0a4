"""The line between two models."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, overload

import jax
import numpy as np
from jaxtyping import Float

from tna_jax import averaging, sharding
from tna_jax.barriers import Path
from tna_jax.connectivity.inputs import Data, Split
from tna_jax.connectivity.paths import evaluate_paths
from tna_jax.masks import Params
from tna_jax.networks import Network, State
from tna_jax.objectives import CLASSIFICATION, Objective
from tna_jax.placement import Placement


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

    >>> import jax.numpy as jnp
    >>> from tna_jax import barrier
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
