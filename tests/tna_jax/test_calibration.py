"""One temperature is found again where it is known, and is the least of the losses."""

import numpy as np
import pytest

from tna_jax import calibration

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("known", [0.2, 1.0, 7.0])
def test_a_known_temperature_is_recovered(known):
    logits = RNG.normal(size=(20_000, 5)) * 2
    weights = np.exp(logits - logits.max(1, keepdims=True))
    labels = (RNG.random((len(logits), 1)) > np.cumsum(weights / weights.sum(1, keepdims=True), 1)).sum(1)
    fitted = calibration.fit_temperature(logits * known, labels)
    assert abs(fitted / known - 1) < 0.05
    losses = [calibration.cross_entropy(logits * known, labels, fitted * factor) for factor in (0.95, 1, 1.05)]
    assert losses[1] == min(losses) and losses[1] < max(losses)


def test_an_average_that_is_always_right_is_made_as_sure_as_is_allowed():
    assert calibration.fit_temperature(np.eye(3), np.arange(3), 0.25, 4) == pytest.approx(0.25)
    assert calibration.fit_temperature(-np.eye(3), np.arange(3), 0.25, 4) == pytest.approx(4)


@pytest.mark.parametrize(
    ("logits", "labels", "interval"),
    [((0, 3), 0, (1, 2)), ((2, 3), 3, (1, 2)), ((2,), 2, (1, 2)), ((2, 3), 2, (2, 1)), ((2, 3), 2, (0, 1))],
)
def test_what_cannot_be_fitted_is_refused(logits, labels, interval):
    with pytest.raises(ValueError, match="expected logits|an interval above 0"):
        calibration.fit_temperature(np.zeros(logits), np.zeros(labels, int), *interval)


def test_a_class_that_cannot_occur_changes_nothing():
    logits, labels = RNG.normal(size=(200, 3)), RNG.integers(0, 3, 200)
    wider = np.concatenate([logits, np.full((200, 1), -np.inf)], 1)
    assert calibration.fit_temperature(wider, labels) == calibration.fit_temperature(logits, labels)


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [([[0.0, 1.0]], [-1], "labels below 0"), ([[0.0, 1.0]], [2], "there are 2 classes"), ([[0.0, np.nan]], [0], "some are NaN"),
     ([[0.0, -np.inf]], [1], "1 labels are classes whose logit is minus infinity")],
)  # fmt: skip
def test_labels_and_logits_that_would_give_a_wrong_temperature_are_refused(logits, labels, words):
    with pytest.raises(ValueError, match=words):
        calibration.fit_temperature(np.array(logits), np.array(labels))


@pytest.mark.parametrize(
    ("labels", "words"),
    [([0], "labels \\(N,\\)"), ([0, -1], "below 0"), ([0, 2], "there are 2 classes"), ([0.0, 1.0], "integers")],
)
def test_a_cross_entropy_is_of_labels_that_are_classes(labels, words):
    """JAX would take one label for all examples, the last class for -1, and cut fractions."""
    with pytest.raises(ValueError, match=words):
        calibration.cross_entropy(np.zeros((2, 2)), np.array(labels))
