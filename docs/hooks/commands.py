"""The page of the commands: what `tna --help` and every `tna PROGRAM --help-all` print."""

import contextlib
import io
import os
import re

from mkdocs.structure.files import File

from tna_jax.programs.cli.catalog import PROGRAMS
from tna_jax.programs.cli.main import main, usage

WIDTH = 84
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def on_files(files, config):
    """Adds `commands.md`."""
    files.append(File.generated(config, "commands.md", content=page()))
    return files


def page() -> str:
    """The page in Markdown."""
    parts = [
        "---\nsearch: {boost: 2}\n---",
        "# Commands",
        "Every program explains itself; this page is what they print.",
        fenced(usage(WIDTH)),
    ]
    for name, (_, text) in PROGRAMS.items():
        parts += [f"## tna {name}", f"{text[0].upper()}{text[1:]}.", fenced(help_of(name))]
    return "\n\n".join(parts) + "\n"


def help_of(name: str) -> str:
    """What a program prints for `--help-all`."""
    printed = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(WIDTH)
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main([name, "--help-all"])
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    return ESCAPES.sub("", printed.getvalue()).strip()


def fenced(text: str) -> str:
    """Text as it is."""
    return f"```text\n{text}\n```"
