"""Runs that an earlier version wrote (tests/data/old_runs): today's code resumes them to the same result, and opens them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tna_jax import io
from tna_jax.io import restore
from tna_jax.programs.cli.main import main

OLD = Path(__file__).resolve().parents[3] / "data" / "old_runs"

LOSS = 1e-4
"""Ten steps of SGD in float32 (6e-8) with sums of up to 64 terms, which a processor orders as it likes, and momentum 0.9, which
sums ten of their errors: 10 * 10 * 64**0.5 * 6e-8 = 5e-5, times a slope of at most 2."""
ADDED = {"examples"}
FLIPPED = 2
"""Examples so near a decision boundary that such an error moves them across."""


def numbers(value: Any, path: str = "") -> dict[str, Any]:
    """The leaves of a JSON value by path."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {name: leaf for key, part in items for name, leaf in numbers(part, f"{path}/{key}").items()}
    return {path: value}


def assert_same_result(result: dict[str, Any], before: dict[str, Any], loss: float, examples: dict[str, int]) -> None:
    """Equal keys, texts and counts; equal numbers within the given tolerances. Keys of `ADDED` came later."""
    assert sorted(result) == sorted(before)
    ours, theirs = numbers(result), numbers(before)
    added = ours.keys() - theirs.keys()
    assert theirs.keys() <= ours.keys() and {name.split("/")[-1] for name in added} <= ADDED
    for name, value in theirs.items():
        if "relative" in name:  # quotients of numbers that are compared
            continue
        if isinstance(value, float) and "loss" in name:
            assert ours[name] == pytest.approx(value, abs=loss), name
        elif isinstance(value, float) and "accuracy" in name:
            row = before["rows"][int(name.split("/")[2])]
            assert ours[name] == pytest.approx(value, abs=2 * FLIPPED / examples[row["split"]] + 1e-9), name
        else:
            assert ours[name] == value, name


def results(file: Path, *parts: str) -> dict[str, Any]:
    read = json.loads(file.read_text())
    return {key: value for key, value in read.items() if key not in parts}


@pytest.mark.slow
def test_a_run_of_tna_lmc_resumes_to_the_result_of_the_run_that_was_not_stopped():
    shutil.copytree(OLD / "lmc", "lmc")
    before = restore.arrays(Path("lmc/checkpoints").absolute(), 4)
    assert main(["resume", "lmc"]) == 0
    after = restore.arrays(Path("lmc/checkpoints").absolute(), 6)
    steps = [json.loads(line)["step"] for line in Path("lmc/metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(6))
    result, expected = results(Path("lmc/lmc.json"), "provenance"), results(OLD / "lmc-result.json", "provenance")
    assert_same_result(result, expected, LOSS, {"train": 200, "test": 100})
    anchored = {name: (leaf[2] == leaf[3]) & (leaf[2] == leaf[5]) for name, leaf in before.items() if "kernel" in name}
    assert 0.3 < np.mean(anchored["params/Dense_0/kernel"]) < 0.5  # models 2, 3 and 5 share the anchors of ratio 0.4
    for name in (name for name in anchored if name.startswith("params/")):
        for model in (2, 3, 5):
            moved = after[name][model] != before[name][model]
            assert not moved[anchored[name]].any() and moved[~anchored[name]].any(), name
    with pytest.raises(AssertionError):  # the models of another seed, or after four epochs, are not these
        assert_same_result(altered(result, 1.01), expected, LOSS, {"train": 200, "test": 100})


def altered(result: dict[str, Any], factor: float) -> dict[str, Any]:
    """The result with its losses multiplied."""
    rows = [{**row, "loss_path": [loss * factor for loss in row["loss_path"]]} for row in result["rows"]]
    return {**result, "rows": rows}


def test_a_run_of_tna_train_is_opened_by_tna_barrier():
    shutil.copytree(OLD / "train", "train-full")
    assert main(["barrier", "train-full", "--alphas", "0", "0.5", "1"]) == 0
    result, expected = (
        results(path, "provenance") for path in (Path("train-full/barrier.json"), OLD / "train-barrier.json")
    )
    assert_same_result(result, expected, 1e-5, {"train": 200, "test": 100})  # one evaluation, no steps


def test_a_run_is_read_without_the_programs():
    run = io.open_run(OLD / "lmc")
    assert run.config["program"] == "lmc" and run.config["epochs"] == 6
    assert [model["ratio"] for model in run.models] == [0.0, 0.0, 0.4, 0.4, 0.0, 0.4]
    assert run.steps == [4] and run.diverged == (None,) * 6 and run.state() == {}
    stacked = run.params()
    assert stacked["Dense_0"]["kernel"].shape == (6, 64, 16) and list(stacked) == ["Dense_0", "Dense_1", "Dense_2"]
    for model in (0, 5):
        np.testing.assert_array_equal(run.params(model)["Dense_2"]["bias"], stacked["Dense_2"]["bias"][model])
    assert not np.array_equal(run.params(0)["Dense_2"]["bias"], run.params(5)["Dense_2"]["bias"])
    with pytest.raises(io.UsageError, match="has no model 6: the numbers go from 0 to 5"):
        run.params(6)
    with pytest.raises(io.UsageError, match="is not a run folder"):
        io.open_run(OLD)
    with pytest.raises(io.UsageError, match=r"cannot read .*lmc\.json"):
        run.result("lmc.json")


def test_of_a_run_with_a_damaged_checkpoint_the_one_before_is_read_with_a_warning():
    shutil.copytree(OLD / "lmc", "lmc")
    shutil.copytree("lmc/checkpoints/4", "lmc/checkpoints/6")
    (data,) = Path("lmc/checkpoints/6/state/ocdbt.process_0").rglob("21944b*")
    data.write_bytes(b"\0" * data.stat().st_size)
    run = io.open_run("lmc")
    assert run.steps == [6, 4]
    with pytest.warns(UserWarning, match="checkpoint 6 of lmc is damaged: .*; using 4"):
        params = run.params(0)
    np.testing.assert_array_equal(params["Dense_0"]["bias"], io.open_run(OLD / "lmc").params(0)["Dense_0"]["bias"])
    shutil.rmtree("lmc/checkpoints/4")
    with pytest.raises(io.UsageError, match="no checkpoint of lmc is undamaged"):
        run.params(0)
    shutil.rmtree("lmc/checkpoints")
    with pytest.raises(io.UsageError, match="lmc has no checkpoint"):
        run.params(0)
