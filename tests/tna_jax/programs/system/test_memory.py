"""Memory predicted from shapes, against what the compiler plans; how many models fit; waves."""

import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.parameters import slow
from tna_jax import ensemble, models, networks
from tna_jax.ensemble import Trainer
from tna_jax.io.errors import UsageError
from tna_jax.programs.system import memory
from tna_jax.programs.system.memory import Estimate


def one_member(name: str, **options):
    """A trainer, a member's shapes, and shapes of the data."""
    shape = (32, 32, 3) if name != "mlp" else (28, 28, 1)
    net, init = networks.linen(models.create(name, num_classes=10, **options), shape)
    trainer = Trainer(net, optax.sgd(0.1, momentum=0.9), 32, "map")
    params, state = jax.eval_shape(init, jax.random.key(0))
    mask = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, bool), params)
    opt_state = jax.eval_shape(trainer.anchored_optimizer({}).init, params)
    member = ensemble.Members(params, mask, opt_state, jax.random.key(0), {}, state)
    data = jax.ShapeDtypeStruct((320, *shape), jnp.float32), jax.ShapeDtypeStruct((320,), jnp.int32)
    return trainer, member, data


@pytest.mark.parametrize(
    ("name", "options", "most"),
    # The compiler computes batch normalisation again for the gradient instead of keeping what the prediction counts.
    [("mlp", {"width": 256}, 2), ("cnn", {}, 2), *slow(("cnn", {"norm": "batch"}, 4.5), ("resnet20", {}, 2))],
)
def test_the_prediction_is_near_what_the_compiler_plans(name, options, most):
    trainer, member, data = one_member(name, **options)
    found = memory.estimate(trainer, member, *data)
    batch = [
        jax.ShapeDtypeStruct((32, *x.shape[1:]), x.dtype) for x in (*data, jax.ShapeDtypeStruct((320,), jnp.float32))
    ]
    step = jax.jit(lambda m, *b: ensemble.train_step(trainer, m, *b, padded=False))
    planned = step.lower(member, *batch).compile().memory_analysis()
    assert found.kept == pytest.approx(planned.argument_size_in_bytes - memory.size(batch), rel=0.02)
    # Some of what is new is written over the old state, so the plan lies between these two.
    new = planned.temp_size_in_bytes + planned.output_size_in_bytes - found.kept
    assert 0.5 * new < found.working < most * (new + memory.size(member.params))
    assert found.common == memory.size(data)


def test_the_working_memory_grows_with_the_batch_but_not_the_kept():
    trainer, member, data = one_member("cnn")
    small = memory.estimate(trainer, member, *data)
    larger = memory.estimate(Trainer(trainer.network, trainer.optimizer, 64, "map"), member, *data)
    assert larger.kept == small.kept
    assert 1.8 < larger.working / small.working < 2.2


@pytest.mark.cpu_only("needs eight devices")
@pytest.mark.parametrize(
    ("models", "placement", "free", "expected"),
    [
        (16, "map", 10**9, 16),
        # On a CPU: 8 devices x (models each x 10 kept + 100 working + 1 common) + 2 x models x 10 on the host.
        (16, "map", 8 * (2 * 10 + 101) + 320, 16),
        (16, "map", 8 * (2 * 10 + 101) + 319, 8),
        (24, "map", 8 * (2 * 10 + 101) + 480, 16),
        (16, "vmap", 8 * (2 * 110 + 1) + 319, 8),
    ],
)
def test_how_many_models_fit_at_once(models, placement, free, expected):
    assert jax.device_count() == 8
    assert memory.at_once(models, Estimate(10, 100, 1), placement, free, 2 * models * 10) == expected


def test_room_is_kept_for_a_checkpoint_that_is_written_while_models_train():
    need = Estimate(10, 100, 1)
    devices = 8 * (2 * 10 + 101)  # all of 16 models
    assert (
        memory.host_bytes(16, need) == (2 + memory.SAVING) * 160
        and memory.checkpoint_bytes(16, need) == memory.SAVING * 160
    )
    assert memory.at_once(16, need, "map", devices + memory.host_bytes(16, need), memory.host_bytes(16, need)) == 16
    assert memory.at_once(16, need, "map", devices + memory.host_bytes(16, need) - 1, memory.host_bytes(16, need)) == 8
    assert memory.at_once(16, need, "map", devices) == 16  # nothing beside the devices


