"""Four ViTs fine-tuned at once in an ensemble against the same four one after the other, and memory predicted against measured.

Goals: on a CPU the ensemble is not slower than 5 %; memory predicted before the start within 15 % of the measured peak. A process
of its own measures the memory, by the growth of its resident memory over what it was before the models were made. About four
minutes on two cores.
"""

import json
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import paired, ratio, report
from tna_jax import backend, ensemble, finetuning, masks, models
from tna_jax.ensemble import Trainer
from tna_jax.programs.system import memory

MODELS, BATCH, STEPS = 4, 32, 4
CASES = {"vit 96x4, patch 8": {"width": 96, "depth": 4, "heads": 3, "patch": 8},
         "vit 192x4, patch 8": {"width": 192, "depth": 4, "heads": 3, "patch": 8}}  # fmt: skip


def prepared(fields: dict[str, Any]) -> tuple[Trainer, Any, tuple[jax.Array, jax.Array]]:
    """The trainer, a function that makes members from numbers of recipes, and data."""
    module = models.create("vit", num_classes=10, image_size=32, **fields)

    def network(params, x):
        return module.apply({"params": params}, x.astype(jnp.float32) / 127.5 - 1)

    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (BATCH * STEPS, 32, 32, 3), np.uint8))
    labels = jnp.asarray(rng.integers(0, 10, BATCH * STEPS).astype(np.int32))
    trainer = Trainer(network, finetuning.adamw(100, 10), BATCH, prepare=finetuning.augmented, loss=finetuning.smoothed)
    plan = finetuning.grid((1e-3, 5e-4), (0.0, 0.1), count=MODELS)

    def members(numbers: range):
        params = module.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
        mask = masks.bernoulli(jax.random.key(1), params, 0.4, lambda path: not path.startswith("head"))
        stack = lambda tree: jax.tree.map(lambda leaf: jnp.stack([leaf] * len(numbers)), tree)  # noqa: E731
        orders = jax.random.split(jax.random.key(2), MODELS)[jnp.asarray(numbers)]
        return ensemble.init_ensemble(
            trainer, stack(params), orders, stack(mask), finetuning.stack([plan[i] for i in numbers])
        )

    return trainer, members, (images, labels)


def speed(fields: dict[str, Any]) -> dict[str, Any]:
    """Seconds of an epoch of all four."""
    trainer, members, data = prepared(fields)
    together, alone = members(range(MODELS)), [members(range(i, i + 1)) for i in range(MODELS)]

    def at_once():
        jax.block_until_ready(ensemble.train_ensemble(trainer, together, *data, 1)[0].params)

    def one_by_one():
        for one in alone:
            jax.block_until_ready(ensemble.train_ensemble(trainer, one, *data, 1)[0].params)

    seconds = paired({"at once": at_once, "one by one": one_by_one}, rounds=7)
    return {"times_one_by_one": ratio(seconds, "one by one", "at once"), "seconds": seconds}


def measured(fields: dict[str, Any]) -> dict[str, Any]:
    """Memory of training all four at once, predicted and measured, in a process of its own; bytes."""
    words = [sys.executable, "-m", "benchmarks.finetune", "--memory", json.dumps(fields)]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def memory_of(fields: dict[str, Any]) -> dict[str, Any]:
    """As `measured`, in this process, which must have done nothing before."""
    backend.configure(members=MODELS)
    trainer, members, data = prepared(fields)
    made = members(range(MODELS))
    planned = memory.compiled_bytes(trainer, made, *data)
    before = memory.resident()
    ensemble.train_ensemble(trainer, made, *data, 1)
    return {"predicted": before + planned, "measured": memory.peak(), "before": before, "planned": planned}


def main() -> None:
    """Measures all cases and writes benchmarks/results/finetune.json."""
    if sys.argv[1:2] == ["--memory"]:
        print(json.dumps(memory_of(json.loads(sys.argv[2]))))
        return
    backend.configure(members=MODELS)
    found = {}
    for name, fields in CASES.items():
        used = measured(fields)
        used["predicted / measured"] = used["predicted"] / used["measured"]
        found[name] = {**speed(fields), "memory": used}
    report("finetune", {"models": MODELS, "batch_size": BATCH, "steps": STEPS, "cases": found})


if __name__ == "__main__":
    main()
