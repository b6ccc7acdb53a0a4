"""Task vectors and merging: many models fine-tuned from one base become one, without training.

    merged = merging.merge("ties", [a, b, c], base, density=0.2)

`METHODS` lists the data-free methods with their options, ranges and papers; each is a file of this package, whose core merges one tensor
in NumPy. See `tna_jax.merging.method` for what a core takes, `tna_jax.merging.tensors` for what holds for all of them.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tna_jax.merging.method import Context, Method, Option
from tna_jax.merging.methods import METHODS

if TYPE_CHECKING:
    from tna_jax.merging.pytrees import merge, task_vector

__all__ = ["METHODS", "Context", "Method", "Option", "merge", "task_vector"]

_HOMES = {"merge": "pytrees", "task_vector": "pytrees"}
"""Modules that need JAX are loaded when they are first used: a command reads `METHODS` before it starts JAX."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tna_jax.merging' has no attribute {name!r}", name=name)
    value = getattr(importlib.import_module(f"tna_jax.merging.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
