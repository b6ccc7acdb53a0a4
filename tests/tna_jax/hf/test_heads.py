"""New heads on the body of a folder, heads that are dropped, images of another size."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.parameters import slow, slow_but
from tests.tna_jax.hf.names_by_hand import both, names_of
from tests.tna_jax.hf.small_models import KEY, edited, flat, make, refused, same
from tna_jax.hf import loading
from tna_jax.hf.model_types import TYPES


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
