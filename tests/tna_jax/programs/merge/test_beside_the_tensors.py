"""What goes with merged tensors: heads tied to the embeddings, the tokenizer that one model lacks, the dtype that readers load in."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.tna_jax.programs.merge.folders import folder
from tna_jax.io import tensor_headers
from tna_jax.programs.cli.main import main

EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def language_model(name: str, seed: int, tied: bool = True) -> None:
    """A model that writes its embeddings as its head, or a head of its own."""
    draws = np.random.default_rng(seed)
    embeddings, other = (draws.normal(size=(12, 8)).astype(np.float32) for _ in range(2))
    folder(
        Path(name), seed, held={EMBEDDINGS: embeddings, HEAD: embeddings if tied else other}, tie_word_embeddings=True
    )


@pytest.mark.parametrize("method", ["dare_ties", "average"])
def test_a_head_that_repeats_the_embeddings_does_so_in_the_merge(method):
    for i in range(3):
        language_model(f"m{i}", i)
    options = ["--weight", "embed=0.9 0.1"]  # of the embeddings alone
    assert main(["merge", "m0", "m1", "--base", "m2", "--method", method, "-o", "out", *options]) == 0
    merged = load_file(Path("out") / tensor_headers.SINGLE)
    assert np.array_equal(merged[HEAD], merged[EMBEDDINGS])


def test_weights_of_its_own_for_such_a_head_are_refused(capsys):
    for i in range(2):
        language_model(f"m{i}", i)
    assert main(["merge", "m0", "m1", "-o", "out", "--weight", "lm_head=0.9 0.1"]) == 2
    assert f"{HEAD} repeats {EMBEDDINGS}" in capsys.readouterr().err.replace("\n", " ")


def test_a_head_that_readers_drop_is_told(capsys):
    for i in range(2):
        language_model(f"m{i}", i, tied=i == 0)
    assert main(["merge", "m0", "m1", "-o", "out"]) == 0
    said = json.loads(Path("out/merge.json").read_text())["warnings"][0]
    assert said.startswith(f"m1: {HEAD} differs from {EMBEDDINGS}") and "tie_word_embeddings" in capsys.readouterr().err


def test_a_merge_has_a_tokenizer_where_any_model_has_one():
    for i in range(2):
        folder(Path(f"m{i}"), i)
    Path("m0/vocab.txt").unlink()
    assert main(["merge", "m0", "m1", "-o", "out"]) == 0
    assert Path("out/vocab.txt").read_bytes() == Path("m1/vocab.txt").read_bytes()
    assert "tokenizer" in json.loads(Path("out/merge.json").read_text())["warnings"][-1]


def test_readers_load_a_merge_in_the_dtype_that_was_asked_for():
    for i in range(2):
        folder(
            Path(f"m{i}"), i, torch_dtype="bfloat16", text={"dtype": "bfloat16"}, limits=[0.0, float("inf")]
        )  # as Mamba's
    assert main(["merge", "m0", "m1", "-o", "out", "--dtype", "float32"]) == 0
    config = json.loads(Path("out/config.json").read_text())
    assert (config["torch_dtype"], config["text"]["dtype"], config["limits"]) == (
        "float32",
        "float32",
        [0.0, float("inf")],
    )


def test_a_base_among_the_models_is_told():
    for i in range(2):
        folder(Path(f"m{i}"), i)
    assert main(["merge", "m0", "m1", "--base", "m0", "--method", "ties", "-o", "out"]) == 0
    assert "m0 is the base and one of the models" in json.loads(Path("out/merge.json").read_text())["warnings"][0]


def test_adapters_of_other_bases_are_refused(capsys):
    folder(Path("base"), 0)
    for i, base in enumerate(("meta/first-7b", "other/second-7b", "./copies/First-7b")):
        Path(f"a{i}").mkdir()
        draws = np.random.default_rng(i)
        factors = {f"base_model.model.bert.layer.lora_{k}.weight": draws.normal(size=s).astype(np.float32)
                   for k, s in (("A", (2, 8)), ("B", (8, 2)))}  # fmt: skip
        save_file(factors, f"a{i}/adapter_model.safetensors")
        Path(f"a{i}/adapter_config.json").write_text(json.dumps({"lora_alpha": 4, "base_model_name_or_path": base}))
    assert main(["merge", "a0", "a1", "--base", "base", "-o", "out"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert '"meta/first-7b" in a0 but "other/second-7b" in a1' in said
    assert said.endswith("--allow-different base_model_name_or_path")
    assert main(["merge", "a0", "a2", "--base", "base", "-o", "out"]) == 0  # one model, called otherwise
    Path("a0/vocab.txt").write_text("learned")  # a token that the base does not have
    allowed = ["--allow-different", "tokenizer", "base_model_name_or_path", "--overwrite"]
    assert main(["merge", "a0", "a1", "--base", "base", "-o", "out", *allowed]) == 0
    assert Path("out/vocab.txt").read_text() == "learned"


def test_some_shards_without_their_index_are_no_model(capsys):
    for i in range(2):
        folder(Path(f"m{i}"), i, shards=2)
        Path(f"m{i}", tensor_headers.INDEX).unlink()
        Path(f"m{i}/model-00002-of-00002.safetensors").unlink()
    assert main(["merge", "m0", "m1", "-o", "out"]) == 2
    assert "m0 holds shards of a model (model-00001-of-00002.safetensors) without their index" in " ".join(
        capsys.readouterr().err.split()
    )
