"""Experiments on federations: slices that resume to the same numbers, equal bytes, compressed uploads."""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusion import (
    compressed_uploads,
    federated,
    federated_baselines,
    federated_bytes,
    federated_default,
    federation_runs,
)
from fusion.federated_baselines import Stage
from tna_jax.federated.algorithm import Context
from tna_jax.federated.federation import Broadcast
from tna_jax.federated.schedules import Schedule, of_round
from tna_jax.programs.cli.progress import Interrupted, Stop, time_limit
from tna_jax.programs.federate.options import FederateOptions
from train import cells


def test_when_the_time_is_over_what_is_finished_and_what_is_not_run_is_said():
    with time_limit(0):
        assert Stop().asked
        result = federated_baselines.run(full=True)
    assert not Stop().asked
    assert result["cells"] == [] and result["not_run"][0] == "cnn FedAvg seed 0"
    order = list(dict.fromkeys(words.split()[0] for words in result["not_run"]))
    assert order[:3] == ["cnn", "cnn_half", "resnet20"]
    federated_baselines.table(result)


def test_a_fresh_clone_goes_on_where_the_committed_results_stand(monkeypatch, tmp_path):
    monkeypatch.setattr(cells, "RUNS", tmp_path)
    committed = json.loads((federated_baselines.RESULTS_FOLDER / "federated_baselines.json").read_text())
    with time_limit(0):
        result = federated_baselines.run()
    assert {key: result[key] for key in ("cells", "not_run")} == {key: committed[key] for key in ("cells", "not_run")}
    other = {**federated_baselines.STAGES["fashion_mlp"].options, "rounds": 21}
    monkeypatch.setitem(federated_baselines.STAGES, "fashion_mlp", Stage("longer", other))
    with time_limit(0):  # of another length: nothing of it is taken
        assert federated_baselines.run()["not_run"][0] == "fashion_mlp FedAvg seed 3"


TINY = {
    "dataset": "digits",
    "model": "mlp",
    "depth": 1,
    "width": 8,
    "train_examples": 200,
    "clients": 3,
    "rounds": 6,
    "epochs": 1,
}


@pytest.mark.slow
def test_slices_of_a_long_computation_end_with_the_numbers_of_one_run(monkeypatch, tmp_path):
    options = {**federated_baselines.SHARED, **TINY, "rounds": 2, "anchors": ("none", "pnu"), "batch_size": 32}
    monkeypatch.setattr(federated_baselines, "STAGES", {"tiny": Stage("tiny", options, ("FedAvg", "FedDyn"), (0,))})
    monkeypatch.setattr(federated_baselines, "COLUMNS", ("none", "pnu"))
    monkeypatch.setattr(cells, "RUNS", tmp_path / "whole")
    whole = federated_baselines.run()
    assert not whole["not_run"] and len(whole["cells"]) == 2
    assert [row[:2] for row in federated_baselines.composition(whole, "tiny")] == [["FedAvg", "1"], ["FedDyn", "1"]]
    monkeypatch.setattr(cells, "RUNS", tmp_path / "sliced")
    # every slice begins with what is finished, and is stopped after its first round
    monkeypatch.setattr(federated_baselines, "time_is_over", lambda: sys.exc_info()[0] is Interrupted)
    with time_limit(0):
        parts = [federated_baselines.run() for _ in range(7)]
    assert [len(part["cells"]) for part in parts] == [0, 0, 0, 1, 1, 1, 2]
    assert parts[-1] == whole
    assert not list((tmp_path / "sliced").rglob("checkpoints"))


def test_every_way_runs_for_as_many_rounds_as_its_bytes_pay_for():
    rounds = {
        way.title: (federated_bytes.rounds_for(way), federated_bytes.rounds_for(way, both=True))
        for way in federated_bytes.WAYS
    }
    assert rounds == {
        "FedAvg": (20, 20), "8-bit": (80, 32), "largest 10 %": (100, 33), "FedPFN 0.4": (33, 33), "FedPFN 0.8": (100, 100),
        "FedPFN 0.4, 8-bit": (133, 53),
    }  # fmt: skip


