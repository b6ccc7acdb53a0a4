"""Every command of docs/federated.md is run as it stands there, on the digits, and does what the page says."""

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.parameters import slow
from tna_jax.programs.cli.main import main

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "federated.md").read_text()
COMMANDS = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("tna ") and "..." not in line
]
LEAST = {"--dp-clip": 0.15, "--hostile-clients": 0.4}
"""Accuracies that every run of a command ends with, by what is in it; of others 0.6."""


def run(command: str) -> int:
    words = shlex.split(command)[1:]
    other = words[0] == "resume" or "--list" in words or "--dataset" in words or words == ["federate"]
    data = [] if other else ["--dataset", "digits"]
    return main([*words, *data])


def results() -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(Path("runs").glob("*/federate.json"))]


def test_the_page_has_commands():
    assert len(COMMANDS) >= 8 and sum(command.startswith("tna resume") for command in COMMANDS) == 1


@pytest.mark.parametrize("command", slow(*[command for command in COMMANDS if not command.startswith("tna resume")]))
def test_a_command_of_the_page_trains(command, capsys):
    if "--dp-noise" in command:
        pytest.importorskip("dp_accounting")
    assert run(command) == 0
    if "--list" in command:
        return
    (found,) = results()
    least = next((value for option, value in LEAST.items() if option in command), 0.6)
    for line in found["runs"]:
        assert line["score"] > least, (line["anchors"], line["score"])
        assert line["diverged_in_round"] is None
    shown = capsys.readouterr().out
    assert ("epsilon" in shown) == ("--dp-noise" in command)
    if "--personalize" in command:
        assert "own head: mean" in " ".join(shown.split())
    if (more := [other for other in COMMANDS if other.startswith("tna resume")]) and "runs/balanced" in command:
        assert run(more[0]) == 0
        assert "150 rounds" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_under_the_mean_hostile_clients_end_what_the_median_bears(capsys):
    (command,) = [command for command in COMMANDS if "--hostile-clients" in command]
    assert run(command.replace("--server median", "--server mean")) == 1
    assert "learned nothing any more" in " ".join(capsys.readouterr().err.split())
