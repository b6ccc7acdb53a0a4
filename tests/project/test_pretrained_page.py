"""docs/pretrained.md tells the truth: its Python runs, its table of names is that of the code."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from tna_jax import models
from tna_jax.hf import loading
from tna_jax.hf import names as hf_names
from tna_jax.hf.model_types import TYPES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "pretrained.md"


@pytest.mark.slow
def test_the_example_runs_and_its_folder_is_what_it_says():
    pytest.importorskip("tokenizers", reason="needs the extra hf")
    (code,) = re.findall(r"<!-- runs -->\n\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    values: dict = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as a user has it
        exec(compile(code, str(PAGE), "exec"), values)
    assert values["logits"].shape == (4, 2)
    tuned, pretrained = loading.load("tuned"), values["pretrained"]
    assert tuned.new == () and tuned.module.num_classes == 2
    np.testing.assert_array_equal(tuned.params["head"]["kernel"], pretrained.params["head"]["kernel"])
    start, body = values["params"]["body"], pretrained.params["body"]
    np.testing.assert_array_equal(body["words"]["embedding"], start["words"]["embedding"])


def rows():
    """The lines of the table of names, from the code's."""
    for kinds in (
        ("vit", "deit"),
        ("dinov2", "dinov2_with_registers"),
        ("bert", "roberta"),
        ("distilbert",),
        ("electra",),
        ("gpt2",),
        ("llama",),
    ):
        prefix = TYPES[kinds[0]].prefix if len(kinds) == 1 else "TYPE"
        for ours, theirs in hf_names.BODIES[kinds[0]].items():
            yield f"| {' and '.join(kinds)} `body/{ours}` | `{prefix}.{theirs}` |"
    for kind, of in (("deit", "vit"), ("dinov2_with_registers", "dinov2")):
        (alone,) = hf_names.BODIES[kind].keys() - hf_names.BODIES[of].keys()
        yield f"| {kind} `body/{alone}` | `{kind}.{hf_names.BODIES[kind][alone]}` |"
    for (kind, head), table in hf_names.HEADS.items():
        for ours, theirs in table.items():
            yield f"| {kind} {head} `{ours}` | `{theirs}` |"


def test_the_table_of_names_is_the_codes():
    assert hf_names.BODIES["bert"] == hf_names.BODIES["roberta"]
    assert hf_names.BODIES["vit"].items() <= hf_names.BODIES["deit"].items()
    assert hf_names.BODIES["dinov2"].items() <= hf_names.BODIES["dinov2_with_registers"].items()
    table = re.search(
        r"<!-- names -->\n\n\| here \| there \|\n\| --- \| --- \|\n(.*?)\n\n<!-- end -->", PAGE.read_text(), re.DOTALL
    )
    assert table is not None and table[1].splitlines() == list(rows())


def test_the_networks_it_names_exist():
    known = re.search(r"## What is known\n(.*?)\n##", PAGE.read_text(), re.DOTALL)
    assert known is not None
    networks = set(re.findall(r"`((?:vit|dinov2|bert|roberta)_[a-z0-9]+)`", known[1]))
    assert networks and networks <= set(models.MODELS)
    first = {
        kind for row in re.findall(r"^\| (`.*?) \|", known[1], re.MULTILINE) for kind in re.findall(r"`(.+?)`", row)
    }
    assert first == set(TYPES)
