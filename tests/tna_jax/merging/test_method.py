"""The table of methods: options and their ranges, numbers of models, weights, and what is refused."""

import subprocess
import sys

import numpy as np
import pytest

from tna_jax.merging import METHODS


@pytest.mark.parametrize("name", METHODS)
def test_defaults_are_allowed_and_explained(name):
    method = METHODS[name]
    assert method.name == name and method.summary and method.source
    models = method.min_models
    checked = method.check(models, True, {})
    assert checked == {option.name: option.default for option in method.options}
    assert all(option.meaning for option in method.options)


@pytest.mark.parametrize("name", [name for name in METHODS if any(o.name == "density" for o in METHODS[name].options)])
@pytest.mark.parametrize("density", [0, -0.1, 1.01, float("nan"), float("inf"), "much", None])
def test_a_density_outside_its_range_is_refused(name, density):
    with pytest.raises(ValueError, match=r"density must be in \(0, 1\], got"):
        METHODS[name].check(2, True, {"density": density})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ties", {"elect": "most"}, "elect must be one of sum, count, got 'most'"),
        ("dare_ties", {"seed": 1.5}, "seed must be a whole number in"),
        ("dare_ties", {"seed": -1}, "seed must be a whole number in"),
        ("task_arithmetic", {"strength": float("inf")}, "strength must be"),
        ("average", {"density": 0.5}, "average has no option density; it has none"),
        ("ties", {"densty": 0.5}, "ties has no option densty; it has density, strength, elect"),
        ("della", {"density": 0.05, "epsilon": 0.2}, "della: density - epsilon / 2 must be above 0"),
        ("della_linear", {"density": 1, "epsilon": 0.2}, "use a smaller epsilon"),
        ("breadcrumbs", {"density": 0.95, "gamma": 0.1}, "density \\+ gamma must be at most 1, got 1.05"),
        ("wudi", {"learning_rate": 0}, "learning_rate must be in \\(0, inf\\)"),
    ],
)
def test_options_that_are_not_possible_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        METHODS[name].check(2, True, options)


@pytest.mark.parametrize(
    ("name", "models", "base", "message"),
    [
        ("slerp", 3, False, "slerp merges 2 models, got 3"),
        ("slerp", 1, False, "slerp merges 2 models, got 1"),
        ("model_stock", 1, True, "model_stock merges 2 or more models, got 1"),
        ("average", 0, False, "average merges 1 or more models, got 0"),
        ("ties", 2, False, "ties needs the base, the model from which the others were fine-tuned"),
    ],
)
def test_too_few_models_or_no_base_are_refused(name, models, base, message):
    with pytest.raises(ValueError, match=message):
        METHODS[name].check(models, base, {})


@pytest.mark.parametrize("seed", [2**63 - 1, str(2**63 - 1), 7, "7", 7.0])
def test_whole_numbers_keep_every_digit(seed):
    checked = METHODS["dare_linear"].check(1, True, {"seed": seed})["seed"]
    assert type(checked) is int and checked == int(seed)


def test_weights_are_shares_or_factors():
    np.testing.assert_array_equal(METHODS["average"].shares([1, 3], 2), [0.25, 0.75])
    np.testing.assert_array_equal(METHODS["average"].shares(None, 2), [0.5, 0.5])
    np.testing.assert_array_equal(METHODS["task_arithmetic"].shares([1, 3], 2), [1, 3])
    np.testing.assert_array_equal(METHODS["task_arithmetic"].shares([0, 0], 2), [0, 0])


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [1, float("nan")], [1, -1], [[1, 2]]])
def test_weights_that_are_no_shares_are_refused(weights):
    with pytest.raises(ValueError, match=r"weight|sum not 0"):
        METHODS["ties"].shares(weights, 2)


def test_slerp_stays_between_the_models_and_the_average_goes_beyond():
    with pytest.raises(
        ValueError, match=r"slerp .* must not be negative \(t in \[0, 1\]\), got \[1.5, -0.5\]; average"
    ):
        METHODS["slerp"].shares([1.5, -0.5], 2)
    np.testing.assert_array_equal(METHODS["slerp"].shares([0, 2], 2), [0, 1])
    np.testing.assert_array_equal(METHODS["average"].shares([1.5, -0.5], 2), [1.5, -0.5])


def test_the_table_is_read_without_jax():
    program = "import sys; from tna_jax.merging import METHODS; assert METHODS and 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
