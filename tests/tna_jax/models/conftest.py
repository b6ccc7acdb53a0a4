"""What several files of tests of models take."""

import jax
import pytest


@pytest.fixture
def compiled_quickly():
    """Compiling is nearly all these tests take."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
