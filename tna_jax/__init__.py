"""Training-time neuron alignment: networks that share fixed anchor weights train so that they can be averaged.

from tna_jax import tna_mask, masks
mask = masks.bernoulli(jax.random.key(0), params, ratio=0.4)
optimizer = optax.chain(tna_mask(mask), optax.adam(1e-3))

Names and modules are loaded when they are first used (PEP 562): `import tna_jax` alone imports no JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tna_jax.version import __version__ as __version__

if TYPE_CHECKING:  # what type checkers and editors see; the same names as below
    # isort: off
    from tna_jax import (
        alphas as alphas,
        augment as augment,
        averaging as averaging,
        barriers as barriers,
        calibration as calibration,
        checks as checks,
        cold_fusion as cold_fusion,
        connectivity as connectivity,
        corruptions as corruptions,
        curves as curves,
        ensemble as ensemble,
        federated as federated,
        finetuning as finetuning,
        frameworks as frameworks,
        host_bits as host_bits,
        interpolation as interpolation,
        labels as labels,
        linear_probe as linear_probe,
        masked_lm as masked_lm,
        masks as masks,
        matching as matching,
        merging as merging,
        metrics as metrics,
        models as models,
        networks as networks,
        objectives as objectives,
        optimizers as optimizers,
        packing as packing,
        placement as placement,
        prng as prng,
        program_cache as program_cache,
        repair as repair,
        sharding as sharding,
        streaming as streaming,
        theory as theory,
        transform as transform,
        trees as trees,
    )

    # isort: on
    from tna_jax.alphas import grid
    from tna_jax.averaging import greedy_soup, stack, uniform_soup, weighted_average
    from tna_jax.connectivity import barrier, evaluate_path, evaluate_paths, pairs
    from tna_jax.frameworks import from_equinox, from_linen, from_nnx
    from tna_jax.interpolation import line
    from tna_jax.packing import compact
    from tna_jax.transform import anchored, apply_updates, tna_mask

__all__ = [
    "anchored", "apply_updates", "barrier", "checks", "compact", "evaluate_path", "evaluate_paths", "from_equinox", "from_linen",
    "from_nnx", "greedy_soup", "grid", "line", "masks", "objectives", "pairs", "stack", "tna_mask", "uniform_soup", "weighted_average",
]  # fmt: skip

_HOMES = {
    "anchored": "transform",
    "apply_updates": "transform",
    "barrier": "connectivity",
    "compact": "packing",
    "evaluate_path": "connectivity",
    "evaluate_paths": "connectivity",
    "from_equinox": "frameworks",
    "from_linen": "frameworks",
    "from_nnx": "frameworks",
    "greedy_soup": "averaging",
    "grid": "alphas",
    "line": "interpolation",
    "pairs": "connectivity",
    "stack": "averaging",
    "tna_mask": "transform",
    "uniform_soup": "averaging",
    "weighted_average": "averaging",
}
"""The module of each public name that is not a module."""

_MODULES = frozenset({
    "alphas", "augment", "averaging", "barriers", "calibration", "checks", "cold_fusion", "connectivity", "corruptions", "curves", "ensemble", "federated",
    "finetuning", "frameworks", "host_bits", "interpolation", "labels", "linear_probe", "masked_lm", "masks", "matching", "merging", "metrics", "models",
    "networks", "objectives", "optimizers", "packing", "placement", "prng", "program_cache", "repair", "sharding", "streaming", "theory", "transform",
    "trees",
})  # fmt: skip
"""The modules of the core. Those that touch files (`io`, `hf`, `flower`, `programs`) are imported by name."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(f"tna_jax.{_HOMES[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"tna_jax.{name}")
    else:
        raise AttributeError(f"module 'tna_jax' has no attribute {name!r}", name=name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
