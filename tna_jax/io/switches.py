"""JAX's switches of a process that change what a run computes: recorded with it, and set again when it resumes.

They come from the environment (`JAX_ENABLE_X64=1`) or from `jax.config.update`. What the library itself promises (masks, data orders,
partitions) does not depend on them, see `tna_jax.prng`; what networks draw and compute may.
"""

from collections.abc import Mapping
from typing import Any

import jax

from tna_jax.io.errors import UsageError

SWITCHES = (
    "jax_default_prng_impl", "jax_threefry_partitionable", "jax_enable_x64", "jax_default_matmul_precision",
    "jax_numpy_dtype_promotion", "jax_numpy_rank_promotion",
)  # fmt: skip
"""Names of the switches; as environment variables in capitals."""


def current() -> dict[str, Any]:
    """Returns the switches as they are in this process, in JSON's types."""
    return {name: _plain(getattr(jax.config, name, None)) for name in SWITCHES}


def restore(recorded: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Sets this process's switches as they were recorded.

    Args:
      recorded: what `current` returned, from a run's provenance; a switch that is missing stays as it is.
      where: the run, for the message.

    Returns:
      The switches that were set to another value, each with the one before.

    Raises:
      UsageError: this JAX does not know a switch, or its value.
    """
    now, changed = current(), {}
    for name, value in recorded.items():
        if now.get(name) == value:
            continue
        try:
            if name not in SWITCHES:
                raise ValueError("no switch of this version of tna_jax")
            jax.config.update(name, value)
        except (AttributeError, ValueError, TypeError) as error:
            raise UsageError(
                f"{where} was made with {name}={value}, which cannot be set here ({str(error).strip().splitlines()[0]}): resume it "
                "with the versions that its provenance.json names"
            ) from error
        changed[name] = now[name]
    return changed


def _plain(value: Any) -> Any:
    """An enum's value is what sets it again."""
    return value if value is None or isinstance(value, (bool, int, str)) else str(getattr(value, "value", value))
