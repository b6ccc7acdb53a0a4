"""What `--freeze` freezes: refused where that is nothing or all, told in numbers."""

import numpy as np
import pytest

from tna_jax.io.errors import UsageError
from tna_jax.programs.cli.main import main
from tna_jax.programs.reports.wording import frozen_text
from tna_jax.programs.training import freezing

PARAMS = {"body": {"words": np.zeros((100, 4)), "layer": np.zeros((4, 4))}, "head": np.zeros(4)}


def test_what_is_frozen_is_told_in_numbers():
    frozen = freezing.describe(PARAMS, "words")
    assert frozen == {"freeze": "words", "leaves": 1, "parameters": 400, "of": 420}
    assert frozen_text(frozen) == ["frozen by 'words': 400 of 420 parameters in 1 leaves"]
    assert freezing.describe(PARAMS, None) is None and frozen_text(None) == []


def test_a_pattern_of_nothing_or_of_all_is_refused():
    with pytest.raises(
        UsageError, match="--freeze='wrods' selects no leaf; the paths are: body/layer, body/words, head"
    ):
        freezing.describe(PARAMS, "wrods")
    with pytest.raises(UsageError, match="selects every leaf: nothing would be trained"):
        freezing.describe(PARAMS, ".")


@pytest.mark.parametrize("program", ["soup", "cold"])
def test_what_is_no_regular_expression_is_refused_before_any_work(program, capsys):
    assert main([program, "--checkpoint", "nowhere", "--freeze", "words("]) == 2
    assert "--freeze: freeze='words(' is no regular expression" in capsys.readouterr().err
