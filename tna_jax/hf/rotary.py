"""What config.json says of a Llama's rotations, windows and biases, which each version and kin of it writes in a way of its own."""

from typing import Any

from tna_jax.io.errors import UsageError

BIASES = {"llama": ("attention_bias", "attention_bias"), "mistral": (False, False), "qwen2": (True, False)}
"""By model type, whether queries, keys and values, and the layer after attention, have biases, or the field that says so."""
LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


def fields(kind: str, values: dict[str, Any], where: str) -> dict[str, Any]:
    """Returns fields of `tna_jax.models.Llama`.

    Args:
      kind: the model type.
      values: config.json.
      where: its path, for errors.

    Raises:
      UsageError: rotations that are not known here.
    """
    rope = values.get("rope_parameters") or {}
    scaling = {**(values.get("rope_scaling") or {}), **rope}
    how = scaling.get("rope_type", scaling.get("type", "default"))
    stretched = None
    if how == "llama3":
        missing = [name for name in LLAMA3 if name not in scaling]
        if missing:
            raise UsageError(f"{where}: rope scaling llama3 lacks {', '.join(missing)}")
        stretched = tuple(scaling[name] for name in LLAMA3)
    elif how != "default":
        raise UsageError(f"{where} is of a model that is not known here: rope_type is {how!r}; known: default, llama3")
    inner, outer = (bool(values.get(bias, False)) if isinstance(bias, str) else bias for bias in BIASES[kind])
    window = values.get("sliding_window") if kind == "mistral" else None
    return {"theta": scaling.get("rope_theta", values.get("rope_theta", 10000.0)), "rope_scaling": stretched, "window": window,
            "qkv_bias": inner, "out_bias": outer}  # fmt: skip


def values(module: Any, old: dict[str, Any]) -> dict[str, Any]:
    """Returns what config.json says of a module's rotations, windows and biases; raises UsageError for biases that its type has not."""
    kind = old["model_type"]
    if kind == "llama" and module.qkv_bias == module.out_bias and module.window is None:
        written: dict[str, Any] = {"attention_bias": module.qkv_bias}
    elif kind == "mistral" and not (module.qkv_bias or module.out_bias or module.mlp_bias):
        written = {"sliding_window": module.window}
    elif kind == "qwen2" and module.qkv_bias and not (module.out_bias or module.mlp_bias) and module.window is None:
        written = {}
    else:
        raise UsageError(
            f"a {kind} has no such biases or windows: pass the config of a model_type that has them (mistral, qwen2)"
        )
    if "rope_parameters" not in old:
        scaled = (
            {"rope_type": "llama3", **dict(zip(LLAMA3, module.rope_scaling, strict=True))}
            if module.rope_scaling
            else None
        )
        written |= {"rope_theta": module.theta, "rope_scaling": scaled}
    return written | {"num_key_value_heads": module.attention_sizes[1], "head_dim": module.attention_sizes[2]}
