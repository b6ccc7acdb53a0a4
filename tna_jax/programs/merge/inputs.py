"""Opens the models to merge: cache roots, prefixes, adapters folded into their base, tied heads and integer buffers."""

import dataclasses
import re
from pathlib import Path

import numpy as np

from tna_jax.io.errors import UsageError
from tna_jax.io.tensor_headers import Checkpoint, Tensor, open_checkpoint
from tna_jax.programs.cli.progress import console
from tna_jax.programs.merge import adapters, unmergeable
from tna_jax.programs.merge import metadata as merge_metadata
from tna_jax.programs.merge.plan import Choices

CACHE = re.compile(r"^(models|datasets|spaces)--")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What is merged."""

    models: list[Checkpoint]
    base: Checkpoint | None
    folded: list[str]
    """Names of the models that are adapters, folded into the base."""
    notes: list[str]
    """What was done so that the models fit each other, in sentences."""


def open_inputs(
    names: tuple[str, ...], base: str | None, strip: tuple[str, ...], add: str | None, choices: Choices
) -> Inputs:
    """Reads the headers of the models and of their base.

    Args:
      names: of files and folders.
      base: the model that adapters are folded into, and that task vectors start from.
      strip: what tensors' names begin with where a model has it, and which is taken off: of several the longest that fits.
      add: what is put in front of names that do not begin with it.
      choices: which tensors are merged at all: only those must fit.

    Raises:
      UsageError: each model that cannot be opened or merged is named.
    """
    checkpoints, wrong = [], []
    fitting: set[str] = set()
    for name in dict.fromkeys(names if base is None else (*names, base)):
        try:
            checkpoint = open_checkpoint(str(resolve(name)))
            fitting |= {prefix for prefix in strip for tensor in checkpoint.tensors if tensor.startswith(prefix)}
            checkpoints.append(rename(checkpoint, strip, add))
            if not checkpoints[-1].tensors:
                wrong.append(f"{name} holds no tensors")
        except UsageError as error:
            wrong.append(str(error))
    idle = [prefix for prefix in strip if prefix not in fitting]
    if idle and not wrong:
        wrong = [f"--strip-prefix {' '.join(idle)}: no tensor's name begins so"]
    if wrong:
        raise UsageError("; ".join(wrong))
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise UsageError(f"named more than once: {', '.join(twice)}; name each model once (--weights weights them)")
    held = dict(zip(dict.fromkeys(names if base is None else (*names, base)), checkpoints, strict=True))
    models = [held[name] for name in names]
    merge_metadata.require_different(models)
    start = held[base] if base is not None else None
    if start is not None:
        unmergeable.require_mergeable([start])
    folded = [
        name for name, model in zip(names, models, strict=True) if start is not None and adapters.is_adapter(model)
    ]
    unmergeable.require_mergeable([model for name, model in zip(names, models, strict=True) if name not in folded])
    models = [
        adapters.fold(model, start) if name in folded and start is not None else model
        for name, model in zip(names, models, strict=True)
    ]
    models, notes = fit(models, choices)
    return Inputs(models, start, folded, notes)


def resolve(name: str) -> Path:
    """Returns a model's main snapshot where a name is its folder in the cache of Hugging Face's hub, or a cache that holds one model.

    Raises:
      UsageError: a cache of several models, or a model without a main snapshot; those that there are are named.
    """
    path = Path(name)
    cache = path / "hub" if (path / "hub").is_dir() else path
    held = sorted(p for p in cache.glob("models--*") if (p / "snapshots").is_dir()) if cache.is_dir() else []
    if len(held) > 1:
        raise UsageError(f"{name} is a cache of {len(held)} models; name one of them: {', '.join(map(str, held))}")
    path = held[0] if held else path
    if not (path / "snapshots").is_dir() or not (CACHE.match(path.resolve().name) or (path / "blobs").is_dir()):
        return path
    main = path / "refs" / "main"
    snapshots = sorted((p for p in (path / "snapshots").iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
    chosen = path / "snapshots" / main.read_text().strip() if main.is_file() else None
    if chosen is not None and chosen.is_dir():
        return chosen
    if len(snapshots) == 1:
        return snapshots[0]
    listed = ", ".join(str(snapshot) for snapshot in snapshots) or "none"
    raise UsageError(
        f"{name} is a folder of the hub's cache without a main snapshot; name one of its snapshots: {listed}"
    )


def rename(checkpoint: Checkpoint, strip: tuple[str, ...], add: str | None) -> Checkpoint:
    """Returns a checkpoint whose tensors' names have a prefix taken off, or put in front.

    Raises:
      UsageError: two tensors would have one name.
    """
    if not strip and add is None:
        return checkpoint

    def renamed(name: str) -> str:
        name = name.removeprefix(max((prefix for prefix in strip if name.startswith(prefix)), key=len, default=""))
        return name if add is None or name.startswith(add) else add + name

    names = [renamed(name) for name in checkpoint.tensors]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(
            f"{checkpoint.path}: with the prefixes changed, several tensors would be called {', '.join(twice[:5])}"
        )
    return Checkpoint(
        checkpoint.path, {renamed(name): tensor for name, tensor in checkpoint.tensors.items()},
        {file: [renamed(name) for name in held] for file, held in checkpoint.files.items()}, checkpoint.metadata,
    )  # fmt: skip


def fit(models: list[Checkpoint], choices: Choices) -> tuple[list[Checkpoint], list[str]]:
    """Completes tensors that some models write and others do not, though the models are alike: tied heads and integer buffers."""
    notes: list[str] = []
    names = {name for model in models for name in model.tensors if choices.merged(name)}
    for name in sorted(names):
        having = [model for model in models if name in model.tensors]
        if len(having) == len(models):
            continue
        first = having[0].tensors[name]
        if not first.floating:
            models = [_with(model, name, first) for model in models]
            notes.append(f"{name} is an integer buffer that only {_paths(having)} write: taken from there")
            continue
        tied = _tied(name, having, [model for model in models if name not in model.tensors])
        if tied is not None:
            models = [_with(model, name, model.tensors[tied]) for model in models]
            notes.append(f"{name} is {tied} (tied); only {_paths(having)} write it twice")
    for note in notes:
        console.print(note, highlight=False)
    return models, notes


def _with(model: Checkpoint, name: str, tensor: Tensor) -> Checkpoint:
    if name in model.tensors:
        return model
    file = next(iter(model.files))
    files = {**model.files, file: [*model.files[file], name]}
    return Checkpoint(model.path, {**model.tensors, name: tensor}, files, model.metadata)


def _tied(name: str, having: list[Checkpoint], lacking: list[Checkpoint]) -> str | None:
    """Returns the tensor that another one repeats in all models that hold it; None if there is none, or several."""
    candidates = [
        other for other, tensor in having[0].tensors.items()
        if other != name and tensor.shape == having[0].tensors[name].shape and len(tensor.shape) > 1
        and all(other in model.tensors for model in (*having, *lacking))
    ]  # fmt: skip
    equal = [o for o in candidates if all(equal_bits(model.tensors[o], model.tensors[name]) for model in having)]
    return equal[0] if len(equal) == 1 else None


def equal_bits(a: Tensor, b: Tensor) -> bool:
    """Returns whether two tensors hold the same bits."""
    return a.kind == b.kind and bool(
        np.array_equal(a.read().reshape(-1).view(np.uint8), b.read().reshape(-1).view(np.uint8))
    )


def _paths(models: list[Checkpoint]) -> str:
    return ", ".join(str(model.path) for model in models)
