"""What the experiments on MiniLM and DINOv2-small say of their rows: means, paired differences, barriers."""

import numpy as np
import pytest

from fusion import cold_minilm, soup_dinov2


def test_cold_fusion_is_summed_up_by_kind_paired_by_seed():
    rows = []
    for seed, start in enumerate((0.5, 0.7)):
        scored = {"probe": {"mr": start, "rte": 0.5}, "tuned": {"rte": start}}
        rows.append({"length": "usual", "seed": seed, "kind": "start", "iteration": 0, **scored})
        for kind, gain in ((cold_minilm.NONE, 0.1), (cold_minilm.FRESH_40, 0.05)):
            trained = {"barriers": [-0.1, 0.3], "moved": 0.2, "anchors_moved": 0}
            rows.append({"length": "usual", "seed": seed, "kind": kind, "iteration": 1, **trained})
            tuned = {"probe": {"mr": start + gain, "rte": 0.5}, "tuned": {"rte": start + gain}}
            rows.append({"length": "usual", "seed": seed, "kind": kind, "iteration": 2, **trained, **tuned})
    lines = {line["kind"]: line for line in cold_minilm.summary(rows, ("rte",))}
    assert lines[cold_minilm.NONE]["gain"][cold_minilm.TUNED] == pytest.approx([0.1, 0.0])  # no spread: paired
    assert lines[cold_minilm.FRESH_40]["over_none"][cold_minilm.SEEN] == pytest.approx([-0.05, 0.0])
    assert lines[cold_minilm.FRESH_40]["barrier"] == pytest.approx([0.1, 0.0])
    assert lines[cold_minilm.FRESH_40]["largest_barrier"] == 0.3
    assert "barrier" not in lines["start"]
    table = cold_minilm.lines({"summary": list(lines.values())})
    assert [len(row) for row in table] == [len(cold_minilm.HEADS)] * 3


def test_soups_are_summed_up_by_regime_and_ratio_paired_by_seed():
    settings = {"regimes": (soup_dinov2.USUAL,), "ratios": (0.0, 0.4)}
    rows = [{"seed": seed, "regime": None, "ratio": None, "accuracy": {}} for seed in (0, 1)]
    for seed in (0, 1):
        for ratio in settings["ratios"]:
            both = {"test": 0.5 + 0.1 * seed + 0.2 * ratio, "shifted": 0.4}
            accuracy = dict.fromkeys(soup_dinov2.FUSIONS, both)
            rows.append({"seed": seed, "regime": soup_dinov2.USUAL, "ratio": ratio, "accuracy": accuracy, "anchors_moved": 0,
                         "barriers": [1.0 - ratio], "drops": [0.1], "moved": [0.3]})  # fmt: skip
    plain, anchored = soup_dinov2.summary(rows, settings)
    assert anchored["test, uniform over no anchors"] == pytest.approx([0.08, 0.0])
    assert anchored["barrier less no anchors"] == pytest.approx([-0.4, 0.0])
    assert plain["barrier"] == pytest.approx([1.0, 0.0]) and plain["n"] == 2
    assert [len(row) for row in soup_dinov2.lines({"summary": [plain, anchored]})] == [len(soup_dinov2.HEADS)] * 2


def test_the_loss_is_the_cross_entropy():
    split = soup_dinov2.Split.__new__(soup_dinov2.Split)
    split.labels = np.array([0, 1])
    scores = np.log(np.array([[0.5, 0.5], [0.25, 0.75]]))
    assert soup_dinov2.loss(scores + 3, split) == pytest.approx(-(np.log(0.5) + np.log(0.75)) / 2)
    assert soup_dinov2.right(scores, split) == 1.0
