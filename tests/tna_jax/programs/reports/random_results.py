"""Results of searches that take long, of numbers drawn at random, as their programs put them together."""

import json
from pathlib import Path

import numpy as np

from tna_jax.averaging import GreedySoup
from tna_jax.connectivity import Path as Path_
from tna_jax.io.json_files import write_json
from tna_jax.metrics import Metrics
from tna_jax.programs.population import fusion_methods
from tna_jax.programs.population.paths import path_row


def write_searches(run: Path) -> None:
    """fuse.json and rebasin.json beside the barrier.json of a run."""
    base = {
        key: json.loads((run / "barrier.json").read_text())[key] for key in ("provenance", "run", "network", "models")
    }
    draw, pairs, splits = np.random.default_rng(0), [(0, 1), (0, 2), (1, 2)], ("train", "test")

    def metrics(*shape: int) -> Metrics:
        return Metrics(draw.uniform(50, 99, shape), draw.integers(50, 99, shape).astype(float), np.full(shape, 100))

    members, one = {split: metrics(3) for split in splits}, {split: metrics() for split in splits}
    found = fusion_methods.Fusions(members, 1, one, one, GreedySoup(np.array([0, 1, 1]), 0.9, []), one, {2: one})
    barriers = [
        {"pair": pair, "split": split, "accuracy_barrier": draw.uniform()} for pair in pairs for split in splits
    ]
    options = {"matching": "weight", "repair": True}
    fused = {**base, "rows": fusion_methods.rows(found), "by_count": fusion_methods.rows_by_count(found), "pairs": barriers, "options": options,
             "held_out": {"examples": 100, "unseen_in_training": False}}  # fmt: skip
    alphas = np.array([0, 0.5, 1])
    rows = [path_row(np.array(pair), kind, split, Path_(alphas, metrics(3)), ["accuracy", "loss"])
            for pair in pairs for kind in ("unmatched", "weight matching", "weight matching + REPAIR") for split in splits]  # fmt: skip
    write_json(run / "fuse.json", fused)
    write_json(run / "rebasin.json", {**base, "alphas": alphas, "rows": rows})
