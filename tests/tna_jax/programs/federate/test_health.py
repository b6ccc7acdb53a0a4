"""A federation that learns nothing is stopped and said so, saved; divergence is more than NaN."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.tna_jax.programs.federate.test_federate import TINY
from tna_jax import objectives
from tna_jax.federated.faults import Turnout
from tna_jax.federated.simulation import Round
from tna_jax.programs.cli.main import main
from tna_jax.programs.federate import client_marks, health, report, rounds
from tna_jax.programs.federate import progress as progress_lib
from tna_jax.programs.federate import run as federate
from tna_jax.programs.federate.options import FederateOptions
from tna_jax.programs.federate.setup import resolved

NAN = float("nan")


@pytest.mark.parametrize(
    ("accuracy", "loss", "expected"),
    [
        ([0.5, 0.6, 0.7], [1.0, 0.9, 0.8], None),
        ([0.5, 0.1, 0.1], [1.0, NAN, NAN], 2),
        ([0.1, 0.1, 0.1], [NAN, NAN, NAN], 1),
        ([0.5, 0.1, 0.6], [1.0, NAN, 0.8], None),  # it recovered
        ([0.6, 0.1, 0.1], [1.0, 4.0, 5.0], 2),  # finite, but the loss grew and accuracy was lost
        ([0.6, 0.55, 0.6], [0.5, 1.8, 2.0], None),  # over-confident, not diverged
        ([0.1, 0.1, 0.1], [2.3, 24.0, 1e9], 2),
        ([0.8, 0.1, 0.1, 0.1, 0.1, 0.1], [0.9, 2.303, 2.303, 2.303, 2.303, 2.303], 2),  # its units have died
        ([0.8, 0.7, 0.1, 0.1, 0.1, 0.1], [0.9, 0.9, 2.303, 2.303, 2.303, 2.303], None),  # not for long yet
        (
            [0.8, 0.1, 0.1, 0.5, 0.1, 0.1],
            [0.9, 2.303, 2.303, 1.1, 2.303, 2.303],
            None,
        ),  # clients that differ: it comes back
        ([0.1, 0.1, 0.1, 0.1, 0.1, 0.1], [2.303, 2.303, 2.303, 2.303, 2.303, 2.303], None),  # see below
    ],
)
def test_divergence_is_judged_by_loss_and_accuracy(accuracy, loss, expected):
    assert health.diverged_in_round(np.array(accuracy), np.array(loss), np.log(10)) == expected


def test_a_model_that_was_never_better_than_guessing_has_learned_nothing():
    never, dead, guess = health.never_better_than_guessing, np.full(5, 2.303), np.log(10)
    assert never(np.full(5, 0.12), dead, guess, chance=0.12)
    assert not never(np.full(4, 0.12), dead[:4], guess, chance=0.12)  # too early to say
    assert not never(np.full(5, 0.13), dead, guess, chance=0.12)
    assert not never(np.full(5, 0.12), np.array([2.303, 2.2, 2.3, 2.3, 2.3]), guess, chance=0.12)
    assert never(np.full(5, 0.12), np.full(5, NAN), guess, chance=0.12)
    assert not never(np.full(5, NAN), dead, NAN, chance=NAN)  # another objective


def test_a_round_in_which_nobody_was_drawn_is_neither_a_stop_nor_a_round_without_replies():
    """With privacy clients are drawn each by itself."""
    nobody, some = (
        client_marks.marks(Round(Turnout(drawn, [], [], np.ones(2)), {}, len(drawn), None, 0.6, True), 2)
        for drawn in ([], [1])
    )
    columns = {name: np.full((1, 8), 0.5) for name in progress_lib.HISTORY} | {"taken": np.array([[1, *[0] * 6, 1]])}
    progress = SimpleNamespace(history={**columns, "clients": np.array([[some, *[nobody] * 6, some]])}, finals={})
    prepared = SimpleNamespace(
        federation=SimpleNamespace(objective=objectives.CLASSIFICATION), guessing=np.log(10), chance=0.1, classes=10
    )
    found = federate.summary({}, progress, 0, prepared)
    assert found["stopped_after_round"] is None and not found["stalled"] and found["turnout"]["refused"] == {}
    assert rounds.stopped(progress.history, 0, 7, prepared, None) == ""


def test_a_loss_whose_guess_is_unknown_is_compared_with_that_of_the_first_round():
    nothing = np.full(6, NAN)
    assert health.diverged_in_round(nothing, np.array([3.0, 2.0, 29.0, 2.0, 31.0, 1e9]), NAN) == 5
    assert (
        health.diverged_in_round(nothing, np.array([-3.0, -2.0, 9.0, 2.0, 31.0, 1e9]), NAN) is None
    )  # a likelihood, of any sign
    assert "had diverged" in health.hopeless(nothing, np.array([3.0, *[1e4] * 5]), np.ones(6), NAN)


def test_a_regression_that_exploded_in_the_first_round_and_stays_there_has_diverged():
    targets = np.random.default_rng(0).normal(3, 2, (400, 2))
    guess = health.loss_of_guessing(objectives.regression(), 2, targets)
    assert guess == pytest.approx(targets.var(axis=0).mean())
    assert health.loss_of_guessing(objectives.regression("absolute"), 2, targets) < guess
    assert health.diverged_in_round(np.full(3, NAN), np.array([9e8, 8e8, 8e8]), guess) == 1
    assert health.diverged_in_round(np.full(3, NAN), np.array([39.0, 3.0, 2.0]), guess) is None


@pytest.mark.parametrize(
    ("objective", "count", "guess"),
    [("classification", 10, np.log(10)), ("next-token", 65, np.log(65)), ("multi-label", 7, np.log(2))],
)
def test_the_loss_of_guessing_is_that_of_equal_odds(objective, count, guess):
    assert health.loss_of_guessing(objectives.BY_NAME[objective](), count, np.zeros(3)) == pytest.approx(guess)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, ""),
        ({"stopped_after_round": 5}, "stopped after round 5"),
        ({"stopped_after_round": 5, "stalled": True}, ""),
        ({"taken": [0, 0]}, "no reply was accepted"),  # fewer rounds than patience
        ({"diverged_in_round": 2}, "diverged: from round 2 on"),
        ({"no_better_than_guessing": True}, "in no round its model was better than guessing"),
    ],
)
def test_whoever_learned_nothing_ends_with_1(changed, words, capsys):
    run = {
        "anchors": "pfn",
        "seed": 3,
        "stopped_after_round": None,
        "stalled": False,
        "taken": [4, 0],
        "diverged_in_round": None,
    }
    assert federate.exit_code({"runs": [run, {**run, **changed}]}) == bool(words)
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "words"),
    [("dp_noise", "smaller --dp-noise"), ("server_learning_rate", "smaller --server-learning-rate or --learning-rate")],
)
def test_the_advice_is_of_what_was_asked_for(option, words, capsys):
    run = {"anchors": "pfn", "seed": 3, "stopped_after_round": None, "taken": [4, 0], "diverged_in_round": 2}
    assert federate.exit_code({"runs": [run], "config": {option: 1.0}}) == 1
    assert words in capsys.readouterr().err


def test_the_share_that_trains_is_of_rounds_in_which_any_did():
    assert report._live([{"live": [0.6, 0.6, 0.0, 0.0], "taken": [3, 1, 0, 0]}]) == pytest.approx(0.6)  # it was stopped
    assert report._live([{"live": [0.0], "taken": [0]}]) == 0


def test_five_rounds_without_anything_learned_stop_a_federation():
    good, bad = np.full(6, 0.5), np.full(6, NAN)
    some, none = np.full(6, 3), np.zeros(6)
    assert health.hopeless(good, good, some, np.log(10)) == ""
    assert "no reply was accepted" in health.hopeless(good, good, none, np.log(10))
    assert "not finite" in health.hopeless(good, bad, some, np.log(10))
    assert "had diverged" in health.hopeless(np.full(6, 0.1), np.full(6, 50.0), some, np.log(10))
    assert health.hopeless(good[:4], bad[:4], none[:4], np.log(10)) == ""


def test_a_diverged_run_is_stopped_saved_and_ends_with_1(capsys):
    words = [*TINY, "--rounds", "8", "--learning-rate", "1e30", "--out", "out", "--anchors", "none"]
    assert main(words) == 1
    said = capsys.readouterr()
    assert "stopped before round 6 of 8" in said.err and "learned nothing any more" in said.err
    run = json.loads(Path("out/federate.json").read_text())["runs"][0]
    assert (
        run["stopped_after_round"] == 5
        and len(run["accuracy"]) == 8
        and run["accuracy"][4:] == [run["accuracy"][4]] * 4
    )
    assert len(Path("out/metrics.jsonl").read_text().splitlines()) == 5 and Path("out/federate.png").exists()


@pytest.mark.parametrize(
    ("algorithm", "momentum"), [("fedavg", 0.9), ("feddyn", 0.0), ("scaffold", 0.0), ("moon", 0.9)]
)
def test_momentum_is_each_algorithms_own(algorithm, momentum):
    assert resolved(FederateOptions(algorithm=algorithm)).momentum == momentum
    assert resolved(FederateOptions(algorithm=algorithm, momentum=0.5)).momentum == 0.5
