"""LoRA adapters folded into their base: W + (alpha / r) B A, tensor by tensor, while a merge reads them (arXiv 2106.09685, section 4.1).

Adapters are read from safetensors in the naming of PEFT: `base_model.model.LAYER.lora_A.weight`, with `adapter_config.json` beside
them. The merge is then one of whole models, so adapters are averaged through their products, as they should be.
"""

import dataclasses
import json
import math
import re
from typing import Any

import numpy as np

from tna_jax.io.errors import UsageError
from tna_jax.io.tensor_headers import Checkpoint, Tensor
from tna_jax.programs.merge.unmergeable import LORA, folder

PREFIX = "base_model.model."
CONFIG = "adapter_config.json"
FACTORS = re.compile(r"^(?P<layer>.*)\.lora_(?P<embedding>embedding_)?(?P<factor>[AB])(\.default)?(\.weight)?$")


@dataclasses.dataclass(frozen=True)
class Folded(Tensor):
    """A tensor of the base with an adapter's product added; sums run in float32, cast back to the base's dtype."""

    a: Tensor
    b: Tensor
    scale: float
    transposed: bool
    """Whether the base holds (in, out) instead of (out, in): embeddings, and layers of GPT-2."""

    def read(self) -> np.ndarray:
        """Computes all of it."""
        weight = super().read()
        a, b = (factor.read().astype(np.float32) for factor in (self.a, self.b))
        product = b.reshape(len(b), -1) @ a.reshape(len(a), -1)  # (out, r) (r, in ...)
        product = product.T if self.transposed else product
        wide = np.dtype(np.float64 if self.kind == "F64" else np.float32)
        change = np.multiply(product.reshape(self.shape), self.scale, dtype=wide, casting="unsafe")
        folded: np.ndarray = np.add(weight, change, dtype=wide, casting="unsafe").astype(self.dtype)
        return folded


def is_adapter(checkpoint: Checkpoint) -> bool:
    """Whether a model is an adapter."""
    return any(LORA.search(name) for name in checkpoint.tensors)


def fold(adapter: Checkpoint, base: Checkpoint) -> Checkpoint:
    """Returns the model that an adapter makes of its base, with the base's files.

    Raises:
      UsageError: another kind of adapter than LoRA, no configuration, factors without their partner, or layers that the base
        does not have; each is named.
    """
    config = _config(adapter)
    factors, whole, wrong = _sorted(adapter, base)
    tensors: dict[str, Tensor] = dict(base.tensors)
    for name, tensor in whole.items():
        if tensors[name].shape != tensor.shape:
            wrong.append(f"{name} is {list(tensor.shape)}, the base has {list(tensors[name].shape)}")
        tensors[name] = tensor
    for layer, held in factors.items():
        name = f"{layer}.weight"
        if set(held) not in ({"A", "B"}, {"embedding_A", "embedding_B"}):
            wrong.append(f"{layer} has {', '.join(sorted(held))} only")
            continue
        embedding = "embedding_A" in held
        a, b = (held[f"{'embedding_' if embedding else ''}{factor}"] for factor in "AB")
        weight = base.tensors[name]
        transposed = embedding or bool(config.get("fan_in_fan_out"))
        shape = (b.shape[0], *a.shape[1:])
        if (
            a.shape[0] != b.shape[1]
            or math.prod(shape) != weight.size
            or (len(weight.shape) == 2 and shape != (weight.shape[::-1] if transposed else weight.shape))
        ):
            wrong.append(f"{layer}: factors of {list(b.shape)} and {list(a.shape)} do not make {list(weight.shape)}")
            continue
        rank = _of_layer(config.get("rank_pattern"), layer, config.get("r"))
        if rank is not None and rank != a.shape[0]:
            wrong.append(f"{layer}: its factors have rank {a.shape[0]}, {CONFIG} says {rank} (r, rank_pattern)")
            continue
        tensors[name] = Folded(
            weight.file, weight.kind, weight.shape, weight.start, a, b, _scale(config, layer, a.shape[0]), transposed
        )
    if wrong:
        raise UsageError(f"{adapter.path} cannot be folded into {base.path}: {'; '.join(wrong)}")
    return Checkpoint(adapter.path, tensors, base.files, base.metadata)


