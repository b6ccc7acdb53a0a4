"""An option that does nothing beside the others is refused by name, in every program, and not left aside in silence."""

import dataclasses

import pytest

from tna_jax.io.errors import UsageError
from tna_jax.programs.cold.options import ColdOptions
from tna_jax.programs.federate.options import FederateOptions
from tna_jax.programs.lmc.options import LmcOptions
from tna_jax.programs.merge.options import MergeOptions
from tna_jax.programs.pretrain.options import PretrainOptions
from tna_jax.programs.soup.options import SoupOptions
from tna_jax.programs.train.options import TrainOptions

GIVEN = SoupOptions(models=("a", "b"))
MERGE = MergeOptions(out="o", models=("a", "b"))
IDLE = [
    (LmcOptions(overwrite=True), "--overwrite does nothing without --out"),
    (TrainOptions(overwrite=True), "--overwrite does nothing without --out"),
    (ColdOptions(checkpoint="c", overwrite=True), "--overwrite does nothing without --out"),
    (FederateOptions(clients=5, partition="natural"), "--clients does nothing without --partition dirichlet, shard or iid (it is natural)"),
    (PretrainOptions(model="bert", patch=8, augmentation=0.1), "--patch, --augmentation do nothing without --model vit (it is bert)"),
    (PretrainOptions(vocab=99), "--vocab does nothing without --model bert (it is vit)"),
    (dataclasses.replace(GIVEN, learning_rates=(1e-4,), epochs=1), "--epochs, --learning-rates do nothing for --models"),
    (SoupOptions(checkpoint="c", corruptions=(), severities=(5,)), "--severities does nothing without --corruptions"),
    (SoupOptions(checkpoint="c", corruptions=("blur", "blur"), severities=(3, 3)), "--corruptions must name one or more, each once; got blur more than once; --severities must"),
    (dataclasses.replace(MERGE, ties="drop"), "--ties does nothing without --evaluate"),
    (dataclasses.replace(MERGE, match_by="rotation"), "--match-by does nothing without --match"),
    (dataclasses.replace(MERGE, accumulate="float64", method="slerp"), "--accumulate float64 is of averages"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "message"), IDLE, ids=lambda value: value if isinstance(value, str) else "")
def test_what_does_nothing_is_refused(settings, message):
    with pytest.raises(UsageError) as caught:
        settings.check()
    assert message in str(caught.value)


@pytest.mark.parametrize("settings", [PretrainOptions(vocab=99), FederateOptions(clients=5, partition="natural")])
def test_a_run_from_before_it_was_refused_is_resumed(settings):
    dataclasses.replace(settings, resume=True, out="run").check()


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (True, {"corruptions": ("blur",), "severities": (1,)}, "--corruptions, --severities do nothing for texts"),
        (False, {"length": 8}, "--length does nothing for images"),
    ],
)
def test_a_soup_of_texts_takes_no_options_of_images_and_the_other_way_round(texts, options, message):
    settings = SoupOptions(checkpoint="c", **options)
    with pytest.raises(UsageError, match=message):
        settings.check_kind(texts)
    settings.check_kind(not texts)
