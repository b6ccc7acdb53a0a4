"""`tna merge` of LoRA adapters: through their products, with the scales and ranks of PEFT."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.tna_jax.programs.merge.folders import BASE, HEAD, tensors
from tests.tna_jax.programs.merge.running import refused, run

pytestmark = pytest.mark.usefixtures("checkpoints")


def adapter(path: Path, seed: int, alpha: float, **config) -> tuple[np.ndarray, np.ndarray]:
    """A LoRA adapter of the layer, as PEFT saves it."""
    path.mkdir()
    r = np.random.default_rng(seed)
    a, b = r.normal(size=(2, 8)).astype(np.float32), r.normal(size=(8, 2)).astype(np.float32)
    b[0] = 0
    name = f"base_model.model.{BASE.removesuffix('.weight')}"
    save_file({f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}, path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": alpha} | config))
    return a, b


@pytest.mark.parametrize(
    "config", [{}, {"use_rslora": True}, {"fan_in_fan_out": True}, {"alpha_pattern": {"layer": 7}}]
)
def test_adapters_are_merged_through_their_products(tmp_path, capsys, config):
    base = tensors(3)
    deltas = []
    for name, seed, alpha in (("x", 5, 4), ("y", 6, 16)):
        a, b = adapter(tmp_path / name, seed, alpha, **config)
        scale = config.get("alpha_pattern", {}).get("layer", alpha) / (2**0.5 if "use_rslora" in config else 2)
        deltas.append(scale * ((b @ a).T if "fan_in_fan_out" in config else b @ a))
    assert "the average of factors is not that of their products" in refused(capsys, "x", "y")
    merged = run("x", "y", "--base", "base")
    np.testing.assert_allclose(merged[BASE], base[BASE] + (deltas[0] + deltas[1]) / 2, rtol=1e-5, atol=1e-5)
    assert merged[HEAD].tobytes() == base[HEAD].tobytes()
    one = run("x", "--base", "base", "--method", "task_arithmetic", "--method-options", "strength=1")
    np.testing.assert_allclose(one[BASE], base[BASE] + deltas[0], rtol=1e-5, atol=1e-5)
    beside = run("a", "x", "--base", "base")  # an adapter beside a whole model
    np.testing.assert_allclose(beside[BASE], (tensors(0)[BASE] + base[BASE] + deltas[0]) / 2, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"lora_alpha": "x"}, "lora_alpha is 'x'"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
        ({"alpha_pattern": [1]}, "alpha_pattern of adapter_config.json must be a mapping of layers, got [1]"),
        ({"alpha_pattern": {"layer": True, "(": 4}}, "layer is True; ( is no regular expression"),
    ],
)
def test_scales_of_adapters_that_are_no_numbers_are_refused(tmp_path, capsys, config, said):
    adapter(tmp_path / "x", 5, 4, **config)
    assert said in refused(capsys, "x", "a", "--base", "base")


def test_an_adapter_without_a_scale_has_that_of_peft(tmp_path):
    a, b = adapter(tmp_path / "x", 5, 4)
    (tmp_path / "x" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2}))
    merged = run("x", "--base", "base", "--method", "task_arithmetic", "--method-options", "strength=1")
    np.testing.assert_allclose(merged[BASE], tensors(3)[BASE] + 8 / 2 * (b @ a), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"r": 8}, "layer: its factors have rank 2, adapter_config.json says 8 (r, rank_pattern)"),
        ({"rank_pattern": {"layer": 4}}, "its factors have rank 2, adapter_config.json says 4"),
        ({"rank_pattern": [2]}, "rank_pattern of adapter_config.json must be a mapping of layers, got [2]"),
        ({"r": "2"}, "r is '2'"),
        ({"r": 8, "rank_pattern": {"layer": 2}}, ""),
        ({"r": 8, "rank_pattern": {"other|layer": 2, "layer": 4}}, ""),  # PEFT takes the first that fits
        ({"rank_pattern": {"ayer": 4}}, ""),
    ],
)
def test_adapters_whose_rank_is_not_the_written_one_are_refused(tmp_path, capsys, config, said):
    a, b = adapter(tmp_path / "x", 5, 4, **config)
    if said:
        assert said in refused(capsys, "x", "a", "--base", "base")
        return
    merged = run("x", "--base", "base", "--method", "task_arithmetic", "--method-options", "strength=1")
    np.testing.assert_allclose(merged[BASE], tensors(3)[BASE] + 4 / 2 * (b @ a), rtol=1e-5, atol=1e-5)


def test_adapters_that_cannot_be_folded_are_refused_by_name(tmp_path, capsys):
    adapter(tmp_path / "x", 5, 4)
    adapter(tmp_path / "dora", 6, 4, use_dora=True)
    adapter(tmp_path / "ia3", 6, 4, peft_type="IA3")
    assert "dora is an adapter of the kind DoRA" in refused(capsys, "x", "dora", "--base", "base")
    assert "ia3 is an adapter of the kind IA3" in refused(capsys, "x", "ia3", "--base", "base")
    save_file(
        {"base_model.model.gone.lora_A.weight": np.ones((2, 8), np.float32)},
        tmp_path / "x" / "adapter_model.safetensors",
    )
    assert "the base has no gone.weight" in refused(capsys, "x", "a", "--base", "base")