def _config(adapter: Checkpoint) -> dict[str, Any]:
    file = folder(adapter) / CONFIG
    try:
        config = json.loads(file.read_bytes())
        kind = config.get("peft_type", "LORA")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UsageError(f"{adapter.path} is an adapter without a sound {CONFIG} beside it: {error}") from error
    unlike = [name for name in adapter.tensors if LORA.search(name) and not FACTORS.match(name)]
    if kind != "LORA" or config.get("use_dora") or unlike:
        what = "DoRA" if config.get("use_dora") else kind
        shown = f" ({', '.join(unlike[:3])})" if unlike else ""
        raise UsageError(
            f"{adapter.path} is an adapter of the kind {what}{shown}: only LoRA in PEFT's naming is folded; save it merged into its base"
        )
    _require_scales(adapter, config)
    return dict(config)


def _sorted(adapter: Checkpoint, base: Checkpoint) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor], list[str]]:
    """Returns the factors by the base's layer, the tensors that replace the base's, and what the base does not have."""
    factors: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    wrong = []
    for name, tensor in adapter.tensors.items():
        match = FACTORS.match(name)
        layer = (match["layer"] if match else name).removeprefix(PREFIX).replace(".base_layer", "")
        layer = layer.replace(".modules_to_save.default", "").replace(".modules_to_save", "")
        wanted = f"{layer}.weight" if match else layer
        there = _in_base(wanted, base)
        if there is None:
            wrong.append(f"the base has no {wanted}")
        elif match:
            held = factors.setdefault(there.removesuffix(".weight"), {})
            held[f"{match['embedding'] or ''}{match['factor']}"] = tensor
        else:
            whole[there] = tensor
    return factors, whole, wrong


def _in_base(name: str, base: Checkpoint) -> str | None:
    """Returns what the base calls a tensor: the same, or with or without a prefix where only one fits."""
    if name in base.tensors:
        return name
    fits = [other for other in base.tensors if other.endswith(f".{name}") or name.endswith(f".{other}")]
    return fits[0] if len(fits) == 1 else None


PEFT_ALPHA = 8
"""What PEFT takes for `lora_alpha` where the configuration has none."""


def _scale(config: dict[str, Any], layer: str, rank: int) -> float:
    """Returns alpha / r, or alpha / sqrt(r) (rank-stabilized, arXiv 2312.03732); patterns of single layers come first."""
    alpha = _of_layer(config.get("alpha_pattern"), layer, config.get("lora_alpha", PEFT_ALPHA))
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _of_layer(patterns: dict[str, Any] | None, layer: str, default: Any) -> Any:
    """Returns the value of the first pattern that is the layer's name or its end, as PEFT reads them; where none is, the default."""
    found = (value for pattern, value in (patterns or {}).items() if re.search(rf"(^|\.)({pattern})$", layer))
    return next(found, default)


def _require_scales(adapter: Checkpoint, config: dict[str, Any]) -> None:
    """Raises UsageError for scales that are no numbers, each by the name that it has in the configuration."""
    patterns, ranks = (config.get(name) or {} for name in ("alpha_pattern", "rank_pattern"))
    for name, value in (("alpha_pattern", patterns), ("rank_pattern", ranks)):
        if not isinstance(value, dict):
            raise UsageError(f"{adapter.path}: {name} of {CONFIG} must be a mapping of layers, got {value!r}")
    scales = {"lora_alpha": config.get("lora_alpha", PEFT_ALPHA), **patterns}
    scales |= {"r": config["r"]} if config.get("r") is not None else {}
    wrong = [f"{name} is {value!r}" for name, value in (*scales.items(), *ranks.items()) if not _is_number(value)]
    for pattern in (*patterns, *ranks):
        try:
            re.compile(pattern)
        except re.error as error:
            wrong.append(f"{pattern} is no regular expression ({error})")
    if wrong:
        raise UsageError(f"{adapter.path}: scales in {CONFIG} must be numbers, by layer: {'; '.join(wrong)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
