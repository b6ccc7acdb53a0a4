"""The `tna` command: hands over to a program, which is imported only then."""

import difflib
import importlib
import sys

PROGRAMS = {
    "lmc": (
        "tna_jax.programs.lmc.run",
        "train pairs with and without anchors, walk the path between them, draw the barriers",
    ),
    "train": ("tna_jax.programs.train.run", "train an ensemble with shared anchors and keep it in a run folder"),
    "resume": ("tna_jax.programs.resume.run", "go on with an interrupted run, to the same result"),
    "runs": ("tna_jax.programs.list_runs.run", "list the runs in a folder: how far each is, what came out"),
    "export": ("tna_jax.programs.export.run", "a model of a run as a safetensors file"),
    "import": ("tna_jax.programs.import_models.run", "exported models as a run folder"),
    "barrier": ("tna_jax.programs.barrier.run", "the barriers between the models of a run"),
    "landscape": ("tna_jax.programs.landscape.run", "loss and accuracy on the plane through three models of a run"),
    "fuse": (
        "tna_jax.programs.fuse.run",
        "average all models of runs: soups, ensemble, the barriers of all pairs; matching, REPAIR",
    ),
    "rebasin": (
        "tna_jax.programs.rebasin.run",
        "match models by permuting hidden units: barriers before, after, and with REPAIR",
    ),
    "pretrain": (
        "tna_jax.programs.pretrain.run",
        "a ViT on images, or a BERT encoder on texts, as a Hugging Face folder",
    ),
    "soup": (
        "tna_jax.programs.soup.run",
        "fine-tune many recipes from one checkpoint with and without anchors, and average them",
    ),
    "cold": (
        "tna_jax.programs.cold.run",
        "ColD Fusion: text tasks fine-tune one encoder, their bodies are averaged, again and again",
    ),
    "merge": ("tna_jax.programs.merge.run", "average safetensors files or folders: uniform, weighted, greedy"),
    "completion": ("tna_jax.programs.completion.run", "a script with which bash, zsh or fish completes this command"),
    "federate": (
        "tna_jax.programs.federate.run",
        "federated learning with and without anchors, simulated: accuracy by round",
    ),
    "report": (
        "tna_jax.programs.report.run",
        "one HTML file on one or more runs: numbers, curves, landscapes, provenance",
    ),
    "devices": ("tna_jax.programs.devices.run", "what JAX sees here and how models would be placed on it"),
}


def usage() -> str:
    """The text of `tna --help`."""
    width = max(map(len, PROGRAMS))
    lines = [f"  tna {name:<{width}}  {text}" for name, (_, text) in PROGRAMS.items()]
    return "\n".join(["Training-time neuron alignment: train networks that can be averaged.", "", *lines, "",
                      "tna PROGRAM --help explains a program's options; tna --version prints the version."])  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Runs a program and returns its exit code: 0, 2 for a wrong option or input (one line on stderr), 130 if interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
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
        print(f"tna: no program {name!r}:{hint} known: {', '.join(PROGRAMS)}", file=sys.stderr)
        return 2
    try:
        return importlib.import_module(PROGRAMS[name][0]).main(arguments[1:])
    except KeyboardInterrupt:  # before the program itself took over: nothing was begun
        print(f"tna {name}: stopped at once", file=sys.stderr)
        return 130
