"""`from tna_jax import flower`: what it offers, what it costs, what it says without Flower."""

import importlib.util
import subprocess
import sys

import pytest

from tna_jax import flower

FLOWER = importlib.util.find_spec("flwr") is not None


def test_every_public_name_is_there_and_has_a_docstring():
    assert set(flower.__all__) <= set(dir(flower))
    for name in set(flower.__all__) - (set() if FLOWER else set(flower.WITH_FLOWER)):
        assert getattr(flower, name).__doc__, name


def test_names_that_are_not_there_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        flower.nothing  # noqa: B018


@pytest.mark.skipif(FLOWER, reason="Flower is installed here")
@pytest.mark.parametrize("name", flower.WITH_FLOWER)
def test_what_needs_flower_says_how_to_get_it(name):
    with pytest.raises(ModuleNotFoundError, match=rf"{name} needs Flower: pip install 'tna-jax\[federated\]'"):
        getattr(flower, name)


def test_tasks_coordinators_and_clients_import_neither_flower_nor_programs():
    code = (
        "import sys; from tna_jax import flower; flower.Task, flower.server.Coordinator, flower.client.train\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('flwr', 'tyro') or name.startswith('tna_jax.programs')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
