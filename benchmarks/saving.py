"""What saving costs: its share of training time at the default interval, and how long a large save holds the step loop up.

The large ensemble has 100 million parameters (8 models, and as many optimizer entries: 0.8 GB). Timed is what the training
does at a save: wait for the one before, copy the members to the host, hand them over; and the save itself, which goes on in
the background; and an epoch of training with and without a save beside it, in turn. The share is of the default interval:
seconds held up, and seconds an epoch loses to the work in the background, for each save. Goals: under 3 % of the time; held
up for under 100 ms or a tenth of the save's time, whichever is larger. About three minutes, 6 GB of memory, 3 GB of disk.
"""

import statistics
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.timing import report
from tna_jax import backend, ensemble, masks, models
from tna_jax.programs.cli.run_options import RunOptions
from tna_jax.programs.runs.checkpoints import Checkpoints
from tna_jax.programs.training.epoch_records import store

MODELS, WIDTH, EXAMPLES, BATCH, ROUNDS = 8, 3520, 64, 32, 5


def members(width: int):
    """An ensemble of MODELS networks 64-width-width-10, its trainer and data."""
    model = models.create("mlp", num_classes=10, depth=2, width=width)

    def apply(params, x):
        return model.apply({"params": params}, x.astype(jnp.float32) / 255)

    keys = jax.random.split(jax.random.key(0), MODELS)
    params = jax.vmap(lambda key: model.init(key, jnp.zeros((1, 64)))["params"])(keys)
    mask = jax.vmap(lambda p: masks.bernoulli(jax.random.key(1), p, 0.4))(params)
    trainer = ensemble.Trainer(apply, optax.sgd(0.01, momentum=0.9), BATCH)
    rng = np.random.default_rng(0)
    data = (jnp.asarray(rng.integers(0, 256, (EXAMPLES, 64), np.uint8)), jnp.asarray(rng.integers(0, 10, EXAMPLES)))
    return trainer, ensemble.init_ensemble(trainer, params, keys, mask), data


def measure(folder: Path) -> dict:
    trainer, start, data = members(WIDTH)
    count = sum(leaf.size for leaf in jax.tree.leaves(start.params))
    whole = {
        "params": jax.tree.map(np.array, start.params),
        "opt_state": jax.tree.map(np.array, start.opt_state),
        "state": (),
        "diverged": np.full(MODELS, -1, np.int32),
    }
    held, saving, beside, alone = [], [], [], []
    with Checkpoints(folder, minutes=0) as saved:
        began = [time.perf_counter()]

        def on_epoch(epoch, now, metrics):
            spent = time.perf_counter() - began[0]
            if epoch > 1:  # the first compiles
                (alone if epoch % 2 else beside).append(spent)
            if epoch % 2:
                first = time.perf_counter()
                saved.wait()
                store(whole, slice(0, MODELS), now, whole["diverged"])
                saved.save(epoch, whole)
                held.append(time.perf_counter() - first)
                saved.writing.add_done_callback(lambda _: saving.append(time.perf_counter() - first))
            else:
                saved.wait()
            began[0] = time.perf_counter()

        ensemble.train_ensemble(trainer, start, *data, 2 * ROUNDS + 2, on_epoch=on_epoch)
    return {
        "parameters": count,
        "bytes_saved": sum(leaf.nbytes for leaf in jax.tree.leaves(whole)),
        "seconds": {"held_up": held, "save": saving, "epoch_beside_a_save": beside, "epoch_alone": alone},
    }


if __name__ == "__main__":
    backend.configure(members=MODELS)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder) / "checkpoints")
    median = {name: statistics.median(values[1:]) for name, values in found["seconds"].items()}
    lost = median["held_up"] + max(0.0, median["epoch_beside_a_save"] - median["epoch_alone"])
    interval = RunOptions().checkpoint_minutes * 60
    report(
        "saving",
        {
            "models": MODELS,
            **found,
            "median_seconds": median,
            "held_up_share_of_save": median["held_up"] / median["save"],
            "default_interval_seconds": interval,
            "share_of_training_time": lost / interval,
        },
    )
