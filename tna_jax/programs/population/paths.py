"""Walks the paths between models of a run: groups of pairs whose models fit the memory."""

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import connectivity
from tna_jax.connectivity import Path
from tna_jax.masks import Params
from tna_jax.networks import Network, State
from tna_jax.placement import Placement
from tna_jax.programs.data import Dataset
from tna_jax.programs.system import memory


def evaluate_pairs(
    network: Network,
    params: Params,
    state: State,
    pairs: np.ndarray,
    alphas: np.ndarray,
    data: Dataset,
    *,
    placement: Placement,
    calibration_examples: int = 2000,
    memory_limit: float | None = None,
) -> dict[str, Path]:
    """`evaluate_path` on the training and the test split, metrics float64 on the host.

    Args:
      params, state: (M, ...) on the host.
      pairs: (P, 2), distinct.
      calibration_examples: the first training examples, on which BatchNorm's statistics are estimated again.
      memory_limit: GB the models may take; default: a third of what is free.
    """
    splits = {
        name: (jnp.asarray(split.images), jnp.asarray(split.labels))
        for name, split in (("train", data.train), ("test", data.test))
    }
    calibration = splits["train"][0][:calibration_examples]
    free = memory.available(memory_limit) if memory_limit is not None else memory.available() // 3
    one = memory.size((params, state)) // len(jax.tree.leaves(params)[0])
    found = []
    for group in groups(pairs, max(2, free // max(one, 1))):
        used, index = np.unique(group, return_inverse=True)
        some = jax.tree.map(lambda x, used=used: x[used], (params, state))
        path = connectivity.evaluate_path(
            network,
            some[0],
            index.reshape(-1, 2),
            alphas,
            splits,
            state=some[1],
            calibration=calibration,
            placement=placement,
        )
        found.append(path)
    return {
        name: Path(
            alphas, jax.tree.map(lambda *x: np.concatenate(x).astype(np.float64), *(f[name].metrics for f in found))
        )
        for name in splits
    }


def groups(pairs: np.ndarray, models: int) -> list[np.ndarray]:
    """Cuts the pairs, in their order, into groups that have at most `models` (at least 2) models each."""
    result: list[list[np.ndarray]] = [[]]
    held: set[int] = set()
    for pair in pairs:
        if len(held | set(pair.tolist())) > models:
            result.append([])
            held = set()
        held |= set(pair.tolist())
        result[-1].append(pair)
    return [np.array(group) for group in result]
