"""Options out of their range: all are named at once, with the range."""

from types import SimpleNamespace

import pytest

from tna_jax.io.errors import UsageError
from tna_jax.programs.cli import ranges
from tna_jax.programs.cli.main import main
from tna_jax.programs.train.run import TrainOptions


def refused(call) -> str:
    with pytest.raises(UsageError) as error:
        call()
    return str(error.value)


def test_every_option_out_of_its_range_is_named_with_the_range():
    settings = SimpleNamespace(
        epochs=0, learning_rate=float("nan"), ratio=0.4, drop=1.5, memory_limit=None, momentum=1.0
    )
    wanted = {"epochs": ranges.COUNT, "learning_rate": ranges.POSITIVE, "ratio": ranges.SHARE, "drop": ranges.PROBABILITY,
              "memory_limit": ranges.BOUND, "momentum": ranges.SHARE}  # fmt: skip
    assert refused(lambda: ranges.require(settings, wanted, ["--a does not divide --b"])).split("; ") == [
        "--epochs must be at least 1, got 0",
        "--learning-rate must be above 0 and finite, got nan",
        "--drop must lie in [0, 1], got 1.5",
        "--momentum must lie in [0, 1), got 1.0",
        "--a does not divide --b",
    ]
    ranges.require(settings, {name: wanted[name] for name in ("ratio", "memory_limit")})


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ((), "one or more different numbers, got none"),
        ((0.2, 0.2), "one or more different numbers, got 0.2, 0.2"),
        ((0.2, -0.1, 1.0), "must lie in [0, 1), got -0.1, 1.0"),
        ((0.0, 40.0), "got 40.0; did you mean 0.4?"),
        ((float("nan"),), "got nan"),
    ],
)
def test_ratios_are_different_shares(ratios, words):
    assert words in refused(lambda: ranges.require_ratios(ratios))
    ranges.require_ratios((0.0, 0.4))


def test_everything_that_is_wrong_is_told_at_once(capsys):
    for words, parts in (
        ("train --members 0 --epochs -1", ("--epochs must be at least 1", "--members must be at least 1")),
        ("soup --checkpoint x --recipes 0 --ratios 1.0 --corruptions nois --severities 7",
         ("--recipes must be at least 2", "--ratios (shares", "did you mean 'noise'", "1 to 5, got 7")),
        ("cold --checkpoint x --tasks tre crr --unseen foo", ("'tre' (did you mean 'trec'", "'crr' (did you mean", "'foo'")),
        ("soup --checkpoint x --models y z", ("--checkpoint and --models exclude each other",)),
        ("train --soft 1.5", ("--soft must lie in [0, 1), got 1.5",)),
        ("train --where (", ("where='(' is no regular expression",)),
        ("train --dataset digits --model resnet20 --depth 4", ("--model resnet20 has no --depth; its options: --norm,",)),
    ):  # fmt: skip
        assert main(words.split()) == 2
        told = capsys.readouterr().err
        assert all(part in told for part in parts), told
        assert not any(odd in told for odd in ("warmup", "0.015", "num_classes", "Traceback")), told
    assert main(["train", "--model", "mpl"]) == 2
    told = capsys.readouterr().err
    assert "did you mean 'mlp'" in told and "bert" not in told


def test_options_that_do_nothing_without_anchors_are_named():
    assert TrainOptions().idle() == ""
    assert TrainOptions(soft=0.5, where="Dense").idle().startswith("--where, --soft do nothing at mask ratio 0")
    assert TrainOptions(anchor_scale=2.0).idle().startswith("--anchor-scale does nothing")
