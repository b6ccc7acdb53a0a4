"""Compiled programs that are kept for the next start: one that is cut off is compiled again and replaced, and nobody is told of it."""

import os
import subprocess
import sys
from pathlib import Path

COMPILES = """
from tna_jax import backend
backend.configure()
import jax, jax.numpy as jnp

def slow(x):
    for i in range(60):
        x = jnp.sin(x) @ x + i
    return x

print(jax.jit(slow)(jnp.ones((3, 3))).sum())
"""


def compiled(home: Path) -> tuple[str, dict[str, bytes]]:
    """What a process prints, and the programs that are kept after it."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(home)}
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"):
        environment.pop(name, None)
    words = [sys.executable, "-c", COMPILES]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    kept = {path.name: path.read_bytes() for path in home.rglob("jit_slow-*-cache")}
    return done.stdout + done.stderr, kept


def test_a_program_that_was_cut_off_is_compiled_again_and_replaced(tmp_path):
    said, whole = compiled(tmp_path)
    assert len(whole) == 1, whole.keys()
    (file,) = tmp_path.rglob("jit_slow-*-cache")
    file.write_bytes(whole[file.name][: len(whole[file.name]) // 2])
    again, mended = compiled(tmp_path)
    assert again == said  # the same numbers, and no warning
    assert mended.keys() == whole.keys() and len(mended[file.name]) > len(whole[file.name]) // 2
    before = file.stat().st_mtime_ns
    assert compiled(tmp_path) == (said, mended) and file.stat().st_mtime_ns == before  # it is read, not written again
