"""Task vectors and merging: many models fine-tuned from one base become one, without training.

    merged = merging.merge("ties", [a, b, c], base, density=0.2)

Three more look at data: `fisher_merge`, `regmean` and `adamerging`, on any network of the library.

`METHODS` lists the data-free methods with their options, ranges and papers; each is a file of this package, whose core merges
one tensor in NumPy. See `tna_jax.merging.method` for what a core takes, `tna_jax.merging.tensors` for what holds for all of
them.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tna_jax.merging.method import Context, Method, Option
from tna_jax.merging.methods import METHODS

if TYPE_CHECKING:
    from tna_jax.merging.adaptive import AdaMerged, adamerging
    from tna_jax.merging.fisher import fisher_information, fisher_merge
    from tna_jax.merging.grams import Gram, gram_matrices
    from tna_jax.merging.pytrees import merge, task_vector
    from tna_jax.merging.regression import regmean

__all__ = [
    "METHODS", "AdaMerged", "Context", "Gram", "Method", "Option", "adamerging", "fisher_information", "fisher_merge",
    "gram_matrices", "merge", "regmean", "task_vector",
]  # fmt: skip

_HOMES = {
    "AdaMerged": "adaptive",
    "Gram": "grams",
    "adamerging": "adaptive",
    "fisher_information": "fisher",
    "fisher_merge": "fisher",
    "gram_matrices": "grams",
    "merge": "pytrees",
    "regmean": "regression",
    "task_vector": "pytrees",
}
"""Modules that need JAX are loaded when they are first used: a command reads `METHODS` before it starts JAX."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tna_jax.merging' has no attribute {name!r}", name=name)
    value = getattr(importlib.import_module(f"tna_jax.merging.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
