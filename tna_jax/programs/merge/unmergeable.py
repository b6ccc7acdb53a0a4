"""Tensors whose average means nothing: codes of quantized weights, and the factors of LoRA adapters. Refused by name."""

import json
import re
from pathlib import Path

from tna_jax.io.errors import UsageError
from tna_jax.io.tensor_headers import Checkpoint

SHOWN = 5
CODES = {
    "bitsandbytes": r"\.(SCB|weight_format|absmax|nested_absmax|quant_map|nested_quant_map|quant_state(\..+)?)$",
    "GPTQ or AWQ": r"\.(qweight|qzeros|g_idx)$",
    "scaled codes (FP8, compressed-tensors, torchao)": (
        r"(_scale_inv|\.(weight|input|output|k|v)_scale|\.weight_zero_point|\.weight_packed|\.weight_shape|\.weight_g_idx)$"
    ),
    "GGML": r"\.(qs|qh)$",
    "HQQ or quanto": r"\.(W_q|weight\._(data|scale|shift))$",
    "MXFP4": r"_(blocks|scales)$",
}
"""Names of tensors that only quantized weights have, by who writes them so."""
LORA = re.compile(
    r"(^|[._/])(lora_(A|B|up|down|magnitude_vector|embedding_(A|B)|E)|hada_w[12]_[ab]|lokr_w[12]|ia3_l|vera_lambda_[bd]|oft_r)(?=[._/]|$)"
)
"""Names of tensors of adapters: factors that are added to a base only through their product."""
CODE_KINDS = ("I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64")
SCALES = re.compile(r"\.(scales?|zeros|zero_point|biases)$")


def require_mergeable(checkpoints: list[Checkpoint]) -> None:
    """Raises UsageError that names every model of codes or of adapters' factors, its tensors, and what to do."""
    quantized = [(c.path, *held) for c in checkpoints if (held := _quantized(c))[0]]
    adapters = [(c.path, names) for c in checkpoints if (names := [name for name in c.tensors if LORA.search(name)])]
    wrong = []
    if quantized:
        listed = "; ".join(f"{path}: {what}{f' ({_first(names)})' if names else ''}" for path, what, names in quantized)
        wrong.append(
            f"quantized weights are codes, whose average is no model: {listed}. Dequantize them first (transformers: "
            "model.dequantize()), or merge the models that they were made of"
        )
    if adapters:
        listed = "; ".join(f"{path} ({_first(names)})" for path, names in adapters)
        wrong.append(
            f"adapters (LoRA and its kin) hold factors, and the average of factors is not that of their products: {listed}. "
            "Name the model that they were trained on: --base FOLDER folds adapters into it first"
        )
    if wrong:
        raise UsageError("; ".join(wrong))


def _quantized(checkpoint: Checkpoint) -> tuple[str, list[str]]:
    for kind, pattern in CODES.items():
        names = [name for name in checkpoint.tensors if re.search(pattern, name)]
        if names:
            return kind, names
    codes = [
        name for name, tensor in checkpoint.tensors.items()
        if tensor.kind in CODE_KINDS and len(tensor.shape) > 1 and name.endswith(("weight", "kernel"))
    ]  # fmt: skip
    if codes:
        return "integer weights", codes
    scales = [name for name in checkpoint.tensors if SCALES.search(name)]
    if scales and any(t.kind in CODE_KINDS and len(t.shape) > 1 for t in checkpoint.tensors.values()):
        return "integers with their scales", scales
    config = configuration(checkpoint)
    if config.get("quantization_config") or config.get("quantization"):
        settings = config.get("quantization_config") or config.get("quantization")
        method = settings.get("quant_method", "") if isinstance(settings, dict) else ""
        return f"config.json has a quantization_config{f' of {method}' if method else ''}", []
    return "", []


def adapter(checkpoint: Checkpoint) -> str:
    """Says that a model holds the factors of an adapter, and which; empty if it does not."""
    names = [name for name in checkpoint.tensors if LORA.search(name)]
    if not names:
        return ""
    return (
        f"{checkpoint.path} is an adapter (LoRA and its kin: {_first(names)}): the average of factors is not the average "
        "of their products, and their scale stands in adapter_config.json. Name the model that it was trained on: "
        "--base FOLDER folds adapters into it first"
    )


def configuration(checkpoint: Checkpoint) -> dict[str, object]:
    """Reads the config.json of a model's folder; empty if there is none or it cannot be read."""
    try:
        config = json.loads((folder(checkpoint) / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def folder(checkpoint: Checkpoint) -> Path:
    """Returns the folder whose configuration and tokenizer describe a model: its own, or the one that its file lies in."""
    return checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent


def _first(names: list[str]) -> str:
    more = f", ... and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
