"""A walk estimates running statistics anew; a state of which that makes something else is refused, and one without needs none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tna_jax import evaluate_paths, pairs
from tna_jax.networks import Stateful
from tna_jax.repair import RESET_TOLERANCE, reset_disagreement

INPUTS = np.random.default_rng(0).normal(2, 3, (16, 4)).astype(np.float32)
DATA = {"test": (INPUTS, np.zeros(16, np.int32))}
MEMBERS = {"w": np.random.default_rng(1).normal(0, 1, (2, 4, 3)).astype(np.float32)}
MOMENTUM = np.float32(0.9)


def logits(params, inputs, mean):
    return (inputs - jnp.asarray(mean).reshape(-1, 4)) @ params["w"]


def updated(old, inputs):
    return MOMENTUM * old + (1 - MOMENTUM) * inputs.mean(0)


def plain() -> Stateful:
    def train(params, state, inputs, weight):
        return logits(params, inputs, inputs.mean(0)), {"mean": updated(state["mean"], inputs)}

    return Stateful(train, lambda params, state, inputs: logits(params, inputs, state["mean"]))


def counted(settled=None) -> Stateful:
    """As Adam's moments: evaluation corrects the average by the number of steps."""

    def train(params, state, inputs, weight):
        return logits(params, inputs, inputs.mean(0)), {
            "mean": updated(state["mean"], inputs),
            "count": state["count"] + 1,
        }

    def evaluate(params, state, inputs):
        return logits(params, inputs, state["mean"] / (1 - MOMENTUM ** state["count"].astype(jnp.float32)))

    return Stateful(train, evaluate, settled=settled)


def constant() -> Stateful:
    """Part of the state is not an average at all."""

    def train(params, state, inputs, weight):
        return logits(params, inputs, state["shift"]), state

    return Stateful(train, lambda params, state, inputs: logits(params, inputs, state["shift"]))


def settled(state):
    return state | {"count": jnp.full_like(state["count"], 10_000)}


CASES = {
    "running mean": (plain(), {"mean": np.zeros(4, np.float32)}, True),
    "corrected by a count": (counted(), {"mean": np.zeros(4, np.float32), "count": np.int32(3)}, False),
    "the same, settled": (counted(settled), {"mean": np.zeros(4, np.float32), "count": np.int32(3)}, True),
    "not an average": (constant(), {"shift": np.ones(4, np.float32)}, False),
}


@pytest.mark.parametrize("name", CASES)
def test_the_disagreement_of_a_reset(name):
    network, state, right = CASES[name]
    params = jax.tree.map(lambda leaf: leaf[0], MEMBERS)
    gap = float(reset_disagreement(network, params, jax.tree.map(jnp.asarray, state), jnp.asarray(INPUTS)))
    assert (gap <= RESET_TOLERANCE) == right


def test_a_walk_refuses_what_a_reset_would_make_wrong():
    network, state, _ = CASES["corrected by a count"]
    states = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), state)
    with pytest.raises(ValueError, match="give `settled` to networks.Stateful"):
        evaluate_paths(network, MEMBERS, pairs(2), 3, DATA, state=states, calibration=INPUTS)


def test_a_state_without_statistics_needs_no_calibration():
    """A key that dropout carries along, say."""
    network = Stateful(
        lambda params, key, inputs, weight: (logits(params, inputs, jnp.zeros(4)), jax.random.split(key)[0]),
        lambda params, key, inputs: logits(params, inputs, jnp.zeros(4)),
    )
    keys = jax.random.split(jax.random.key(0), 2)
    path = evaluate_paths(network, MEMBERS, pairs(2), 3, DATA, state=keys, placement="map")["test"]
    assert np.isfinite(path.loss).all() and path.loss.shape == (1, 3)
