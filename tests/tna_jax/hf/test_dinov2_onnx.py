"""A DINOv2 out of an ONNX graph as PyTorch exports it: kernels without names, positions cut in two."""

import json

import numpy as np
import pytest

from tests.tna_jax.hf.small_models import flat, make
from tests.tna_jax.io.test_onnx import model, node, tensor
from tna_jax.hf import dinov2_onnx, loading
from tna_jax.io import safetensors
from tna_jax.io.errors import UsageError

SIZES = {"width": 128, "heads": None, "mlp": 256}
"""A head has 64 entries in every published one, and the graph does not say."""


def exported(tensors):
    """The file that PyTorch would write of these: dense layers as MatMul and Add, of kernels it has transposed and renamed."""
    arrays, nodes = [], []
    for i, (name, array) in enumerate(tensors.items()):
        if name == dinov2_onnx.POSITIONS:
            arrays += [tensor("onnx::Concat_1", array[:, :1]), tensor("onnx::Reshape_2", array[:, 1:])]
            nodes += [node("Concat", ["onnx::Concat_1", "p"], ["q"]), node("Reshape", ["onnx::Reshape_2", "s"], ["p"])]
        elif array.ndim == 2:
            bias = f"backbone.{name.removesuffix('weight')}bias"
            arrays.append(tensor(f"onnx::MatMul_{i}", np.ascontiguousarray(array.T)))
            inputs = [bias, f"product{i}"] if i % 2 else [f"product{i}", bias]
            nodes += [node("MatMul", ["x", f"onnx::MatMul_{i}"], [f"product{i}"]), node("Add", inputs, [f"sum{i}"])]
        else:
            arrays.append(tensor(f"backbone.{name}", array))
    arrays.append(tensor("decoder.weight", np.ones((3, 3), np.float32)))
    nodes.append(node("Add", ["sum1", "x"], ["residual"]))
    return model(*arrays, nodes=nodes)


@pytest.fixture
def tensors(tmp_path):
    module, params = make("dinov2", "none", **SIZES)
    loading.save("original", module, params)
    return safetensors.read("original/model.safetensors")[0]


def test_what_pytorch_exports_comes_back_bit_for_bit(tensors, tmp_path):
    dinov2_onnx.convert(exported(tensors), "x.onnx", tmp_path)
    held = safetensors.read(tmp_path / "model.safetensors")[0]
    assert held.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(held[name], array, err_msg=name)
    original, converted = loading.load("original"), loading.load(tmp_path)
    assert converted.new == converted.dropped == () and flat(converted.params).keys() == flat(original.params).keys()
    differing = {"eps": 1e-6, "heads": 2}
    assert converted.module == original.module.clone(**differing)
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())["crop_size"]["height"] == 224


def test_a_graph_without_one_is_refused(tensors, tmp_path):
    positions = tensors.pop(dinov2_onnx.POSITIONS)
    with pytest.raises(UsageError, match=r"x.onnx holds no position embeddings of a DINOv2"):
        dinov2_onnx.convert(exported(tensors), "x.onnx", tmp_path)
    with pytest.raises(
        UsageError, match=r"x.onnx holds no DINOv2: 'embeddings.patch_embeddings.projection.weight' is missing"
    ):
        dinov2_onnx.convert(exported({dinov2_onnx.POSITIONS: positions}), "x.onnx", tmp_path)
    with pytest.raises(UsageError, match=r"x.onnx is not an ONNX model"):
        dinov2_onnx.convert(b"nothing", "x.onnx", tmp_path)
