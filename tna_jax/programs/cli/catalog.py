"""Which programs `tna` has, in which order help lists them, and where each one's options are. Imports the standard library only."""

import importlib

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


def package_of(name: str) -> str:
    """Returns the package of the program `tna NAME`: its module `options` says what it takes, its module `run` is the program."""
    return PROGRAMS[name][0]


def options_of(name: str) -> type:
    """Returns the options of the program `tna NAME`, a dataclass called `NameOptions`; no JAX is imported for it."""
    module = importlib.import_module(f"{package_of(name)}.options")
    found: type = getattr(module, f"{name.capitalize()}Options")
    return found
