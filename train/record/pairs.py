"""What is measured of a pair: barriers, ends, distances, how much anchors weigh, matching, and one temperature."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import calibration, connectivity, interpolation, matching
from tna_jax.connectivity import barrier
from tna_jax.ensemble import Members, member
from tna_jax.masks import beta, trained_cosine, trained_distance
from train.record.members import Network, Pair
from train.record.settings import Case

SPLIT = 2_000
"""Training images on which paths are measured, at most."""
KERNELS = "kernel$"


def measure(
    case: Case, network: Network, before: Members, after: Members, pairs: Sequence[Pair], complete: bool
) -> list[dict[str, Any]]:
    """Measures every pair.

    Args:
      case, network: what was trained.
      before, after: the members as their training began, and as they are now.
      pairs: which of them.
      complete: all columns; else the test set's midpoint, beta and cosines only, which take seconds.

    Returns:
      A row for each pair: `row`, then the columns.
    """
    splits = {"test": network.test}
    if complete:
        splits["train"] = tuple(x[:SPLIT] for x in network.train)  # type: ignore[assignment]
    indices = np.array([pair.members for pair in pairs], np.int32)
    alphas = connectivity.grid(5 if complete else 3)
    paths = connectivity.evaluate_paths(network.trainer.network, after.params, indices, alphas, splits)
    rows = []
    for i, pair in enumerate(pairs):
        start, end = ([member(m.params, j) for j in pair.members] for m in (before, after))
        mask = member(after.mask, pair.members[0])
        row: dict[str, Any] = {"row": pair.row}
        for split, path in paths.items():
            row[split] = {
                "loss": np.asarray(path.loss)[i],
                "accuracy": np.asarray(path.accuracy)[i],
                **{
                    f"{metric}_barrier{'' if kind == 'midpoint' else '_worst'}": float(barrier(path, kind, metric)[i])
                    for metric in ("loss", "accuracy")
                    for kind in ("midpoint", "linear")
                },
            }
        row |= likeness(end, mask)
        if complete:
            row["start"] = likeness(start, mask)
            row |= _matched(network, end)
            row |= _calibrated(network, end)
        rows.append(row)
    return rows


def likeness(pair: Sequence[Any], mask: Any) -> dict[str, Any]:
    """Distance and cosine of two networks, of all of their kernels and of the trained parts, and the first one's beta by layer."""
    a, b = pair
    ratios = beta(a, mask)
    return {
        "beta": ratios,
        "beta_mean": float(np.mean(list(ratios.values()))) if ratios else None,
        "cosine": trained_cosine(a, b, where=KERNELS),
        "distance": trained_distance(a, b, where=KERNELS),
        "trained_cosine": trained_cosine(a, b, mask, KERNELS),
        "trained_distance": trained_distance(a, b, mask, KERNELS),
    }


def _matched(network: Network, pair: Sequence[Any]) -> dict[str, Any]:
    """The midpoint after weight matching, on the test set, and the units that it moves."""
    inputs = network.test[0][:8]
    a, b = jax.tree.map(jnp.asarray, pair)
    spec = matching.permutation_spec(network.trainer.network, a, inputs)
    try:
        match = matching.weight_matching(spec, a, b)
    except ValueError as error:  # a network that diverged
        return {"matching": {"failed": str(error)[:120]}}
    path = connectivity.evaluate_path(network.trainer.network, a, match.params, network.test, alphas=3)
    return {
        "matching": {
            "moved": match.moved,
            "units": sum(spec.groups.values()),
            "loss_midpoint": float(path.loss[1]),
            "accuracy_midpoint": float(path.accuracy[1]),
            "loss_barrier": float(barrier(path, "midpoint", "loss")),
        }
    }


def _calibrated(network: Network, pair: Sequence[Any]) -> dict[str, Any]:
    """The midpoint's and the ends' loss on the test set after one temperature each, fitted on held-out training images."""
    a, b = pair
    fitted = {}
    for name, model in (("midpoint", interpolation.line(a, b, 0.5)), ("first", a), ("second", b)):
        held_out, test = (logits(network, model, part[0]) for part in (network.held_out, network.test))
        temperature = calibration.fit_temperature(held_out, network.held_out[1])
        fitted[name] = {
            "temperature": temperature,
            "loss": calibration.cross_entropy(test, network.test[1], temperature),
        }
    ends = (fitted["first"]["loss"] + fitted["second"]["loss"]) / 2
    return {"calibrated": {**fitted, "loss_barrier": fitted["midpoint"]["loss"] - ends}}


def logits(network: Network, model: Any, inputs: np.ndarray, batch: int = 1000) -> np.ndarray:
    """Computes the logits (N, C) of a network without state."""
    apply: Any = jax.jit(network.trainer.network)  # type: ignore[arg-type]
    model = jax.tree.map(jnp.asarray, model)
    return np.concatenate([np.asarray(apply(model, inputs[i : i + batch])) for i in range(0, len(inputs), batch)])
