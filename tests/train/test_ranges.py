"""Options out of their range: all are named at once, with the range."""

from types import SimpleNamespace

import pytest

from train import ranges
from train.errors import UsageError


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
