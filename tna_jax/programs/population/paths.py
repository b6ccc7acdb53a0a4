"""Walks the paths between models of a run: which pairs, which points, and groups of pairs whose models fit the memory."""

import re
from typing import Any

import jax
import numpy as np

from tna_jax import alphas as path_alphas
from tna_jax import connectivity
from tna_jax.connectivity import Path
from tna_jax.io.errors import UsageError
from tna_jax.masks import Params
from tna_jax.networks import Network, State
from tna_jax.objectives import CLASSIFICATION, Objective
from tna_jax.placement import Placement
from tna_jax.programs.data import Dataset
from tna_jax.programs.system import memory
from tna_jax.programs.training.splits import splits, training_inputs


def path_grid(alphas: tuple[float, ...]) -> np.ndarray:
    """Returns (A,) the points of a path from the option `--alphas`: their number, or the points themselves."""
    return path_alphas.grid(int(alphas[0])) if len(alphas) == 1 else path_alphas.check_alphas(alphas)


def choose_pairs(names: tuple[str, ...], models: int) -> np.ndarray:
    """Returns (P, 2) the pairs of models that the option `--pairs` names, all where it names none.

    Raises:
      UsageError: what is not a pair of `models` models, or is there twice.
    """
    if not names:
        return connectivity.pairs(models)
    matches = [re.fullmatch(r"(\d+)-(\d+)", name) for name in names]
    wrong = [
        name
        for name, match in zip(names, matches, strict=True)
        if match is None or max(int(match[1]), int(match[2])) >= models or match[1] == match[2]
    ]
    if wrong:
        raise UsageError(f"--pairs {' '.join(wrong)}: write I-J with two different numbers from 0 to {models - 1}")
    pairs = [(int(match[1]), int(match[2])) for match in matches if match]
    same: dict[frozenset[int], list[str]] = {}
    for name, pair in zip(names, pairs, strict=True):
        same.setdefault(frozenset(pair), []).append(name)
    twice = [" = ".join(again) for again in same.values() if len(again) > 1]
    if twice:
        raise UsageError(f"--pairs: the same pair more than once: {', '.join(twice)}")
    return np.array(pairs, np.int32)


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
    objective: Objective = CLASSIFICATION,
) -> dict[str, Path]:
    """`evaluate_paths` on the training and the test split, metrics float64 on the host.

    Args:
      params, state: (M, ...) on the host.
      pairs: (P, 2), distinct.
      calibration_examples: the first training examples, on which BatchNorm's statistics are estimated again.
      objective: what is measured.
      memory_limit: GB the models may take; default: a third of what is free.
    """
    by_name = splits(data)
    inputs = training_inputs(data, calibration_examples)
    paths = []
    for group in groups(pairs, max(2, models_that_fit(params, state, memory_limit))):
        used, index = np.unique(group, return_inverse=True)
        chosen = jax.tree.map(lambda x, used=used: x[used], (params, state))
        path = connectivity.evaluate_paths(
            network,
            chosen[0],
            index.reshape(-1, 2),
            alphas,
            by_name,
            state=chosen[1],
            calibration=inputs,
            placement=placement,
            objective=objective,
        )
        paths.append(path)
    return {
        name: Path(
            alphas,
            jax.tree.map(lambda *x: np.concatenate(x).astype(np.float64), *(path[name].metrics for path in paths)),
        )
        for name in by_name
    }


def models_that_fit(params: Params, state: State, memory_limit: float | None) -> int:
    """Returns how many of the models (M, ...) have room at once: in `memory_limit` GB, else in a third of what is free."""
    free = memory.available(memory_limit) if memory_limit is not None else memory.available() // 3
    model_bytes = memory.size((params, state)) // len(jax.tree.leaves(params)[0])
    return int(free // max(model_bytes, 1))


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


def path_row(pair: np.ndarray | tuple[int, int], kind: str, split: str, path: Path, names: list[str]) -> dict[str, Any]:
    """Returns what a results file says of one path: its points, ends, midpoint and barrier by each measure.

    Args:
      pair: the numbers of the models at its ends.
      kind: how these were matched, and whether what is between was repaired.
      split: of the data.
      path: metrics (A,).
      names: of the measures; accuracies are shares, losses nats or the objective's.
    """
    middle = int(np.argmax(path.alphas == 0.5))
    row: dict[str, Any] = {"pair": pair, "kind": kind, "split": split, "examples": int(path.metrics.count[0])}
    for name in names:
        values = path.value(name)
        row |= {
            f"{name}_path": values,
            f"{name}_ends": [values[0], values[-1]],
            f"{name}_midpoint": values[middle],
            f"{name}_barrier": connectivity.barrier(path, "linear", name),
        }
    return row


def path_of(paths: Path, i: int) -> Path:
    """Returns the `i`-th of several paths, whose metrics are (P, A)."""
    return Path(paths.alphas, jax.tree.map(lambda x: x[i], paths.metrics))
