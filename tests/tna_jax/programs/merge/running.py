"""`tna merge` of four folders in the working folder: three models and what they began from."""

import os
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from tna_jax.programs.cli.main import main

MODELS = ("a", "b", "c")


def run(*words: str) -> dict[str, np.ndarray]:
    out = f"out{len(os.listdir())}"
    assert main(["merge", *words, "-o", out]) == 0
    return load_file(f"{out}/model.safetensors")


def refused(capsys, *words: str) -> str:
    assert main(["merge", *words, "-o", "out"]) == 2 and not Path("out").exists()
    return " ".join(capsys.readouterr().err.split())
