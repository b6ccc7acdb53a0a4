"""What would be merged into nonsense is refused by name: other labels, tokenizers, quantized codes, adapters, two layouts."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.tna_jax.programs.merge.folders import BASE, HEAD, folder, tensors
from tna_jax.io import tensor_headers
from tna_jax.programs.cli.main import main


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(capsys, *words: str) -> str:
    code = main(["merge", *words, "-o", "out"])
    message = " ".join(capsys.readouterr().err.split())
    assert code == 2 and not Path("out").exists(), message
    return message


CHANGES = [
    (
        {"id2label": {"0": "POS", "1": "NEG"}, "label2id": {"POS": 0, "NEG": 1}},
        "id2label",
        ('{"0": "NEG"', '{"0": "POS"'),
    ),
    ({"num_attention_heads": 4}, "num_attention_heads", ("is 2 in", "but 4 in")),
    ({"layer_norm_eps": 1e-5}, "layer_norm_eps", ("1e-12", "1e-05")),
    ({"hidden_act": "relu"}, "hidden_act", ('"gelu"', '"relu"')),
    ({"hidden_act": None}, "hidden_act", ('"gelu"', "not written")),
    ({"model_type": "roberta"}, "model_type", ('"bert"', '"roberta"')),
    ({"architectures": ["BertForTokenClassification"]}, "architectures", ("Sequence", "Token")),
    ({"tie_word_embeddings": False}, "tie_word_embeddings", ("not written", "false")),
    ({"position_embedding_type": "relative_key"}, "position_embedding_type", ("relative_key",)),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling", ("linear",)),
    ({"vision_config": {"patch_size": 16}}, "vision_config", None),
    ({"some_new_switch": True}, "some_new_switch", None),
]


@pytest.mark.parametrize(("changes", "field", "values"), CHANGES)
def test_what_changes_the_function_is_refused_with_both_values(tmp_path, capsys, changes, field, values):
    folder(tmp_path / "a", 0)
    folder(tmp_path / "b", 1, **changes)
    if values is None:  # a field that only one writes, and nobody knows here: told
        assert main(["merge", "a", "b", "-o", "out"]) == 0
        assert field in json.loads(Path("out/merge.json").read_text())["differences"][0]["field"]
        return
    message = refused(capsys, "a", "b")
    assert message.endswith(f"--allow-different {field}") and all(value in message for value in values)
    assert main(["merge", "a", "b", "-o", "out", "--allow-different", field]) == 0
    report = json.loads(Path("out/merge.json").read_text())
    assert report["differences"][0]["field"] == field and "allowed" in report["warnings"][0]


def test_a_field_that_nobody_knows_is_refused_where_both_write_it(tmp_path, capsys):
    folder(tmp_path / "a", 0, new_switch=1)
    folder(tmp_path / "b", 1, new_switch=2)
    assert "new_switch is 1 in a but 2 in b" in refused(capsys, "a", "b")


def test_what_does_not_change_the_function_is_told(tmp_path, capsys):
    folder(tmp_path / "a", 0, transformers_version="4.1", hidden_dropout_prob=0.1)
    folder(
        tmp_path / "b", 1, transformers_version="4.9", hidden_dropout_prob=0.0, pad_token_id=1, tie_word_embeddings=True
    )
    assert main(["merge", "a", "b", "-o", "out"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "warning: hidden_dropout_prob is 0.1 in a but 0.0 in b" in told and "pad_token_id is 0" in told
    fields = {difference["field"] for difference in json.loads(Path("out/merge.json").read_text())["differences"]}
    assert fields == {"hidden_dropout_prob", "pad_token_id"}


def test_the_padding_counts_where_positions_are_counted_from_it(tmp_path, capsys):
    folder(tmp_path / "a", 0, model_type="roberta")
    folder(tmp_path / "b", 1, model_type="roberta", pad_token_id=1)
    assert "pad_token_id is 0 in a but 1 in b" in refused(capsys, "a", "b")


def test_files_are_compared_by_the_configuration_beside_them(tmp_path, capsys):
    folder(tmp_path / "a", 0)
    folder(tmp_path / "b", 1, hidden_act="relu")
    assert "hidden_act" in refused(capsys, "a/model.safetensors", "b/model.safetensors")


def test_configurations_of_inner_folders_and_chat_templates_are_compared(tmp_path, capsys):
    for name, pooling, template in (("a", True, "{{ a }}"), ("b", False, "{{ b }}")):
        folder(tmp_path / name, ord(name))
        (tmp_path / name / "1_Pooling").mkdir()
        (tmp_path / name / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": pooling}))
        (tmp_path / name / "generation_config.json").write_text(json.dumps({"temperature": ord(name)}))
        (tmp_path / name / "chat_template.jinja").write_text(template)
    message = refused(capsys, "a", "b")
    assert "pooling_mode_mean_tokens of 1_Pooling/config.json is true in a but false in b" in message
    assert "chat_template of chat_template.jinja" in message and "temperature" not in message
    assert main(["merge", "a", "b", "-o", "out", "--allow-different", "chat_template", "pooling_mode_mean_tokens"]) == 0
    assert "temperature of generation_config.json is 97 in a but 98 in b" in " ".join(capsys.readouterr().err.split())
    assert json.loads(Path("out/1_Pooling/config.json").read_text()) == {"pooling_mode_mean_tokens": True}


def fast(tokens: dict[str, int], added: tuple[str, ...] = (), **other) -> str:
    """A tokenizer.json."""
    extra = [{"id": len(tokens) + i, "content": token, "special": True} for i, token in enumerate(added)]
    return json.dumps(
        {"model": {"type": "BPE", "vocab": tokens, "merges": other.pop("merges", [])}, "added_tokens": extra, **other}
    )


TOKENS = {f"t{i}": i for i in range(4)}
TOKENIZERS = {
    "an added token": ({"tokenizer.json": fast(TOKENS, ("<x>",))}, {"tokenizer.json": fast(TOKENS, ("<y>",))}, "'<x>'=4 '<y>'=none"),
    "order": ({"tokenizer.json": fast(TOKENS)}, {"tokenizer.json": fast(TOKENS | {"t0": 1, "t1": 0})}, "'t0'=0 't1'=1 in a but 't0'=1 't1'=0 in b"),
    "merges": ({"tokenizer.json": fast(TOKENS, merges=["a b"])}, {"tokenizer.json": fast(TOKENS, merges=["b a"])}, "tokenizer: merges"),
    "a step": (
        {"tokenizer.json": fast(TOKENS, normalizer={"type": "Lowercase"})}, {"tokenizer.json": fast(TOKENS, normalizer=None)},
        "tokenizer.json:normalizer",
    ),
    "two forms": ({"tokenizer.json": fast(TOKENS)}, {"vocab.txt": "t1\nt0\nt2\nt3\n"}, "numbers of 2 tokens"),
    "binary": ({"spiece.model": "one"}, {"spiece.model": "two"}, "spiece.model"),
    "unigram scores": (
        {"tokenizer.json": json.dumps({"model": {"type": "Unigram", "vocab": [["a", -1.0], ["b", -2.0]]}})},
        {"tokenizer.json": json.dumps({"model": {"type": "Unigram", "vocab": [["a", -1.0], ["b", -3.0]]}})},
        "scores of the unigrams",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TOKENIZERS)
def test_tokenizers_are_compared_as_maps(tmp_path, capsys, case):
    ours, theirs, words = TOKENIZERS[case]
    for name, files in (("a", ours), ("b", theirs)):
        folder(tmp_path / name, ord(name))
        (tmp_path / name / "vocab.txt").unlink()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
    message = refused(capsys, "a", "b")
    assert words in message and message.endswith("--allow-different tokenizer")


def test_two_forms_of_one_tokenizer_are_one(tmp_path):
    folder(tmp_path / "a", 0, vocabulary=list(TOKENS))
    folder(tmp_path / "b", 1)
    (tmp_path / "b" / "vocab.txt").unlink()
    (tmp_path / "b" / "tokenizer.json").write_text(fast(TOKENS))
    assert main(["merge", "a", "b", "-o", "out"]) == 0


def test_of_many_tokens_the_first_ten_are_named(tmp_path, capsys):
    folder(tmp_path / "a", 0)
    folder(tmp_path / "b", 1, vocabulary=[f"word{i}" for i in reversed(range(12))])
    message = refused(capsys, "a", "b")
    assert "numbers of 12 tokens" in message and "'word9'=9 ..." in message and "'word10'" not in message


CODES = {
    "bitsandbytes": {"layer.weight": np.ones((2, 2), np.int8), "layer.SCB": np.ones(2, np.float32)},
    "bitsandbytes 4 bits": {"layer.weight": np.ones((2, 1), np.uint8), "layer.weight.absmax": np.ones(2, np.float32)},
    "GPTQ": {"layer.qweight": np.ones((2, 2), np.int32), "layer.scales": np.ones((1, 2), np.float16)},
    "FP8": {"layer.weight": np.ones((2, 2), np.float32), "layer.weight_scale_inv": np.ones((1, 1), np.float32)},
    "compressed-tensors": {"layer.weight": np.ones((2, 2), np.float32), "layer.weight_scale": np.ones(1, np.float32)},
    "integers": {"layer.weight": np.ones((2, 2), np.int8)},
    "MXFP4": {
        "experts.gate_up_proj_blocks": np.ones((2, 2), np.uint8),
        "experts.gate_up_proj_scales": np.ones(2, np.uint8),
    },
}


@pytest.mark.parametrize("case", CODES)
def test_quantized_weights_are_refused_by_name(tmp_path, capsys, case):
    for name in "ab":
        folder(tmp_path / name, 0, held=CODES[case])
    message = refused(capsys, "a", "b")
    assert "quantized weights are codes" in message and "a: " in message and "; b: " in message
    assert any(name in message for name in CODES[case])


def test_a_configuration_of_quantized_weights_is_refused_and_scales_of_a_network_are_not(tmp_path, capsys):
    for name in "ab":
        folder(tmp_path / name, ord(name), quantization_config={"quant_method": "awq"})
        folder(
            tmp_path / f"{name}2",
            ord(name),
            held={"layer.scales": np.ones((2, 2), np.float32), "w": np.ones(2, np.float32)},
        )
    assert "quantization_config of awq" in refused(capsys, "a", "b")
    assert main(["merge", "a2", "b2", "-o", "out"]) == 0


def test_a_folder_of_two_layouts_is_refused(tmp_path, capsys):
    folder(tmp_path / "a", 0)
    folder(tmp_path / "b", 1, shards=2)
    save_file(tensors(5), tmp_path / "b" / tensor_headers.SINGLE)
    assert "b holds two models, model.safetensors and the shards of" in refused(capsys, "a", "b")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a pointer of Git LFS"),
        (b"<!DOCTYPE html><html></html>", "a web page"), (b"<html>", "a web page"), (b"GGUF\x03\0\0\0\0\0\0", "a GGUF file"),
    ],
)  # fmt: skip
def test_files_that_are_something_else_are_named(tmp_path, capsys, content, words):
    folder(tmp_path / "a", 0)
    folder(tmp_path / "b", 1)
    (tmp_path / "b" / tensor_headers.SINGLE).write_bytes(content)
    assert words in refused(capsys, "a", "b")


@pytest.mark.parametrize("name", ["x.safetensor", "x.SAFETENSORS", "x.Safetensors", "x.safetensros", "x.safe-tensors"])
def test_a_misspelt_ending_is_no_folder(tmp_path, capsys, name):
    folder(tmp_path / "a", 0)
    folder(tmp_path / "b", 1)
    assert main(["merge", "a", "b", "-o", name]) == 2
    assert "did you mean x.safetensors?" in capsys.readouterr().err and not Path(name).exists()


@pytest.mark.parametrize("words", [("1e308", "1e308"), ("inf", "1"), ("nan", "1"), ("1", "-1")])
def test_weights_that_have_no_sum_are_refused(tmp_path, capsys, words):
    folder(tmp_path / "a", 0)
    folder(tmp_path / "b", 1)
    assert "must be finite, and their sum not 0" in refused(capsys, "a", "b", "--weights", *words)


def test_models_that_are_not_close_are_merged_with_a_warning(tmp_path, capsys):
    folder(tmp_path / "a", 0)
    folder(tmp_path / "b", 1)
    own = np.random.default_rng(5)
    folder(
        tmp_path / "far", 2, held={BASE: own.normal(size=(8, 8)).astype(np.float32), HEAD: np.zeros((2, 8), np.float32)}
    )
    assert main(["merge", "a", "b", "-o", "near"]) == 0
    assert "not close" not in capsys.readouterr().err
    assert main(["merge", "a", "b", "far", "-o", "out"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "These models are not close (cosine of their weights): far and a (" in told and "b and a" not in told
    near = json.loads(Path("near/merge.json").read_text())["similarity"]
    a, b = (
        np.concatenate([load_file(f"{name}/model.safetensors")[k].ravel() for k in (BASE, HEAD)]).astype(float)
        for name in "ab"
    )
    assert near["cosines"][0][1] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-6)
    assert near["distances"][0][1] == pytest.approx(np.linalg.norm(a - b), rel=1e-5)
    assert near["distance_to_mean"] == pytest.approx([np.linalg.norm(a - b) / 2] * 2, rel=1e-5)
    assert near["length_of_mean"] == pytest.approx(np.linalg.norm((a + b) / 2), rel=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 2])
def test_nothing_is_said_of_how_near_a_model_is_that_is_not_finite(tmp_path, capsys, value, place):
    """Its cosine came out as -1, and with it the warning that it was trained apart."""
    names = ["a", "b"]
    names.insert(place, "bad")
    for name in names:
        folder(tmp_path / name, 0 if name == "bad" else 1 + "ab".index(name))
    broken = load_file("bad/model.safetensors")
    broken[HEAD][0, 0] = value
    save_file(broken, "bad/model.safetensors")
    assert main(["merge", *names, "-o", "out"]) == 0
    told = capsys.readouterr()
    assert "not close" not in told.err and "NaN or infinite" in " ".join(told.err.split())
    near = json.loads(Path("out/merge.json").read_text())["similarity"]
    cosines = near["cosines"]
    assert all(cosines[place][j] is None and cosines[j][place] is None for j in range(3) if j != place)
    assert place == 0 or cosines[0][1] > 0.9  # of models that are finite, beside a first one that is
    (row,) = (line.split() for line in told.out.splitlines() if line.split()[:1] == ["bad"])
    assert row[2:] == ["–", "–"]


def test_one_prefix_in_front_of_everything_is_said_in_one_line(tmp_path, capsys):
    folder(tmp_path / "a", 0)
    folder(tmp_path / "b", 1, held={f"model.{name}": value for name, value in tensors(1).items()})
    message = refused(capsys, "a", "b")
    assert "b names everything with 'model.' in front: --strip-prefix model. takes it off" in message
    assert main(["merge", "a", "b", "-o", "out", "--strip-prefix", "model."]) == 0
    assert set(load_file("out/model.safetensors")) == {BASE, HEAD}
    assert main(["merge", "a", "b", "-o", "out2", "--add-prefix", "model."]) == 0
    assert set(load_file("out2/model.safetensors")) == {f"model.{name}" for name in (BASE, HEAD)}


def in_front(prefix, held, **head):
    return {prefix + name: array for name, array in held.items()} | head


def test_prefixes_of_both_and_of_a_body_alone_are_said_in_one_line_that_works(tmp_path, capsys):
    held = {"layer.weight": np.ones((2, 2), np.float32), "layer.bias": np.ones(2, np.float32)}
    head = {"classifier.weight": np.ones((3, 2), np.float32)}
    for name, tensors_ in {
        "a": in_front("bert.", held), "b": in_front("module.net.", held), "bare": held, "headed": in_front("bert.", held, **head),
        "bare_headed": in_front("", held, **head),
    }.items():  # fmt: skip
        folder(tmp_path / name, 0, held=tensors_)
    message = refused(capsys, "a", "b")
    assert "a names everything with 'bert.' in front and b names everything with 'module.net.' in front" in message
    assert "--strip-prefix bert. module.net. takes them off" in message
    assert main(["merge", "a", "b", "-o", "both", "--strip-prefix", "bert.", "module.net."]) == 0
    assert set(load_file("both/model.safetensors")) == set(held)
    message = refused(capsys, "bare_headed", "headed")
    assert message.endswith("headed names 2 of 3 tensors with 'bert.' in front: --strip-prefix bert. takes it off")
    assert main(["merge", "bare_headed", "headed", "-o", "body", "--strip-prefix", "bert."]) == 0
    message = refused(capsys, "bare", "headed")
    assert "then one of them lacks classifier.weight: --skip leaves tensors out" in message
    assert main(["merge", "bare", "headed", "-o", "rest", "--strip-prefix", "bert.", "--skip", "classifier"]) == 0
    assert "--strip-prefix brt.: no tensor's name begins so" in refused(
        capsys, "a", "b", "--strip-prefix", "brt.", "bert."
    )
    message = refused(capsys, "a", "b", "--strip-prefix", "bert.", "--strip-prefix", "module.net.")
    assert "--strip-prefix is given 2 times: write its values behind one, --strip-prefix PREFIX PREFIX" in message


def test_a_cache_of_the_hub_is_its_only_model_and_of_several_all_are_named(tmp_path, capsys):
    folder(tmp_path / "a", 0)
    for cache, name in (("one", "m"), ("two", "m"), ("two", "n")):
        model = tmp_path / cache / "hub" / f"models--org--{name}"
        folder(model / "snapshots" / "abc", 1)
        (model / "refs").mkdir()
        (model / "refs" / "main").write_text("abc")
    message = refused(capsys, "a", "two")
    assert "two is a cache of 2 models; name one of them: two/hub/models--org--m, two/hub/models--org--n" in message
    for i, name in enumerate(("one", "one/hub", "one/hub/models--org--m")):
        assert main(["merge", "a", name, "-o", f"out{i}"]) == 0


def test_vocabularies_of_other_sizes_are_refused_with_both_shapes(tmp_path, capsys):
    for name, size in (("a", 12), ("b", 13)):
        folder(tmp_path / name, 0, held={"embed_tokens.weight": np.zeros((size, 4), np.float32)})
    message = refused(capsys, "a", "b")
    assert "[12, 4] in a but [13, 4] in b" in message and "resize_token_embeddings" in message
