"""The shapes and dtypes that annotations state hold at calls of each module, and other ones are refused (see `tests.shape_checker`)."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest

from tests import shape_checker

ROOT = Path(__file__).parents[2]
KEY = jax.random.key(0)
IMAGES = np.zeros((2, 4, 4, 1), np.uint8)
MEMBERS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}  # M = 2 linear models of three features
INPUTS, LABELS = np.ones((4, 3), np.float32), np.zeros(4, np.int32)


def network(params, inputs):
    return jnp.stack([inputs @ params["w"], jnp.zeros(inputs.shape[0])], axis=-1)


@pytest.fixture(scope="module")
def core():
    """The core, its listed modules checked."""
    with shape_checker.checked_copies():
        import tna_jax

        yield tna_jax


def trainer(core):
    return core.ensemble.Trainer(network, optax.sgd(0.1), 2, "map")


def start(core):
    return core.ensemble.init_ensemble(trainer(core), MEMBERS, jax.random.split(KEY, 2))


def test_every_listed_module_is_a_checked_copy(core):
    assert core.ensemble is sys.modules["tna_jax.ensemble"]
    for name in shape_checker.MODULES:
        assert type(sys.modules[name].__loader__).__module__.startswith("jaxtyping"), name


def test_training(core):
    members = jax.eval_shape(lambda: start(core))
    assert members.params["w"].shape == (2, 3)
    step = functools.partial(core.ensemble.train_step, trainer(core))
    batch = jnp.asarray(INPUTS), jnp.asarray(LABELS), jnp.ones(4)
    trained, sums = jax.eval_shape(jax.vmap(step, in_axes=(0, None, None, None)), members, *batch)
    assert trained.params["w"].shape == (2, 3) and sums.count.shape == (2,)
    indices, _ = jax.eval_shape(lambda: core.ensemble.batch_indices(KEY, 0, 5, 2))
    assert indices.shape == (3, 2)


@pytest.mark.slow
def test_paths(core):
    data = {"test": (INPUTS, LABELS), "train": (INPUTS[:2], LABELS[:2])}
    path = core.connectivity.evaluate_paths(network, MEMBERS, [(0, 1)], core.connectivity.grid(3), data)["test"]
    assert core.connectivity.barrier(path).shape == (1,)
    assert core.connectivity.evaluate_mixtures(network, MEMBERS, [[0.5, 0.5]], data)["train"].count.tolist() == [2]


@pytest.mark.slow
def test_fusing(core):
    assert core.averaging.weighted_average(MEMBERS, [1, 3])["w"].tolist() == [2.25, 3.25, 4.25]
    first, second = ({"w": MEMBERS["w"][i]} for i in (0, 1))
    assert core.interpolation.plane(first, second, first, 1.0, np.float32(0))["w"].tolist() == [3, 4, 5]
    fused = core.cold_fusion.fuse({**MEMBERS, "head": np.eye(2)}, lambda path: path == "head", np.array([1.0, 0.0]))
    np.testing.assert_array_equal(fused["w"], MEMBERS["w"][:1].repeat(2, axis=0))


def test_batches(core):
    images, inputs, labels = jnp.asarray(IMAGES), jnp.asarray(INPUTS), jnp.asarray(LABELS)
    ids, special = jnp.arange(10).reshape(2, 5), jnp.zeros(11, bool)
    assert jax.eval_shape(lambda: core.augment.crop_flip(KEY, images, 1)).shape == images.shape
    assert jax.eval_shape(lambda: core.finetuning.augment(KEY, images, 0.5)).dtype == jnp.uint8
    assert jax.eval_shape(lambda: core.corruptions.corrupt(KEY, images, "contrast", 1)).shape == images.shape
    masked = jax.eval_shape(lambda: core.masked_lm.mask_tokens(KEY, ids, special=special, mask_id=10))
    assert masked.targets.shape == (2, 1)
    probe = jax.eval_shape(lambda: core.linear_probe.fit(inputs, labels, 2))
    assert jax.eval_shape(core.linear_probe.scores, probe, inputs).shape == (4, 2)


REFUSED = {
    "a raw key": lambda core: core.augment.flip(jax.random.PRNGKey(0), jnp.asarray(IMAGES)),
    "images without channels": lambda core: core.augment.flip(KEY, jnp.asarray(IMAGES[..., 0])),
    "members of several numbers": lambda core: core.ensemble.member({"a": np.zeros(2), "b": np.zeros(3)}, 0),
    "one weight too many": lambda core: core.interpolation.mixture(MEMBERS, jnp.ones(3)),
    "an unknown placement": lambda core: core.ensemble.Trainer(network, optax.sgd(0.1), 2, "pmap"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_shapes_and_types_are_refused(case, core):
    with pytest.raises(jaxtyping.TypeCheckError):
        REFUSED[case](core)


@pytest.mark.parametrize("labels", [np.zeros(3, np.int32), np.zeros(2, np.float32)])
def test_labels_that_do_not_fit_are_refused_by_the_library_itself(labels, core):
    with pytest.raises((jaxtyping.TypeCheckError, ValueError)):
        core.metrics.cross_entropy(jnp.zeros((2, 3)), jnp.asarray(labels))


QUICK = ("augment", "averaging", "corruptions", "ensemble", "interpolation", "masked_lm", "placement")
"""Modules whose own tests take seconds."""


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_tests_of_the_core_pass_under_the_checker():
    """Test files of modules, with every call checked; what is refused by its shape before the library does is skipped."""
    assert {f"tna_jax.{name}" for name in QUICK} <= set(shape_checker.MODULES)
    files = [f"tests/tna_jax/test_{name}.py" for name in QUICK]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-m", "not slow and not optimized", *files], cwd=ROOT, env={**os.environ, "TNA_JAXTYPING": "1"}, capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]
