"""Parameter counts of the networks, by hand."""

import jax
import jax.numpy as jnp
import pytest

from tna_jax import models


@pytest.mark.parametrize(
    ("inputs", "depth", "width", "expected"),
    [
        (784, 1, 200, 159_010),
        (784, 2, 200, 199_210),
        (784, 8, 200, 440_410),
        (784, 2, 1600, 3_833_610),
        (3072, 2, 200, 656_810),
    ],
)
def test_parameter_counts_of_the_mlp(inputs, depth, width, expected):
    model = models.create("mlp", num_classes=10, depth=depth, width=width)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, inputs))))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == expected


def test_an_unknown_model_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="unknown model 'mpl': did you mean 'mlp'"):
        models.create("mpl", num_classes=10)
