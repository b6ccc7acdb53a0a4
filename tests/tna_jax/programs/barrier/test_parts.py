"""Where a barrier comes from: of each layer alone, and after each epoch."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.tna_jax.programs.commands import fails
from tna_jax import metrics
from tna_jax.barriers import Path
from tna_jax.programs.barrier import parts, report
from tna_jax.programs.reports.figures import Curves, Dots
from tna_jax.programs.reports.measures import CLASSIFICATION


def parabola(members, state, pairs, alphas):
    """As if the loss were the square of the first layer's weight and ten times that of the second's."""
    first, second = (np.asarray(members[name]["kernel"])[:, 0] for name in ("Dense_0", "Dense_1"))
    i, j = pairs.T
    at = [(1 - a) * layer[i] + a * layer[j] for layer in (first, second) for a in alphas]
    loss = (np.stack(at[: len(alphas)], 1)) ** 2 + 10 * np.stack(at[len(alphas) :], 1) ** 2
    count = np.ones_like(loss)
    return {"test": Path(np.asarray(alphas), metrics.Metrics(loss, count, count))}


def test_a_layer_in_which_two_models_agree_has_no_barrier():
    params = {"Dense_0": {"kernel": np.array([[1.0], [1.0]])}, "Dense_1": {"kernel": np.array([[1.0], [-3.0]])}}
    rows = parts.by_layer(params, (), np.array([[0, 1]]), parabola, ["loss"])
    assert [row["layer"] for row in rows] == ["Dense_0", "Dense_1"]
    assert rows[0]["loss_barrier"] == pytest.approx(0)
    assert rows[1]["loss_barrier"] == pytest.approx(
        11 - (11 + 91) / 2
    )  # both at -1 in the middle, the ends at 1 and -3
    assert rows[0]["pair"].tolist() == [0, 1]


def test_layers_are_what_stands_above_the_arrays():
    tree = {
        "block": {"conv": {"kernel": np.ones(1), "bias": np.ones(1)}, "norm": {"scale": np.ones(1)}},
        "w": np.ones(1),
    }
    assert parts.layers_of(tree) == ["block/conv", "block/norm", "w"]


def test_one_checkpoint_alone_has_no_epochs(ensemble, capsys):
    assert "--checkpoint-every 1 --checkpoints-kept 1000" in fails(capsys, "barrier", str(ensemble), "--by", "epoch")


def test_models_that_trained_in_waves_are_at_no_epoch_together(tmp_path):
    run = SimpleNamespace(plan=lambda: ([{}] * 4, 2), folder="run", checkpoints=tmp_path)
    with pytest.raises(parts.UsageError, match="in waves"):
        parts.kept_epochs(run)


def test_the_figures_show_the_mean_over_pairs_beside_chance():
    layers = [{"pair": [0, j], "split": "test", "layer": layer, "accuracy_barrier": value, "loss_barrier": value}
              for layer, values in (("a", (0.1, 0.3)), ("b", (0.0, 0.0))) for j, value in enumerate(values, 1)]  # fmt: skip
    epochs = [{"epoch": e, "pair": [0, 1], "split": "test", "examples": 100, "accuracy_ends": [0.9, 0.9], "loss_ends": [1.0, 1.0],
               "accuracy_barrier": 0.01 * e, "loss_barrier": 0.0} for e in (1, 2)]  # fmt: skip
    paths = [{"accuracy_path": [0.9, 0.9], "examples": 100}]
    dots, loss = report._layers(layers, CLASSIFICATION, "test", paths)
    assert isinstance(dots, Dots) and [dot.value for dot in dots.dots] == pytest.approx([0.2, 0.0])
    assert dots.chance == pytest.approx((-0.06, 0.06)) and loss.chance is None
    line, _ = report._epochs(epochs, CLASSIFICATION, "test")
    assert isinstance(line, Curves) and line.curves[0].y == pytest.approx([0.01, 0.02])
    assert line.chance.std == pytest.approx([0.06, 0.06]) and line.least == pytest.approx(0.24)
    assert report._layers([], CLASSIFICATION, "test", paths) == report._epochs([], CLASSIFICATION, "test") == []
