"""The DINOv2 in an ONNX graph that PyTorch exported, as a Hugging Face folder.

What PyTorch exports keeps the names of most parameters (`backbone.encoder.layer.0.norm1.weight`), but not those of the kernels of dense
layers, which it transposes, nor of the position embeddings, which it cuts in two. A kernel is the one that a MatMul takes whose product
the layer's bias is added to; positions are the arrays of their shapes that a Concat and a Reshape take.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tna_jax.hf import config as hf_config
from tna_jax.hf.model_types import ARCHITECTURES
from tna_jax.io import onnx, safetensors
from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import write_atomic, write_json
from tna_jax.io.tensor_headers import SINGLE

PREFIX = "backbone."
POSITIONS = "embeddings.position_embeddings"
IMAGE_MEAN, IMAGE_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
HEAD_WIDTH = 64
"""Entries of a head, in every published DINOv2: the graph's shapes are computed as it runs, and do not say it."""


def convert(data: bytes, where: str, folder: Path) -> None:
    """Writes config.json, model.safetensors and preprocessor_config.json of the DINOv2 in an ONNX file.

    Args:
      data: the file's bytes.
      where: its name, for messages.
      folder: to write to.

    Raises:
      UsageError: it is no ONNX file, or holds no DINOv2.
    """
    tensors = backbone(onnx.parse(data, where), where)
    safetensors.write(folder / SINGLE, {name: tensors[name] for name in sorted(tensors)}, {"format": "pt"})
    write_atomic(folder / hf_config.CONFIG, hf_config.text(configuration(tensors, where)).encode())
    write_json(folder / "preprocessor_config.json", {
        "image_processor_type": "BitImageProcessor", "do_resize": True, "size": {"shortest_edge": 256}, "resample": 3,
        "do_center_crop": True, "crop_size": {"height": 224, "width": 224}, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": IMAGE_MEAN, "image_std": IMAGE_STD, "do_convert_rgb": True,
    })  # fmt: skip


def backbone(graph: onnx.Graph, where: str) -> dict[str, np.ndarray]:
    """Returns the tensors of the DINOv2 in a graph by their names in a Hugging Face file, float32."""
    tensors = {name.removeprefix(PREFIX): array for name, array in graph.arrays.items() if name.startswith(PREFIX)}
    producers = {output: node for node in graph.nodes for output in node.outputs}
    for node in graph.nodes:
        bias = _one_of(node.inputs, lambda name: name.startswith(PREFIX) and name.endswith(".bias"))
        if node.operator != "Add" or bias is None or bias not in graph.arrays:
            continue
        product = _one_of(node.inputs, lambda name: name in producers and producers[name].operator == "MatMul")
        kernel = product and _one_of(producers[product].inputs, graph.arrays.__contains__)
        if kernel:
            tensors[re.sub("bias$", "weight", bias.removeprefix(PREFIX))] = graph.arrays[kernel].T
    tensors[POSITIONS] = _positions(graph, tensors, where)
    return {name: np.ascontiguousarray(array, np.float32) for name, array in tensors.items()}


def _one_of(names: Sequence[str], is_it: Any) -> str | None:
    found = [name for name in names if is_it(name)]
    return found[0] if len(found) == 1 else None


def _positions(graph: onnx.Graph, tensors: dict[str, np.ndarray], where: str) -> np.ndarray:
    """The position embedding of the class token, and those of the patches behind it: (1, 1 + patches, width)."""
    taken = {"Concat": [], "Reshape": []}  # type: dict[str, list[np.ndarray]]
    for node in graph.nodes:
        for name in node.inputs if node.operator in taken else ():
            array = graph.arrays.get(name)
            if array is not None and not name.startswith(PREFIX) and array.ndim == 3 and array.shape[0] == 1:
                taken[node.operator].append(array)
    first, rest = taken["Concat"], taken["Reshape"]
    if len(first) != 1 or len(rest) != 1 or first[0].shape[1:] != (1, rest[0].shape[2]):
        raise UsageError(f"{where} holds no position embeddings of a DINOv2")
    return np.concatenate([first[0], rest[0]], axis=1)


def configuration(tensors: dict[str, np.ndarray], where: str) -> dict[str, Any]:
    """Returns config.json of a DINOv2 of these tensors."""
    layers = {int(found[1]) for name in tensors if (found := re.match(r"encoder\.layer\.(\d+)\.", name))}
    try:
        patches = tensors["embeddings.patch_embeddings.projection.weight"]
        hidden, width = tensors["encoder.layer.0.mlp.fc1.weight"].shape
        side = round((tensors[POSITIONS].shape[1] - 1) ** 0.5)
        patch = patches.shape[2]
    except (KeyError, ValueError, IndexError) as error:
        raise UsageError(f"{where} holds no DINOv2: {error} is missing or has another shape") from error
    return {
        "model_type": "dinov2", "architectures": [ARCHITECTURES["dinov2", "none"]], "hidden_size": width,
        "num_hidden_layers": len(layers), "num_attention_heads": max(1, width // HEAD_WIDTH), "mlp_ratio": hidden // width,
        "hidden_act": "gelu", "layer_norm_eps": 1e-6, "image_size": side * patch, "patch_size": patch,
        "num_channels": patches.shape[1], "qkv_bias": True, "layerscale_value": 1.0, "use_swiglu_ffn": False,
        "use_mask_token": False, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "drop_path_rate": 0.0,
        "initializer_range": 0.02, "dtype": "float32",
    }  # fmt: skip
