"""Files: arrays in safetensors files, pytrees of any framework from and to them, and the runs of the `tna` command.

    from tna_jax import io

    io.save("model.safetensors", {"params": params})                       # a pytree: Linen, NNX or Equinox
    params = io.load("model.safetensors", like=params, part="params")      # matched by path, shape and dtype
    io.write("arrays.safetensors", {"a": np.zeros(3)}); arrays, metadata = io.read("arrays.safetensors")

    io.write_records("mine/train", examples)                               # (x, y) each, one by one: data larger than memory
    records = io.Records("mine/train")                                     # what tna_jax.streaming trains on

    matched = io.load_permutations("aligned/permutations.json")            # for tna_jax.matching.apply_permutation

    run = io.open_run("runs/train-digits-20270101-120000")
    run.config, run.models, run.diverged, run.params(0)
    mask = run.anchor_recipe(0).draw(params)                               # or io.anchor_mask(run.path, 0)

Nothing in a file is ever executed (no pickles), files are written whole or not at all, and what is damaged or does not fit is
refused with a message that says how (`io.UsageError`, a ValueError).

`import tna_jax.io` imports neither JAX nor orbax; a name is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tna_jax.io.errors import UsageError
    from tna_jax.io.permutations import StoredPermutation, load_permutations, save_permutations
    from tna_jax.io.records import Records, write_records
    from tna_jax.io.run_folder import RunFolder, open_run
    from tna_jax.io.runs import anchor_mask, anchor_recipe
    from tna_jax.io.safetensors import fill, load, read, save, write

__all__ = [
    "Records",
    "RunFolder",
    "StoredPermutation",
    "UsageError",
    "anchor_mask",
    "anchor_recipe",
    "fill",
    "load",
    "load_permutations",
    "open_run",
    "read",
    "save",
    "save_permutations",
    "write",
    "write_records",
]

_MODULES = {
    "errors": ("UsageError",),
    "permutations": ("StoredPermutation", "load_permutations", "save_permutations"),
    "records": ("Records", "write_records"),
    "run_folder": ("RunFolder", "open_run"),
    "runs": ("anchor_mask", "anchor_recipe"),
    "safetensors": ("fill", "load", "read", "save", "write"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
