"""Hugging Face folders without torch: names, round trips, shards, new heads, and folders that are refused."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import slow, slow_but
from tna_jax import models, trees
from tna_jax.hf import config as hf_config
from tna_jax.hf import hub as hf_hub
from tna_jax.hf import loading, tokenizer, validation
from tna_jax.hf import names as hf_names
from tna_jax.hf.config import shapes_of
from tna_jax.hf.model_types import ARCHITECTURES, TYPES, architecture
from tna_jax.io import safetensors, tensor_headers
from tna_jax.io.errors import UsageError
from tna_jax.programs.training import backbone

SIZES = {"width": 8, "depth": 1, "heads": 2, "mlp": 12}
TEXT = SIZES | {"vocab": 11, "positions": 9}
IMAGE = SIZES | {"patch": 4, "image_size": 8}
NETWORKS = {
    "vit": ("vit", IMAGE),
    "deit": ("vit", IMAGE | {"distilled": True}),
    "llama": ("llama", TEXT | {"kv_heads": 1, "head_dim": 4}),
}
"""By architecture, the network and its options; of all others the network has the architecture's name."""


def network(kind, head):
    name, options = NETWORKS.get(architecture(kind), (architecture(kind), TEXT))
    biases = {"qkv_bias": True} if kind == "qwen2" else {}
    return name, options | biases | {"head": head}


MODELS = {case: network(*case) for case in ARCHITECTURES}
KEY = jax.random.key(0)


def make(kind, head, **more):
    name, options = MODELS[kind, head]
    module = models.create(name, **options | more)
    draws = np.random.default_rng(0)
    leaves = {path: draws.normal(size=shape).astype(np.float32) for path, shape in shapes_of(module, 3).items()}
    return module, loading.tree(leaves)


def flat(tree):
    return {trees.name(path): np.asarray(leaf) for path, leaf in trees.named_leaves(tree)}


def same(one, two):
    one, two = flat(one), flat(two)
    return one.keys() == two.keys() and all(one[n].tobytes() == two[n].tobytes() for n in one)


def refused(*arguments, **options) -> str:
    with pytest.raises(UsageError) as error:
        loading.load(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def both(name):
    return [f"{name}.weight", f"{name}.bias"]


BERT_LAYER = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
              "intermediate.dense", "output.dense", "attention.output.LayerNorm", "output.LayerNorm"]  # fmt: skip
VIT_LAYER = ["attention.attention.query", "attention.attention.key", "attention.attention.value", "attention.output.dense",
             "intermediate.dense", "output.dense", "layernorm_before", "layernorm_after"]  # fmt: skip
DISTIL_LAYER = ["attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2",
                "sa_layer_norm", "output_layer_norm"]  # fmt: skip
