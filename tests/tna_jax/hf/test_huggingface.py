"""Hugging Face folders without torch: names, round trips, shards, new heads, and folders that are refused."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import slow_but
from tna_jax import models, trees
from tna_jax.hf import config as hf_config
from tna_jax.hf import hub as hf_hub
from tna_jax.hf import loading, tokenizer, validation
from tna_jax.hf import names as hf_names
from tna_jax.hf.config import ARCHITECTURES, shapes_of
from tna_jax.io import safetensors, tensor_headers
from tna_jax.io.errors import UsageError
from tna_jax.programs.training import backbone

SIZES = {"width": 8, "depth": 1, "heads": 2, "mlp": 12}
TEXT = SIZES | {"vocab": 11, "positions": 9}
MODELS = {
    (kind, head): (kind, ({"patch": 4, "image_size": 8} | SIZES if kind == "vit" else TEXT) | {"head": head})
    for kind, head in ARCHITECTURES
}
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


def names_of(kind, head):
    """The names as transformers writes them, by hand."""
    vit = kind == "vit"
    inner = "attention.attention" if vit else "attention.self"
    norms = ["layernorm_before", "layernorm_after"] if vit else ["attention.output.LayerNorm", "output.LayerNorm"]
    parts = [
        f"{inner}.query",
        f"{inner}.key",
        f"{inner}.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ]
    body = [name for part in [*parts, *norms] for name in both(f"encoder.layer.0.{part}")]
    if vit:
        body += ["embeddings.cls_token", "embeddings.position_embeddings", *both("layernorm"),
                 *both("embeddings.patch_embeddings.projection")]  # fmt: skip
    else:
        body += [f"embeddings.{table}_embeddings.weight" for table in ("word", "position", "token_type")]
        body += both("embeddings.LayerNorm")
    if head == "pooled" or (kind, head) == ("bert", "classes"):
        body += both("pooler.dense")
    if head in ("pooled", "none"):
        return set(body)
    ends = {
        ("vit", "classes"): both("classifier"),
        ("bert", "classes"): both("classifier"),
        ("roberta", "classes"): both("classifier.dense") + both("classifier.out_proj"),
        ("bert", "masked_lm"): ["cls.predictions.bias", *both("cls.predictions.transform.dense"),
                                *both("cls.predictions.transform.LayerNorm")],
        ("roberta", "masked_lm"): ["lm_head.bias", *both("lm_head.dense"), *both("lm_head.layer_norm")],
    }  # fmt: skip
    return {f"{kind}.{name}" for name in body} | set(ends[kind, head])


@pytest.mark.parametrize(
    ("kind", "head"), slow_but([("vit", "classes"), ("bert", "masked_lm"), ("roberta", "classes")], MODELS)
)
def test_every_leaf_has_its_name_and_a_folder_comes_back_bit_for_bit(kind, head):
    module, params = make(kind, head)
    files = loading.save("one", module, params)
    assert {file.name for file in files} == {"config.json", "model.safetensors"}
    held, metadata = safetensors.read("one/model.safetensors")
    assert set(held) == names_of(kind, head) and metadata == {"format": "pt"}
    assert json.loads(Path("one/config.json").read_text())["architectures"] == [ARCHITECTURES[kind, head]]
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
    head_table = hf_names.HEADS.get(case, {})
    assert set(head_table) <= used
    every = {name.replace("*", "0") for name in hf_names.BODIES[kind]}
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
        ("bert", {"model_type": "brt"}, {}, "unknown model_type in one/config.json 'brt': did you mean 'bert'"),
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
        ("bert", {}, {"image_size": 3}, "image_size is for vit only"),
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
    for (kind, head), architecture in ARCHITECTURES.items():
        names = {f"{kind}.{n}" if head in ("pooled", "none") else n for n in names_of(kind, head)}
        for config in ({}, {"architectures": [architecture]}):
            assert validation.head_of(kind, config, names, None, "x") == head
