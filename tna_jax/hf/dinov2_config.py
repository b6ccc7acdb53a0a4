"""What config.json says of a DINOv2 beside names of fields: its MLP as a multiple of the width, and what only pretraining needs."""

import math
from typing import Any

from tna_jax.io.errors import UsageError

PLAIN, REGISTERS = "dinov2", "dinov2_with_registers"
KINDS = (PLAIN, REGISTERS)


def fields(of: str, values: dict[str, Any], where: str) -> dict[str, Any]:
    """Returns the fields of our module that need more than a name; raises UsageError, which names `where`, for values that cannot be."""
    width, ratio = values.get("hidden_size", 768), values.get("mlp_ratio", 4)
    if not all(type(value) in (int, float) and math.isfinite(value) for value in (width, ratio)):
        raise UsageError(f"{where}: hidden_size and mlp_ratio must be numbers, got {width!r} and {ratio!r}")
    if of == REGISTERS and values.get("num_register_tokens") == 0:
        raise UsageError(f"{where}: num_register_tokens is 0; without registers, model_type is {PLAIN}")
    return {"mlp": int(width * ratio)}


def values(of: str, module: Any) -> dict[str, Any]:
    """Returns what config.json holds of these; raises UsageError where the MLP is no multiple of the width."""
    ratio, rest = divmod(module.sizes[1], module.width)
    if rest:
        raise UsageError(
            f"mlp={module.sizes[1]} is not a multiple of width={module.width}, as in Hugging Face's form it must be"
        )
    return {"mlp_ratio": ratio, "use_swiglu_ffn": False, **({"use_mask_token": False} if of == PLAIN else {})}
