"""Models, splits and calibration inputs as users give them: checked, stacked, cut into batches."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PyTree, Shaped

from tna_jax import averaging, networks, objectives, repair, streaming, trees
from tna_jax.masks import Params
from tna_jax.networks import Network, State, Stateful
from tna_jax.streaming import Stream

Split = tuple[PyTree[Shaped[Array | np.ndarray, "..."]], PyTree[Shaped[Array | np.ndarray, "..."]]]
"""Inputs (N, ...) and labels (N,), or other targets (N, ...), in every leaf."""


Data = Mapping[str, Split | Stream]
"""Inputs and targets, or a stream of them, by the name of the split; each split has an N of its own."""


def check_splits(data: Any) -> None:
    """Raises TypeError where the splits are not given by name, ValueError where there are none."""
    if not isinstance(data, Mapping):
        raise TypeError(
            f"data must be a mapping of names to (inputs, targets), {{'test': (inputs, labels)}}; got {type(data).__name__}"
        )
    if not data:
        raise ValueError("data holds no split: give one, {'test': (inputs, labels)}")
    for split, pair in data.items():
        if isinstance(pair, Stream):
            continue
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise TypeError(f"split {split!r} must be (inputs, targets), got {type(pair).__name__}")
        objectives.refuse_lists(pair[0], pair[1], f"split {split!r} has " if split else "")


def stacked_models(network: Network, members: Params, state: State, data: Data) -> tuple[Params, State]:
    """Models and their states (M, ...): a list or tuple of models is stacked, unless the network runs on it as it is."""
    models = averaging.stacked(members)
    if models is members:
        return members, state
    shapes = jax.tree.map(lambda x: trees.shape_of(x, np.shape(x)[1:]), (members, state))
    inputs = jax.tree.map(lambda x: trees.shape_of(x, (1, *np.shape(x)[1:])), first_inputs(data))
    try:
        jax.eval_shape(functools.partial(networks.evaluate, network), *shapes, inputs)
    except Exception:  # whatever a network says of parameters that are not its own
        return models, averaging.stacked(state) if jax.tree.leaves(state) else state
    return members, state


def check_calibration(calibration: Any, network: Network, state: State) -> Any:
    """The calibration inputs that a network needs: `None` without running statistics (a state of integers or keys has none); else
    ValueError if there are none."""
    if not isinstance(network, Stateful) or not any(map(repair.is_statistic, jax.tree.leaves(state))):
        return None
    if calibration is None or not len(jax.tree.leaves(calibration)[0]):
        raise ValueError(
            "a network with running statistics needs `calibration`: training inputs to estimate them on again"
        )
    return calibration


def first_inputs(data: Data) -> Any:
    """Inputs (N, ...) of the first split; of a stream those of its first example."""
    split = next(iter(data.values()))
    return (streaming.example(split) if isinstance(split, Stream) else split)[0]


def count_examples(arrays: Any) -> int:
    """N of (N, ...)."""
    return int(jax.tree.leaves(arrays)[0].shape[0])


def part_of(arrays: Any, part: slice) -> Any:
    """Returns the examples `part` of arrays (N, ...)."""
    return jax.tree.map(lambda x: x[part], arrays)


def slices(examples: int, size: int) -> list[slice]:
    """Returns the batches of `size` that N examples are cut into; the last may be smaller."""
    return [slice(start, min(start + size, examples)) for start in range(0, examples, size)]