GPT2_LAYER = ["ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"]
LLAMA_LAYER = ["input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
               "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]  # fmt: skip
EMBEDDINGS = [
    "embeddings.word_embeddings.weight",
    "embeddings.position_embeddings.weight",
    *both("embeddings.LayerNorm"),
]
TOKEN_TYPES = ["embeddings.token_type_embeddings.weight"]
PATCHES = ["embeddings.cls_token", "embeddings.position_embeddings", *both("layernorm"),
           *both("embeddings.patch_embeddings.projection")]  # fmt: skip
BODY = {
    "vit": ("vit", "encoder.layer.0.", VIT_LAYER, PATCHES),
    "deit": ("deit", "encoder.layer.0.", VIT_LAYER, [*PATCHES, "embeddings.distillation_token"]),
    "bert": ("bert", "encoder.layer.0.", BERT_LAYER, EMBEDDINGS + TOKEN_TYPES),
    "roberta": ("roberta", "encoder.layer.0.", BERT_LAYER, EMBEDDINGS + TOKEN_TYPES),
    "distilbert": ("distilbert", "transformer.layer.0.", DISTIL_LAYER, EMBEDDINGS),
    "gpt2": ("transformer", "h.0.", GPT2_LAYER, ["wte.weight", "wpe.weight", *both("ln_f")]),
    "llama": ("model", "layers.0.", LLAMA_LAYER, ["embed_tokens.weight", "norm.weight"]),
}
OTHER_PREFIX = {"ernie": "ernie", "data2vec-text": "data2vec_text"}
ROBERTA_CLASSES = both("classifier.dense") + both("classifier.out_proj")
ENDS = {
    ("vit", "classes"): both("classifier"),
    ("deit", "classes"): both("classifier"),
    ("bert", "classes"): both("classifier"),
    ("bert", "masked_lm"): ["cls.predictions.bias", *both("cls.predictions.transform.dense"),
                            *both("cls.predictions.transform.LayerNorm")],
    ("roberta", "classes"): ROBERTA_CLASSES,
    ("roberta", "masked_lm"): ["lm_head.bias", *both("lm_head.dense"), *both("lm_head.layer_norm")],
    ("distilbert", "classes"): both("pre_classifier") + both("classifier"),
    ("distilbert", "masked_lm"): [*both("vocab_transform"), *both("vocab_layer_norm"), "vocab_projector.bias"],
    ("gpt2", "classes"): ["score.weight"], ("gpt2", "causal_lm"): [],
    ("llama", "classes"): ["score.weight"], ("llama", "causal_lm"): ["lm_head.weight"],
}  # fmt: skip


def names_of(kind, head):
    """The names as transformers writes them, by hand."""
    of = architecture(kind)
    prefix, layer, parts, rest = BODY[of]
    body = [name for part in parts for name in both(layer + part) if of != "llama" or name.endswith("weight")]
    body += [f"{layer}self_attn.{part}_proj.bias" for part in "qkv" if kind == "qwen2"] + rest
    if head == "pooled" or (of, head) == ("bert", "classes"):
        body += both("pooler.dense")
    if head in ("pooled", "none"):
        return set(body)
    return {f"{OTHER_PREFIX.get(kind, prefix)}.{name}" for name in body} | set(ENDS[of, head])


@pytest.mark.parametrize(
    ("kind", "head"),
    slow_but([("deit", "classes"), ("xlm-roberta", "classes"), ("gpt2", "causal_lm"), ("qwen2", "causal_lm")], MODELS),
)
def test_every_leaf_has_its_name_and_a_folder_comes_back_bit_for_bit(kind, head):
    module, params = make(kind, head)
    files = loading.save("one", module, params, {"model_type": kind})
    assert {file.name for file in files} == {"config.json", "model.safetensors"}
    held, metadata = safetensors.read("one/model.safetensors")
    assert set(held) == names_of(kind, head) and metadata == {"format": "pt"}
    config = json.loads(Path("one/config.json").read_text())
    assert (config["model_type"], config["architectures"]) == (kind, [ARCHITECTURES[kind, head]])
    found = loading.load("one")
    assert (found.new, found.dropped) == ((), ()) and same(found.params, params)
    assert found.module == module
    loading.save("two", found.module, found.params, found.config)
    for name in ("config.json", "model.safetensors"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()


@pytest.mark.parametrize("case", MODELS, ids="-".join)
def test_the_table_is_one_to_one_and_has_no_entry_that_is_never_used(case):
    _, params = make(*case)
    kind, head = case
    places = {path: hf_names.place(kind, head, path, leaf.ndim) for path, leaf in flat(params).items()}
    assert len({place.name for place in places.values()}) == len(places)
    for path, place in places.items():
        leaf = flat(params)[path]
        assert place.outward(leaf).shape == place.shape(leaf.shape)
        assert place.inward(place.outward(leaf)).tobytes() == leaf.tobytes()
    used = {path.rpartition("/")[0] for path in places} | set(places)
    head_table = hf_names.HEADS.get((architecture(kind), head), {})
    assert set(head_table) <= used
    every = {name.replace("*", "0") for name in hf_names.BODIES[architecture(kind)]}
    assert {f"body/{name}" for name in every} - used <= {"body/pooler/dense"}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_read_into_float32_and_written_back_bit_for_bit(dtype):
    module, params = make("bert", "classes")
    loading.save("one", module, params, dtype=dtype)
    assert {str(array.dtype) for array in safetensors.read("one/model.safetensors")[0].values()} == {dtype}
    found = loading.load("one")
    assert {leaf.dtype for leaf in jax.tree.leaves(found.params)} == {np.dtype("float32")}
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.dtype(dtype)).astype(np.float32), params)
    assert same(found.params, rounded) and not same(found.params, params)
    loading.save("two", found.module, found.params, found.config, dtype=dtype)
    for name in ("config.json", "model.safetensors"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()


def test_shards_are_read_and_written():
    module, params = make("roberta", "masked_lm")
    files = loading.save("shards", module, params, shard_bytes=700)
    index = json.loads(Path("shards", tensor_headers.INDEX).read_text())
    shards = sorted(set(index["weight_map"].values()))
    assert len(shards) > 3 and shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    assert {file.name for file in files} == {*shards, tensor_headers.INDEX, "config.json"}
    assert index["metadata"]["total_size"] == sum(leaf.nbytes for leaf in flat(params).values())
    for shard in shards:
        held = safetensors.read(f"shards/{shard}")[0]
        assert sum(array.nbytes for array in held.values()) <= 700 or len(held) == 1
    assert same(loading.load("shards").params, params)
    Path("shards", shards[1]).unlink()
    assert f"cannot read shards/{shards[1]}" in refused("shards")
    loading.save("shards", module, params, overwrite=True)  # in one file: no shard is left beside it
    assert sorted(file.name for file in Path("shards").iterdir()) == ["config.json", "model.safetensors"]
    assert same(loading.load("shards").params, params)


def edited(folder, change):
    """A folder with its arrays or its config.json changed."""
    held = safetensors.read(f"{folder}/model.safetensors")[0]
    config = json.loads(Path(folder, "config.json").read_text())
    change(held, config)
    safetensors.write(f"{folder}/model.safetensors", held)
    Path(folder, "config.json").write_text(json.dumps(config))


def test_all_that_does_not_fit_is_named_at_once():
    loading.save("one", *make("bert", "classes"))
    name = "bert.encoder.layer.0.attention.self.{}.weight"

    def change(held, config):
        del held[name.format("query")], held["classifier.bias"]
        held[name.format("key")] = np.zeros((8, 7), np.float32)
        held[name.format("value")] = np.zeros((8, 8), np.int32)
        held["bert.extra"] = held["decoder.weight"] = np.zeros(1, np.float32)

    edited("one", change)
    message = refused("one")
    for part in (
        f"missing: {name.format('query')}, classifier.bias;", "too many: bert.extra, decoder.weight;",
        f"{name.format('key')} ([8, 7] instead of [8, 8])", f"not floating-point: {name.format('value')} (I32)",
    ):  # fmt: skip
        assert part in message


@pytest.mark.slow
def test_a_new_head_stands_on_the_same_body_and_follows_its_key():
    module, params = make("bert", "masked_lm")
    loading.save("pretrained", module, params)
    found, again, other = (
        loading.load("pretrained", head="new", num_classes=5, key=jax.random.key(i)) for i in (0, 0, 1)
    )
    assert found.module.head == "classes" and found.module.num_classes == 5
    assert set(found.new) == {"head/kernel", "head/bias", "body/pooler/dense/kernel", "body/pooler/dense/bias"}
    assert set(found.dropped) == {name for name in names_of("bert", "masked_lm") if name.startswith("cls.")}
    ours, body = flat(found.params), flat(params)
    assert all(ours[path].tobytes() == body[path].tobytes() for path in ours if path not in found.new)
    assert same(found.params, again.params)
    assert ours["head/kernel"].shape == (8, 5)
    assert not np.array_equal(ours["head/kernel"], flat(other.params)["head/kernel"])
    loading.save("tuned", found.module, found.params, found.config)
    config = json.loads(Path("tuned/config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"] and len(config["id2label"]) == 5
    assert loading.load("tuned").module.num_classes == 5
    bare = loading.load("tuned", head="none")
    assert set(bare.dropped) == {"classifier.weight", "classifier.bias", *(f"bert.{n}" for n in both("pooler.dense"))}


def test_a_classifier_of_the_folder_is_replaced_by_a_new_one_of_the_same_size():
    module, params = make("roberta", "classes")
    loading.save("one", module, params)
    found = loading.load("one", head="new", num_classes=2, key=KEY)
    assert set(found.new) == {path for path in flat(params) if path.startswith("head")}
    assert not np.array_equal(flat(found.params)["head/out/kernel"], flat(params)["head/out/kernel"])


def test_names_of_old_files_are_known():
    """gamma and beta, buffers, a head of next sentences, and tied copies: bert-base-uncased has all of them."""
    module, params = make("bert", "masked_lm")
    loading.save("old", module, params)

    def change(held, config):
        for name in list(held):
            new = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            held[new] = held.pop(name)
        held["bert.embeddings.position_ids"] = np.arange(9)[None]
        held["cls.seq_relationship.weight"] = np.zeros((2, 8), np.float32)
        held["cls.predictions.decoder.weight"] = held["bert.embeddings.word_embeddings.weight"]
        config["num_labels"] = config.pop("dtype") and 2

    edited("old", change)
    found = loading.load("old")
    assert same(found.params, params)
    assert set(found.dropped) == {"cls.seq_relationship.weight", "cls.predictions.decoder.weight"}
    edited("old", lambda held, config: held.update({"cls.predictions.decoder.weight": np.zeros((11, 8), np.float32)}))
    assert "its last kernel is not the table of words" in refused("old")
    assert loading.load("old", head="none").module.head == "none"  # which does not need it


OTHER_HEADS = {
    "BertForQuestionAnswering": ("bert", {"qa_outputs.weight": (2, 8), "qa_outputs.bias": (2,)}),
    "BertForTokenClassification": ("bert", {"classifier.weight": (9, 8), "classifier.bias": (9,)}),
    "BertForPreTraining": ("bert", {"cls.seq_relationship.weight": (2, 8), "cls.predictions.bias": (11,)}),
    "RobertaForTokenClassification": ("roberta", {"classifier.weight": (9, 8)}),
    "XLMRobertaForMultipleChoice": ("xlm-roberta", {"classifier.weight": (1, 8), "roberta.pooler.dense.weight": (8, 8)}),
    "ViTForMaskedImageModeling": ("vit", {"decoder.0.weight": (48, 8, 1, 1), "vit.embeddings.mask_token": (1, 1, 8)}),
    "DeiTForImageClassificationWithTeacher": ("deit", {"cls_classifier.weight": (2, 8), "distillation_classifier.bias": (2,)}),
    "DistilBertForQuestionAnswering": ("distilbert", {"qa_outputs.weight": (2, 8)}),
    "GPT2DoubleHeadsModel": ("gpt2", {"lm_head.weight": (11, 8), "multiple_choice_head.summary.weight": (1, 8)}),
    "LlamaForTokenClassification": ("llama", {"score.weight": (9, 8), "score.bias": (9,)}),
    "AnythingWithAHead": ("camembert", {"my.own.layer": (3,)}),
}  # fmt: skip


@pytest.mark.parametrize("named", slow_but(["ViTForMaskedImageModeling", "LlamaForTokenClassification"], OTHER_HEADS))
@pytest.mark.parametrize("prefixed", [True, *slow(False)])
def test_every_head_is_dropped_where_none_or_a_new_one_is_asked_for(named, prefixed):
    kind, extra = OTHER_HEADS[named]
    module, params = make(kind, "none")
    loading.save("one", module, params, {"model_type": kind})
    prefix = TYPES[kind].prefix

    def change(held, config):
        for name in list(held) if prefixed else ():
            held[f"{prefix}.{name}"] = held.pop(name)
        held.update(
            {name: np.ones(shape, np.float32) for name, shape in extra.items() if prefixed or prefix not in name}
        )
        config.update(architectures=[named])

    edited("one", change)
    assert f"is a {named}, whose head is not known here: choose a head" in refused("one")
    bare, new = loading.load("one", head="none"), loading.load("one", head="new", num_classes=4, key=KEY)
    assert same(bare.params, params) and new.module.num_classes == 4
    assert set(bare.dropped) == {name for name in extra if prefixed or prefix not in name}
    assert all(path.startswith(("head", "body/pooler")) for path in new.new) and not set(new.dropped) - set(
        bare.dropped
    )
    for loaded in (bare, new):
        loading.save("two", loaded.module, loaded.params, loaded.config, overwrite=True)
        assert json.loads(Path("two/config.json").read_text())["model_type"] == kind


def test_a_head_of_the_folder_itself_stays_strict():
    loading.save("one", *make("bert", "classes"))
    edited("one", lambda held, config: held.update({"qa_outputs.weight": np.zeros((2, 8), np.float32)}))
    assert "too many: qa_outputs.weight" in refused("one")
    assert loading.load("one", head="classes").dropped == ("qa_outputs.weight",)


@pytest.mark.slow
def test_position_embeddings_are_interpolated_once_for_other_images():
    module, params = make("vit", "classes")
    loading.save("one", module, params)
    images = np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype(np.float32)
    found = loading.load("one", image_size=12)
    assert found.params["body"]["positions"].shape == (1, 10, 8) and found.module.image_size == 12
    inside = loading.load("one", interpolate=True)
    expected = inside.module.apply({"params": inside.params}, images)
    np.testing.assert_allclose(found.module.apply({"params": found.params}, images), expected, atol=1e-5)
    loading.save("larger", found.module, found.params, found.config)
    assert json.loads(Path("larger/config.json").read_text())["image_size"] == 12
    assert same(loading.load("larger").params, found.params)


@pytest.mark.parametrize(
    ("case", "change", "options", "message"),
    [
        ("bert", {"model_type": "t5"}, {}, "one/config.json: model_type 't5' is not supported; these are: vit, "),
        ("bert", {"is_decoder": True, "position_embedding_type": "relative_key"}, {},
         "not known here: is_decoder is True, position_embedding_type is 'relative_key'"),
        ("vit", {"pooler_output_size": 3}, {}, "pooler_output_size is 3, hidden_size 8"),
        ("bert", {"hidden_size": "8"}, {}, "one/config.json: width must be an integer"),
        ("bert", {"num_attention_heads": 3}, {}, "3 heads do not divide the width 8"),
        ("bert", {"num_hidden_layers": 10**9}, {}, "1000000000 num_hidden_layers, the files 25 tensors"),
        ("bert", {"num_hidden_layers": None}, {}, "depth must be an integer"),
        ("bert", {"layer_norm_eps": "small"}, {}, "eps must be"),
        ("bert", {"hidden_dropout_prob": 0.5}, {"dropout": 2.0}, "dropout must lie in"),
        ("bert", {"hidden_act": "mish"}, {}, "unknown act 'mish'"),
        ("bert", {"architectures": ["BertForTokenClassification"]}, {}, "whose head is not known here: choose a head"),
        ("bert", {"architectures": "x"}, {}, "architectures must be a list"),
        ("vit", {"num_channels": "3"}, {}, "num_channels must be"),
        ("bert", {}, {"head": "class"}, "unknown head 'class': did you mean 'classes'"),
        ("vit", {}, {"head": "masked_lm"}, "unknown head 'masked_lm'"),
        ("bert", {}, {"head": "masked_lm"}, "missing: cls.predictions.bias, cls.predictions.transform.dense"),
        ("bert", {}, {"head": "new", "num_classes": 3}, "head='new' needs num_classes and key"),
        ("bert", {}, {"num_classes": 3, "key": KEY}, "only that head does"),
        ("bert", {}, {"width": 3}, "unknown options width; known: dtype, dropout"),
        ("bert", {}, {"image_size": 3}, "image_size is for vit and deit only"),
        ("vit", {}, {"image_size": 3}, "patches of 4x4 do not tile images of 3x3"),
    ],
)  # fmt: skip
def test_folders_and_options_that_cannot_be(case, change, options, message):
    loading.save("one", *make(case, "classes"))
    edited("one", lambda held, config: config.update(change))
    assert message in refused("one", **options)


def test_a_folder_that_is_not_there_says_how_to_get_one():
    assert "there is no model folder gone" in refused("gone") and "hf download REPO --local-dir gone" in refused("gone")
    Path("empty").mkdir()
    Path("empty/config.json").write_text('{"model_type": "vit"}')
    assert "has neither model.safetensors.index.json nor model.safetensors" in refused("empty")
    Path("empty/config.json").write_text("[")
    assert "cannot read empty/config.json" in refused("empty")


def test_nothing_is_written_over_or_of_the_wrong_form():
    module, params = make("vit", "classes")
    loading.save("one", module, params)
    before = Path("one/model.safetensors").read_bytes()
    with pytest.raises(UsageError, match=r"one holds a model already \(config.json, model.safetensors\)"):
        loading.save("one", module, params)
    many = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), params)
    with pytest.raises(UsageError, match=r"head/bias \(\[2, 2\] instead of \[2\]\).* one model is saved"):
        loading.save("one", module, many, overwrite=True)
    with pytest.raises(UsageError, match="unknown dtype 'float3'.*float32"):
        loading.save("one", module, params, dtype="float3", overwrite=True)
    with pytest.raises(UsageError, match="MLP has no Hugging Face form"):
        loading.save("one", models.create("mlp", num_classes=2), params, overwrite=True)
    assert Path("one/model.safetensors").read_bytes() == before


