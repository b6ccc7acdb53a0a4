"""No random program has a wrong group: renamed units leave its outputs as they are, in float64, on 2,000 programs."""

import jax
import numpy as np
import pytest

from tests.tna_jax.matching import numpy_programs, random_programs
from tna_jax.matching import apply_permutation, permutation_spec
from tna_jax.matching.operations import OPERATIONS

DEFAULT, ALL = 50, 2000


def traced(seed):
    """The program of this number: its jaxpr, parameters, inputs and specification."""
    network, params, x = random_programs.program(seed), random_programs.parameters(seed), random_programs.inputs(seed)
    return jax.make_jaxpr(network)(params, x), params, x, permutation_spec(network, params, x)


def outputs(closed, params, x):
    return numpy_programs.run(closed, *jax.tree.leaves(params), x)


def wrong_groups(seed):
    """The groups of a program that cannot be permuted, each tried alone and all at once."""
    closed, params, x, spec = traced(seed)
    if not spec.groups:
        return []
    draws = np.random.default_rng(seed)
    before = outputs(closed, params, x)
    trials = [list(spec.groups), *([name] for name in spec.groups)]
    wrong = []
    for names in trials[: 1 if len(trials) == 2 else None]:
        order = {name: np.roll(np.arange(spec.groups[name]), draws.integers(1, spec.groups[name])) for name in names}
        after = outputs(closed, apply_permutation(spec, order, params), x)
        if any(not np.allclose(a, b, rtol=1e-9, atol=1e-11) for a, b in zip(before, after, strict=True)):
            wrong.append(names)
    return wrong


def wrong_programs(seeds):
    with jax.enable_x64(True), np.errstate(all="ignore"):
        return {seed: groups for seed in seeds if (groups := wrong_groups(seed))}


def test_no_random_program_has_a_wrong_group():
    assert not wrong_programs(range(DEFAULT))


@pytest.mark.slow
@pytest.mark.parametrize("start", range(DEFAULT, ALL, 195))
def test_no_random_program_has_a_wrong_group_of_two_thousand(start):
    assert not wrong_programs(range(start, min(start + 195, ALL)))


def test_a_broken_rule_is_caught(monkeypatch):
    def passes(walk, equation, inputs):
        return inputs[0].axes

    monkeypatch.setitem(OPERATIONS, "rev", OPERATIONS["rev"]._replace(rule=passes))
    assert wrong_programs(range(20, 27))
