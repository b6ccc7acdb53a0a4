"""What `tna PROGRAM --help` shows, and what completion knows."""

import dataclasses
import re
from typing import get_args

import pytest

from tna_jax.programs.cli import choices, help
from tna_jax.programs.cli.arguments import options
from tna_jax.programs.cli.catalog import PROGRAMS, options_of
from tna_jax.programs.cli.main import main
from tna_jax.programs.completion.run import script

LARGE = [name for name in PROGRAMS if len(options(options_of(name))) > help.FEW and hasattr(options_of(name), "COMMON")]


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_option_has_a_text_and_a_place(name):
    cls = options_of(name)
    text = help.text(name, cls, everything=True, width=80)
    for field in dataclasses.fields(cls):
        option = next(option for option in options(cls) if option.field == field.name)
        assert option.doc, f"{name}: {field.name} has no text"
        if option.hidden:
            assert option.flag not in text
            continue
        head = re.escape(option.flag).replace("\\-\\-", r"\-\-(\[no-\])?", 1) if not option.metavar else option.metavar
        assert re.search(rf"^  (-\w, )?{head}\b", text, re.M), option.flag
    assert max(map(len, text.splitlines())) <= 80
    assert "None" not in text and "MISSING" not in text


@pytest.mark.parametrize("name", LARGE)
def test_the_commonest_options_come_first(name, capsys):
    assert main([name, "--help"]) == 0
    short = capsys.readouterr().out
    assert main([name, "--help-all"]) == 0
    long = capsys.readouterr().out
    heads = re.findall(r"^  (?:-\w, )?(--\S+|[A-Z]+)", short, re.M)
    assert 10 <= len(heads) <= 14 < len(re.findall(r"^  (?:-\w, )?(--\S+|[A-Z]+)", long, re.M))
    assert f"tna {name} --help-all shows the other" in short
    sections = re.findall(r"^(\w[\w ]*):$", long, re.M)
    assert sections[-1] == ("machine" if "machine" in sections else "greedy soup")  # tna merge runs on any machine


def test_choices_ranges_and_defaults_are_shown():
    text = " ".join(help.text("lmc", options_of("lmc"), everything=True, width=80).split())
    for words in ("--init {same,different,both}", "(each in [0, 1); default: 0 0.2 0.4 0.6 0.8)", "--memory-limit GB", "resnet110",
                  "Passes over the training data. (default: 50)"):  # fmt: skip
        assert words in text, words
    sections = re.findall(r"^(\w[\w ]*):", help.text("lmc", options_of("lmc"), everything=True, width=80), re.M)
    assert sections == ["usage", "tna lmc", "data", "network", "anchors", "training", "run", "machine"]


def test_narrow_screens_break_words_not_lines():
    assert max(map(len, help.text("federate", options_of("federate"), everything=True, width=60).splitlines())) <= 60


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_the_choices(shell):
    printed = script(shell)
    for literal in (choices.Placement, choices.MaskSchedule, choices.Optimizer, choices.TextTask):
        assert all(value in printed for value in get_args(literal))
    assert "{None}" not in printed