def test_what_the_configuration_says_beyond_our_fields_is_kept():
    module, params = make("bert", "classes")
    loading.save("one", module, params)
    labels = {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
    edited(
        "one",
        lambda held, config: config.update(labels | {"gradient_checkpointing": False, "hidden_dropout_prob": 0.1}),
    )
    found = loading.load("one")
    assert found.module.dropout == 0 and loading.load("one", dropout=0.2).module.dropout == 0.2
    loading.save("two", found.module, found.params, found.config)
    kept = json.loads(Path("two/config.json").read_text())
    assert kept["id2label"] == labels["id2label"] and kept["gradient_checkpointing"] is False
    assert kept["hidden_dropout_prob"] == 0.1


def test_fetching_asks_for_what_is_read_and_says_what_went_wrong(monkeypatch):
    hub = pytest.importorskip("huggingface_hub", reason="needs the extra hf")
    asked = {}

    def download(repo, **options):
        asked.update(repo=repo, **options)
        if repo == "gone":
            raise OSError("no such repository\nmore")
        if repo == "a/b":
            loading.save(options["local_dir"], *make("vit", "classes"))

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert same(loading.load(loading.fetch("a/b", "got", revision="main")).params, make("vit", "classes")[1])
    assert asked["revision"] == "main" and set(asked["allow_patterns"]) == set(hf_hub.FILES)
    read = {
        hf_config.CONFIG,
        backbone.IMAGES,
        tokenizer.FILE,
        tokenizer.CONFIG,
        tokenizer.WORDS,
        tokenizer.PIECES,
        tokenizer.MERGES,
    }
    assert read < set(hf_hub.FILES)
    with pytest.raises(UsageError, match="cannot fetch gone: no such repository$"):
        loading.fetch("gone", "x")
    with pytest.raises(UsageError, match="holds neither model.safetensors"):
        loading.fetch("a/torch-only", "x")


def test_the_head_of_a_folder_that_does_not_name_its_architecture():
    for (kind, head), named in ARCHITECTURES.items():
        prefix = OTHER_PREFIX.get(kind, BODY[architecture(kind)][0])
        names = {f"{prefix}.{n}" if head in ("pooled", "none") else n for n in names_of(kind, head)}
        for config in ({}, {"architectures": [named]}):
            if config or (kind, head) != ("gpt2", "causal_lm"):  # which has nothing of its own
                assert validation.head_of(kind, config, names, None, "x") == head
