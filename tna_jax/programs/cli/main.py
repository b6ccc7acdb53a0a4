"""The `tna` command: hands over to a program, which is imported only then.

This file imports the standard library only: help, version and refusals take no time, and what is not installed is said in one line.
"""

import difflib
import sys
import textwrap

from tna_jax.programs.cli import interrupts, printing
from tna_jax.programs.cli.catalog import GROUPS, PROGRAMS

NEEDED = ("tyro", "rich", "matplotlib", "PIL", "sklearn", "safetensors", "orbax", "filelock", "jinja2", "plotly")
"""Packages that the extra `cli` installs, as they are imported."""


def usage(columns: int | None = None) -> str:
    """Returns the text of `tna --help`, in so many columns; default: those of the terminal, 100 at most."""
    columns = columns or printing.columns()
    width = max(map(len, PROGRAMS))
    indent = " " * (len("  tna   ") + width)
    lines = ["Training-time neuron alignment: train networks that can be averaged."]
    for group, names in GROUPS.items():
        lines += ["", f"{group}:"]
        for name in names:
            head = f"  tna {name:<{width}}  "
            lines += textwrap.wrap(PROGRAMS[name][1], columns, initial_indent=head, subsequent_indent=indent)
    last = "tna PROGRAM --help explains a program's options, and --config FILE takes them from a JSON file; --quiet prints results, warnings and errors alone; tna --version prints the version."
    return "\n".join([*lines, "", *textwrap.wrap(last, columns)])


def main(arguments: list[str] | None = None) -> int:
    """Runs a program and returns its exit code: 0, 2 for a wrong option or input (one line on stderr), 130 if interrupted.

    Without arguments it is the process's own, given the command line: a stopped one ends here, without waiting for any thread.
    """
    if arguments is not None:
        return _run(arguments)
    printing.steady()
    with interrupts.begin():
        code = _run(sys.argv[1:])
        if (reason := printing.lost()) and not code:
            code = _refuse(
                f"{' '.join(['tna', *sys.argv[1:2]])}: what it printed could not be written: {reason}; its files are whole"
            )
        return interrupts.leave(code)


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if arguments[0] in ("-V", "--version"):
        from tna_jax.version import __version__

        print(f"tna_jax {__version__}")
        return 0
    name = arguments[0]
    if name not in PROGRAMS:
        near = difflib.get_close_matches(name, PROGRAMS, n=1, cutoff=0.4)
        hint = f" did you mean {near[0]!r}?" if near else ""
        return _refuse(f"tna: no program {name!r}:{hint} known: {', '.join(PROGRAMS)}")
    try:
        from tna_jax.programs.cli.launch import launch

        return launch(name, arguments[1:])
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in NEEDED:
            raise
        return _refuse(
            f"tna {name}: {error.name} is not installed; pip install 'tna-jax[cli]' installs what the command needs"
        )
    except KeyboardInterrupt:  # before the program itself took over: nothing was begun
        _refuse(f"tna {name}: stopped at once")
        return interrupts.INTERRUPTED


def _refuse(message: str) -> int:
    print(message, file=sys.stderr)
    return 2
