"""What a merge writes: for each tensor its sources, weights and dtype, and in which file it goes. Decided before a byte is read."""

import dataclasses
import math
import re
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from tna_jax.io.errors import UsageError
from tna_jax.io.tensor_headers import DTYPES, SINGLE, Checkpoint, Tensor

DTYPE_NAMES = {"float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16"}
"""What `--dtype` calls the dtypes, and what a file does."""


@dataclasses.dataclass(frozen=True)
class Output:
    """A tensor of the merge."""

    name: str
    kind: str
    """The format's name of the dtype in which it is written."""
    sources: tuple[Tensor, ...]
    """One for each model; a single one is copied."""
    weights: tuple[float, ...]
    """One for each source."""
    base: Tensor | None = None
    """The same tensor of the common base, where the method takes one."""
    drawn_as: str = ""
    """Name of the tensor whose random draws it gets; empty: its own."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its axes."""
        return self.sources[0].shape

    @property
    def dtype(self) -> np.dtype:
        """As NumPy has it."""
        dtype: np.dtype = DTYPES[self.kind]
        return dtype

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """What it takes in the file."""
        return self.size * self.dtype.itemsize

    @property
    def copied(self) -> bool:
        """Whether it is one input's, bit for bit."""
        return len(self.sources) == 1


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that is written."""

    files: dict[str, list[Output]]
    """By the name of the file in the folder; a single file has the name of --out."""
    copied: list[str]
    """Names of the tensors that are not merged, by the user's choice."""
    integers: list[str]
    """Names of the tensors that are not floating-point: the first model's."""

    @property
    def outputs(self) -> list[Output]:
        """All tensors, in the order of the files."""
        return [output for held in self.files.values() for output in held]

    @property
    def bytes(self) -> int:
        """What all of them take."""
        return sum(output.bytes for output in self.outputs)


@dataclasses.dataclass(frozen=True)
class Choices:
    """What the options say of single tensors."""

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    weight: tuple[tuple[str, tuple[float, ...]], ...] = ()
    """Weights of the tensors whose name a pattern finds; the first that does decides."""
    dtype: str | None = None
    shard_bytes: int | None = None
    """Most bytes of a file; None: the files of the first model."""

    def merged(self, name: str) -> bool:
        """Whether a tensor is merged, and not copied."""
        if self.only and not any(re.search(pattern, name) for pattern in self.only):
            return False
        return not any(re.search(pattern, name) for pattern in self.skip)

    def weights(self, name: str, default: tuple[float, ...]) -> tuple[float, ...]:
        """Returns the weights of a tensor."""
        return next((weights for pattern, weights in self.weight if re.search(pattern, name)), default)


def make(
    checkpoints: list[Checkpoint],
    base: Checkpoint | None,
    weights: tuple[float, ...],
    choices: Choices,
    single: str | None,
    tied: Mapping[str, str] = MappingProxyType({}),
) -> Plan:
    """Decides what is written.

    Args:
      checkpoints: the models, of equal names and shapes.
      base: the model they were fine-tuned from, if one was named.
      weights: one for each model.
      choices: of single tensors.
      single: name of the one file that is written; None: the first model's files, or shards.
      tied: by a head's name that of the embeddings that it repeats: it is merged as they are.

    Raises:
      UsageError: a pattern finds no tensor, or weights of its own for a head that repeats the embeddings.
    """
    names = list(checkpoints[0].tensors)
    if base is not None:
        names += [name for name in base.tensors if name not in checkpoints[0].tensors and not choices.merged(name)]
    _require_hits(list(dict.fromkeys([*names, *(name for other in checkpoints for name in other.tensors)])), choices)
    outputs = {name: _output(name, checkpoints, base, weights, choices) for name in names}
    for head, embeddings in tied.items():
        if choices.merged(head) and choices.merged(embeddings):
            if choices.weights(head, weights) not in (weights, choices.weights(embeddings, weights)):
                raise UsageError(
                    f"--weight: {head} repeats {embeddings} in these models and is merged as they are: a pattern that names the head must name both"
                )
            outputs[head] = dataclasses.replace(outputs[embeddings], name=head, drawn_as=embeddings)
    copied = [name for name in names if not choices.merged(name)]
    integers = [name for name in names if choices.merged(name) and not checkpoints[0].tensors[name].floating]
    return Plan(_files(outputs, checkpoints[0], choices.shard_bytes, single), copied, integers)


def _output(
    name: str, checkpoints: list[Checkpoint], base: Checkpoint | None, weights: tuple[float, ...], choices: Choices
) -> Output:
    if not choices.merged(name):
        held = base.tensors.get(name) if base is not None else None
        source = held if held is not None else checkpoints[0].tensors[name]
        return Output(name, _kind(source, choices.dtype), (source,), (1.0,))
    sources = tuple(checkpoint.tensors[name] for checkpoint in checkpoints)
    return Output(
        name, _kind(sources[0], choices.dtype), sources, choices.weights(name, weights),
        base.tensors.get(name) if base is not None else None,
    )  # fmt: skip


def _kind(source: Tensor, dtype: str | None) -> str:
    return DTYPE_NAMES[dtype] if dtype is not None and source.floating else source.kind


def _require_hits(names: list[str], choices: Choices) -> None:
    """Raises UsageError that names every pattern which finds no tensor: a typing error would go unnoticed."""
    patterns = [("--only", p) for p in choices.only] + [("--skip", p) for p in choices.skip]
    patterns += [("--weight", p) for p, _ in choices.weight]
    idle = [f"{flag} {pattern!r}" for flag, pattern in patterns if not any(re.search(pattern, n) for n in names)]
    if idle:
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise UsageError(f"no tensor is called so: {', '.join(idle)}; the models have {shown}")


def _files(
    outputs: dict[str, Output], first: Checkpoint, shard_bytes: int | None, single: str | None
) -> dict[str, list[Output]]:
    if single is not None:
        return {single: list(outputs.values())}
    if shard_bytes is None and set(outputs) == set(first.tensors) and not _adapter(first):
        return {file: [outputs[name] for name in held] for file, held in first.files.items()}
    shards: list[list[Output]] = [[]]
    room = shard_bytes or math.inf
    for output in outputs.values():
        if shards[-1] and sum(other.bytes for other in shards[-1]) + output.bytes > room:
            shards.append([])
        shards[-1].append(output)
    if len(shards) == 1:
        return {SINGLE: shards[0]}
    count = len(shards)
    return {f"model-{i:05d}-of-{count:05d}.safetensors": held for i, held in enumerate(shards, 1)}


def _adapter(checkpoint: Checkpoint) -> bool:
    return any(name.startswith("adapter_") for name in checkpoint.files)


def index(plan: Plan) -> dict[str, object] | None:
    """Returns the index of a plan of several files; None for one file."""
    if len(plan.files) < 2:
        return None
    where = {output.name: file for file, held in plan.files.items() for output in held}
    return {"metadata": {"total_size": plan.bytes}, "weight_map": dict(sorted(where.items()))}