def test_eight_bits_are_near_and_keep_zeros():
    x = np.random.default_rng(0).normal(size=(20, 7)).astype(np.float32)
    x[3] = 0
    sent = np.asarray(jax.jit(compressed_uploads.quantize)({"w": x})["w"])
    unit = np.abs(x).max() / 127
    assert np.abs(sent - x).max() <= unit / 2 * 1.001 and not sent[3].any()
    assert len(np.unique(np.round(sent / unit))) <= 255


def test_what_is_not_sent_is_kept_for_later_and_anchored_entries_stay():
    rng = np.random.default_rng(0)
    params = {"w": np.zeros((8, 5), np.float32)}
    algorithm, memory, moved, received = compressed_uploads.Largest(share=0.25), params, 0.0, 0.0

    @jax.jit
    def client(delta, memory, number):
        mask, split = of_round(Schedule("pfn", 0.4), jax.random.key(0), params, number)
        delta = jax.tree.map(lambda d, m: jnp.where(m, d, 0), delta, mask)
        context = Context(Broadcast(params, (), (), mask, split, 0.1), memory, mask, jnp.zeros(2), None, ())
        return delta, mask, *algorithm.after(delta, context, jnp.array([3.0, 0.0]))

    for number in range(4):
        drawn, before = rng.normal(size=(8, 5)).astype(np.float32), np.asarray(memory["w"])
        replies = client({"w": drawn}, memory, np.int32(number))
        memory = replies[2]
        delta, live, _, sent = (np.asarray(part["w"]) for part in replies)
        assert not sent[~live].any() and np.count_nonzero(sent) <= 10
        assert np.array_equal(np.asarray(memory["w"])[~live], before[~live])
        largest = np.sort(np.abs(np.where(live, delta + before, 0)).ravel())[-np.count_nonzero(sent) :]
        np.testing.assert_allclose(np.sort(np.abs(sent[sent != 0])), largest, rtol=1e-6)
        moved, received = moved + delta, received + sent
    np.testing.assert_allclose(received + np.asarray(memory["w"]), moved, atol=1e-5)


@pytest.mark.slow
def test_a_federation_of_an_experiment_is_that_of_the_command(tmp_path):
    setting = federation_runs.prepare(**TINY)
    expected = cells.federated("e", "a", {**TINY, "anchors": ("pfn",)})["runs"][0]
    curve = federation_runs.run(setting, setting.prepared.federation, Schedule("pfn", 0.4), 0)
    assert curve.accuracy == expected["accuracy"]
    assert federation_runs.score(curve.accuracy) == pytest.approx(expected["score"], abs=1e-4)


@pytest.mark.slow
def test_compressed_federations_learn():
    setting = federation_runs.prepare(**{**TINY, "width": 32, "rounds": 10, "batch_size": 16})
    for algorithm in (compressed_uploads.Quantized(), compressed_uploads.Largest(share=0.3)):
        federation = dataclasses.replace(setting.prepared.federation, algorithm=algorithm)
        assert federation_runs.run(setting, federation, Schedule(), 0).accuracy[-1] > 0.5


PROGRAM_SETTINGS = {
    f"{module.__name__}: {name}": {**module.SHARED, **changed}
    for module, settings in (
        (federated, federated.ROWS),
        (federated_baselines, federated_baselines.ROWS),
        (federated_default, federated_default.SETTINGS),
    )
    for name, changed in settings.items()
}


@pytest.mark.parametrize("options", [*PROGRAM_SETTINGS.values()], ids=[*PROGRAM_SETTINGS])
def test_settings_of_experiments_are_options_that_the_program_takes(options):
    FederateOptions(**options).check()
