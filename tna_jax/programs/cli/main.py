"""The `tna` command: hands over to a program, which is imported only then.

This file imports the standard library only: help, version and refusals take no time, and what is not installed is said in one line.
"""

import difflib
import importlib
import shutil
import sys
import textwrap

from tna_jax.programs.cli import interrupts, printing

PROGRAMS = {
    "lmc": (
        "tna_jax.programs.lmc",
        "train pairs with and without anchors, walk the path between them, draw the barriers",
    ),
    "train": (
        "tna_jax.programs.train",
        "train an ensemble with shared anchors and keep it in a run folder",
    ),
    "resume": (
        "tna_jax.programs.resume",
        "resume an interrupted run, to the same result",
    ),
    "runs": (
        "tna_jax.programs.list_runs",
        "list the runs in a folder: how far each is, what came out",
    ),
    "export": (
        "tna_jax.programs.export",
        "write a model of a run as a safetensors file or a Hugging Face folder",
    ),
    "import": (
        "tna_jax.programs.import_models",
        "make a run folder of exported models",
    ),
    "barrier": (
        "tna_jax.programs.barrier",
        "compute the barriers between the models of a run",
    ),
    "landscape": (
        "tna_jax.programs.landscape",
        "draw loss and accuracy on the plane through three models of a run",
    ),
    "fuse": (
        "tna_jax.programs.fuse",
        "make one model of all models of runs: soups, merging methods, ensemble, barriers; matching, REPAIR",
    ),
    "rebasin": (
        "tna_jax.programs.rebasin",
        "match models by permuting hidden units: barriers before, after, and with REPAIR",
    ),
    "pretrain": (
        "tna_jax.programs.pretrain",
        "train a ViT on images, or a BERT encoder on texts, as a Hugging Face folder",
    ),
    "fetch": (
        "tna_jax.programs.fetch",
        "fetch a pretrained checkpoint by name, MiniLM say, as a Hugging Face folder",
    ),
    "soup": (
        "tna_jax.programs.soup",
        "fine-tune many recipes from one checkpoint with and without anchors, and average them",
    ),
    "cold": (
        "tna_jax.programs.cold",
        "ColD Fusion: text tasks fine-tune one encoder, their bodies are averaged, again and again",
    ),
    "merge": (
        "tna_jax.programs.merge",
        "average safetensors files or folders: uniform, weighted, greedy",
    ),
    "completion": (
        "tna_jax.programs.completion",
        "print a script with which bash, zsh or fish completes this command",
    ),
    "federate": (
        "tna_jax.programs.federate",
        "simulate federated learning with and without anchors: accuracy by round",
    ),
    "report": (
        "tna_jax.programs.report",
        "write one HTML file on one or more runs: numbers, curves, landscapes, provenance",
    ),
    "devices": (
        "tna_jax.programs.devices",
        "show what JAX sees here and how models would be placed on it",
    ),
}
GROUPS = {
    "the main story": ("lmc", "train", "barrier", "fuse", "report"),
    "runs": ("resume", "runs", "export", "import"),
    "other views and averages": ("landscape", "rebasin", "merge"),
    "fine-tuning": ("fetch", "pretrain", "soup", "cold"),
    "federations": ("federate",),
    "this machine": ("devices", "completion"),
}
"""The programs as help lists them, the five of the main story first."""
NEEDED = ("tyro", "rich", "matplotlib", "PIL", "sklearn", "safetensors", "orbax", "filelock", "jinja2", "plotly")
"""Packages that the extra `cli` installs, as they are imported."""


def package_of(name: str) -> str:
    """Returns the package of the program `tna NAME`: its module `options` says what it takes, its module `run` is the program."""
    return PROGRAMS[name][0]


def options_of(name: str) -> type:
    """Returns the options of the program `tna NAME`, a dataclass called `NameOptions`; no JAX is imported for it."""
    module = importlib.import_module(f"{package_of(name)}.options")
    found: type = getattr(module, f"{name.capitalize()}Options")
    return found


def usage(columns: int | None = None) -> str:
    """Returns the text of `tna --help`, in so many columns; default: those of the terminal, 100 at most."""
    columns = columns or min(shutil.get_terminal_size().columns, 100)
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
        return interrupts.leave(_run(sys.argv[1:]))


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