@pytest.mark.parametrize(
    ("working", "host", "free", "machine", "expected"),
    [
        (0, 0, 100, 100, "it needs a machine with more memory, or a smaller model"),
        (50, 0, 100, 100, "a smaller --batch-size can help"),
        (0, 50, 100, 100, "fewer models can help"),
        (0, 0, 100, 200, "--memory-limit 15 can help"),  # the user's own limit is below what is free
        (50, 50, 100, 200, "a smaller --batch-size, fewer models or --memory-limit 15 can help"),
        (40, 40, 100, 140, "it needs a machine with more memory, or a smaller model"),  # none of it is enough
    ],
)
def test_only_what_helps_is_advised(monkeypatch, working, host, free, machine, expected):
    monkeypatch.setattr(memory, "available", lambda limit=None: int(machine * memory.GB / 10))
    parts = (int(part * memory.GB / 10) for part in (150, working, host, free))
    assert memory._advice(*parts) == expected


@pytest.mark.slow
def test_what_is_predicted_of_a_run_is_near_what_it_takes(tmp_path):
    """In a process of its own, whose peak is its alone, with a checkpoint written behind the training."""
    words = ["train", "--members", "12", "--ratio", "0.4", "--width", "1024", "--depth", "4", "--epochs", "4", "--train-examples",
             "1024", "--batch-size", "64", "--optimizer", "adam", "--checkpoint-every", "1", "--cpu-devices", "2"]  # fmt: skip
    command = [sys.executable, "-m", "tna_jax", *words, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"memory: .* GB for the training and .* GB more while a checkpoint is written", " ".join(done.stderr.split())
    )
    found = json.loads((tmp_path / "run" / "train.json").read_text())["provenance"]
    predicted = found["predicted_bytes"] + found["resident_bytes_before"]
    assert 0.8 < predicted / found["peak_bytes"] < 1.25, found


def test_what_can_not_fit_at_all_is_said_before_anything_starts():
    with pytest.raises(UsageError, match=r"needs about .* GB.*--batch-size"):
        memory.at_once(16, Estimate(10, 100, 1), "map", 500)
    with pytest.raises(UsageError, match=r"beside 3 GB in the CPU's memory"):
        memory.at_once(16, Estimate(10, 100, 1), "map", 10**9, 3 * 10**9)


def test_free_memory_is_a_number_and_a_limit_is_taken_at_its_word():
    assert 10**8 < memory.available() < 10**14
    assert memory.available(1.5) == 1_500_000_000
    assert memory.peak() > 10**7
    assert np.isfinite(memory.SHARE)


@pytest.mark.slow
def test_the_compiler_s_own_plan_holds_members_data_and_a_step():
    trainer, one, data = one_member("mlp", width=256)
    count = 3
    stacked = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), one._replace(data_keys=())
    )
    members = stacked._replace(data_keys=jax.random.split(jax.random.key(0), count))
    found, planned = memory.estimate(trainer, one, *data), memory.compiled_bytes(trainer, members, *data)
    least = count * (2 * found.kept + found.common)  # in place, and the copy that training begins from
    assert least < planned < least + count * (2 * found.working + found.kept)
    more = memory.compiled_bytes(Trainer(trainer.network, trainer.optimizer, 128, "map"), members, *data)
    assert more > planned  # a larger batch
    assert memory.resident() > 10**7
    with pytest.raises(ValueError, match="loop"):
        memory.compiled_bytes(Trainer(trainer.network, trainer.optimizer, 32, "loop"), members, *data)


@pytest.mark.slow
def test_what_the_compiler_plans_corrects_an_estimate_that_is_too_low(monkeypatch):
    trainer, one, data = one_member("mlp", width=256)
    models = 2 * jax.device_count()
    low = memory.Estimate(*(part // 4 for part in memory.estimate(trainer, one, *data)))
    monkeypatch.setattr(memory, "PLANNED_FROM", 0)
    whole = memory.predict(trainer, one, models, low, *data, models)
    assert memory.plan_waves(trainer, one, models, low, *data, whole) == (models, whole)
    fewer, bytes_of_fewer = memory.plan_waves(trainer, one, models, low, *data, whole - 1)
    assert fewer == jax.device_count()
    assert bytes_of_fewer < whole
    monkeypatch.setattr(memory, "PLANNED_FROM", 1e18)  # the control: the estimate alone
    assert memory.plan_waves(trainer, one, models, low, *data, whole - 1)[0] == models
