"""The summary of the merging experiment pairs by seed, values kept in a file are not computed again, moved anchors are counted."""

import jax.numpy as jnp
import numpy as np
import pytest

from fusion import merging_methods
from fusion.merging_methods import BASE, Kept

ROWS = [
    {"method": BASE, "ratio": None, "seed": 0, "strength": None, "accuracy": [0.5, 0.7]},
    {"method": BASE, "ratio": None, "seed": 1, "strength": None, "accuracy": [0.5, 0.9]},
    {"method": "ties", "ratio": 0.0, "seed": 0, "strength": 0.5, "accuracy": [0.6, 0.8]},
    {"method": "ties", "ratio": 0.0, "seed": 1, "strength": 0.5, "accuracy": [0.2, 0.2]},
    {"method": "ties", "ratio": 0.4, "seed": 0, "strength": 1.0, "accuracy": [0.7, 0.9]},
    {"method": "ties", "ratio": 0.4, "seed": 1, "strength": 1.0, "accuracy": [0.3, 0.3]},
]  # fmt: skip


def test_gains_are_paired_by_seed():
    base, plain, anchored = merging_methods.summary(ROWS, (0.0, 0.4))
    assert base["mean"] == pytest.approx([0.65, np.std([0.6, 0.7], ddof=1)]) and "gain" not in base
    assert plain["mean"][0] == pytest.approx(0.45) and plain["mean"][1] > 0.3 and plain["strength"] == 0.5
    assert anchored["gain"] == pytest.approx([0.1, 0.0], abs=1e-12)  # each seed gains a tenth, far apart as they are
    assert [task[0] for task in anchored["tasks"]] == pytest.approx([0.5, 0.6])


def test_what_is_kept_is_not_computed_again(tmp_path):
    file, computed = tmp_path / "scores.json", []

    def compute():
        computed.append(1)
        return (0.5, np.float32(0.25))

    assert Kept(file)("0 ties", compute) == [0.5, 0.25]
    resumed = Kept(file)
    assert resumed("0 ties", compute) == [0.5, 0.25] and len(computed) == 1
    resumed("held-out ties", lambda: {0.5: 1.0})
    assert Kept(file).values("held-out ") == {"ties": {"0.5": 1.0}}


def test_anchors_that_moved_are_counted_bit_by_bit():
    mask = {"w": jnp.array([True, False, False, False])}
    base = {"w": jnp.array([1.0, 1.0, 0.0, 2.0])}
    merged = {"w": jnp.array([5.0, 1.0, -0.0, 2.0 + 1e-6])}  # a negative zero is another value of bits
    assert merging_methods.anchors_moved(mask, base, base) == 0
    assert merging_methods.anchors_moved(mask, base, merged) == 2


def test_task_vectors_are_described():
    base, models = {"w": jnp.zeros(2)}, [{"w": jnp.array([3.0, 0.0])}, {"w": jnp.array([3.0, 4.0])}]
    assert merging_methods.geometry(base, models) == pytest.approx({"norm": 4.0, "cosine": 0.6})
