"""`tna resume RUN`: resumes an interrupted run where it stopped, to the same result."""

import dataclasses
from typing import Any

from tna_jax.io.errors import UsageError, unknown
from tna_jax.programs.cli import parsing
from tna_jax.programs.cli.main import main as tna
from tna_jax.programs.resume.options import ResumeOptions
from tna_jax.programs.runs.folder import CONFIG, Run
from tna_jax.programs.training.setup import OF_ONE_START, PASSING_OPTIONS

PROGRAMS = ("lmc", "train", "pretrain", "soup", "cold", "federate")
PASSED_ON = tuple(field.name for field in dataclasses.fields(ResumeOptions) if field.name != "run")


def run(settings: ResumeOptions) -> int:
    """Resumes the run; returns the exit code of its program."""
    return tna(command(settings.run, parsing.to_words(overrides(settings))))


def overrides(settings: ResumeOptions) -> dict[str, Any]:
    """Returns the options that were given; 0 is a value (`--process-id 0`)."""
    given = {name: getattr(settings, name) for name in PASSED_ON}
    return {name: value for name, value in given.items() if value is not None and value is not False}


def command(name: str, more: list[str]) -> list[str]:
    """Returns the words after `tna` that resume the run in the folder `name`.

    Args:
      name: the run folder.
      more: options that replace those the run was started with.

    Raises:
      UsageError: it is not a run folder, or its config.json does not say how it was started.
    """
    folder = Run.open(name)
    config = folder.read(CONFIG)
    program, before = config.get("program"), config.get("started_with", {})
    if not isinstance(program, str):
        raise UsageError(f"{folder.folder / CONFIG} does not name the program: use its own --resume")
    if program == "import":
        raise UsageError(
            f"{folder.folder} holds imported models, which do not train: tna fuse {folder.quoted_path} averages them"
        )
    if program not in PROGRAMS:
        raise unknown(f"program in {folder.folder / CONFIG}", program, PROGRAMS)
    if "--rounds" in more and program != "federate":
        raise UsageError(f"--rounds extends runs of tna federate; {folder.folder} is one of tna {program}")
    known = set(PASSING_OPTIONS) - set(OF_ONE_START)
    if not isinstance(before, dict) or not set(before) <= known:
        raise UsageError(f"{folder.folder / CONFIG}: started_with must hold options among {', '.join(sorted(known))}")
    return [
        program,
        "--config",
        str(folder.folder / CONFIG),
        *parsing.to_words(parsing.checked_values(before, f"{folder.folder / CONFIG}: started_with", known)),
        "--out",
        name,
        "--resume",
        *more,
    ]
