"""Populations of which nothing was trained: a linear network with hand-made models, and a run folder of models near their initial values."""

import json

import jax
import numpy as np

from tna_jax import models, networks
from tna_jax.io import safetensors
from tna_jax.io.runs import recipe_of
from tna_jax.objectives import CLASSIFICATION
from tna_jax.programs.cli.main import main
from tna_jax.programs.fuse.scoring import Scorer
from tna_jax.programs.population.load import Population
from tna_jax.programs.runs.exported import ABOUT
from tna_jax.programs.training.initial_models import ModelSpec, build

CONFIG = {
    "dataset": "digits",
    "train_examples": 1000,
    "model": "mlp",
    "depth": 1,
    "width": 6,
    "anchors": "bernoulli",
    "where": None,
}


def linear(params, x):
    return x @ params["kernel"] + params["bias"][None]


STATEFUL = networks.Stateful(
    lambda params, state, x, weight: (linear(params, x), {"mean": x.mean(0) + params["bias"][:3]}),
    lambda params, state, x: linear(params, x - state["mean"][None]),
)


def population(trees, network=linear, state=(), objective=CLASSIFICATION, **fields):
    """A population of hand-made models without a run."""
    described = [{"run": "made", "number": i} for i in range(len(trees))]
    stacked = jax.tree.map(lambda *x: np.stack(x), *trees)
    values = {
        "folder": None, "config": {}, "what": "a linear network", "data": None, "network": network, "exact": network, "module": None,
        "objective": objective, "params": stacked, "state": state, "models": described, "warnings": [], "checkpoints": [],
        "init": None, "configs": [{}] * len(trees),
    }  # fmt: skip
    return Population(**{**values, **fields})


def scorer(made, calibration=None):
    return Scorer(made, made.params, made.state, calibration, None, "map")


def initial(seed=0, start=0):
    """The network of the run, its initial values, and the recipe of its anchors."""
    network, init = networks.linen(models.create("mlp", num_classes=10, depth=1, width=6), (8, 8, 1))
    recipe = recipe_of(CONFIG, {"seed": seed, "ratio": 0.4})
    return (
        network,
        jax.tree.map(lambda x: x[0], build([ModelSpec(seed, 0.4, "tna", start, 0)], init, recipe).params),
        recipe,
    )


def write_run(folder, count=3, starts=None):
    """Writes a run of models that moved a little from their initial values, all but their anchors."""
    rng = np.random.default_rng(0)
    files = []
    for i in range(count):
        start = 0 if starts is None else starts[i]
        _, base, recipe = initial(start=start)
        mask = recipe.draw(base)
        moved = jax.tree.map(
            lambda x, m: np.where(m, x + rng.normal(size=x.shape).astype(np.float32) / 8, x).astype(np.float32),
            base,
            jax.tree.map(np.asarray, mask),
        )
        about = {
            "format": 1,
            "config": CONFIG,
            "model": {"seed": 0, "ratio": 0.4, "method": "tna", "start": start, "order": i},
            "mask": None,
        }
        files.append(f"{folder}-{i}.safetensors")
        safetensors.save(files[-1], {"params": moved}, {ABOUT: json.dumps(about)})
    assert main(["import", *files, "--out", str(folder)]) == 0
