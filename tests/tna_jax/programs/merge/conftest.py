"""Three files to merge, and merging in pieces smaller than they are."""

import pytest
from safetensors.numpy import save_file

from tests.tna_jax.programs.merge import folders, running
from tests.tna_jax.programs.merge.files import MODELS, tensors
from tna_jax.programs.merge import streaming


@pytest.fixture
def files(tmp_path):
    names = [str(tmp_path / f"{i}.safetensors") for i in range(MODELS)]
    for i, name in enumerate(names):
        save_file(tensors(i), name, {"format": "pt"})
    return names


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(streaming, "PIECE", 64)


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    """Makes the folders a, b, c and base, and works beside them."""
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate((*running.MODELS, "base")):
        folders.folder(tmp_path / name, i)
