"""Averages checkpoint files piece by piece: what is in memory at any time are a few pieces of a few megabytes."""

import collections
import dataclasses
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tna_jax.io.errors import UsageError
from tna_jax.io.tensor_headers import Checkpoint, Tensor, header

PIECE = 1 << 17
"""Entries of a piece: what several of them take stays in a core's cache."""
AHEAD = 3
"""Pieces computed ahead of the one being written, per thread."""


@dataclasses.dataclass
class Counts:
    """What an average was made of."""

    entries: int = 0
    """Floating-point entries."""
    equal: int = 0
    """Of those, the ones equal in all models, copied bit for bit."""
    differing_integers: list[str] = dataclasses.field(default_factory=list)
    """Tensors that are not floating-point and differ: the first model's were taken."""
    not_finite: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Entries of the average that are NaN or infinite, by tensor."""


class Blender:
    """The weighted average of pieces of several files; one for a thread at a time, it keeps its buffers."""

    def __init__(self, weights: np.ndarray, wide: np.dtype) -> None:
        self.weights = weights / weights.sum()
        self.wide = wide
        self.files: dict[Path, BinaryIO] = {}
        self.buffers: dict[tuple[str, int, np.dtype], np.ndarray] = {}

    def _buffer(self, purpose: str, number: int, dtype: np.dtype, size: int) -> np.ndarray:
        key = purpose, number, dtype
        if key not in self.buffers:
            self.buffers[key] = np.empty(PIECE, dtype)
        return self.buffers[key][:size]

    def _read(self, tensor: Tensor, number: int, first: int, size: int) -> np.ndarray:
        into = self._buffer("read", number, tensor.dtype, size)
        if tensor.file not in self.files:
            self.files[tensor.file] = open(tensor.file, "rb", buffering=0)  # noqa: SIM115, closed by close()
        view, offset = memoryview(into.view(np.uint8)), tensor.start + first * tensor.dtype.itemsize
        while len(view):
            got = os.preadv(self.files[tensor.file].fileno(), [view], offset)
            if not got:
                raise UsageError(f"{tensor.file} became shorter while it was read")
            view, offset = view[got:], offset + got
        return into

    def checked(self, tensors: list[Tensor], first: int, size: int) -> tuple[np.ndarray, int, bool, int]:
        """Computes a piece as `piece` does, and how many of its entries are NaN or infinite."""
        with np.errstate(over="ignore", invalid="ignore"):  # they are counted
            average, equal, differs = self.piece(tensors, first, size)
        bad = size - int(np.count_nonzero(np.isfinite(average))) if tensors[0].floating else 0
        return average, equal, differs, bad

    def piece(self, tensors: list[Tensor], first: int, size: int) -> tuple[np.ndarray, int, bool]:
        """Computes entries `first` to `first + size` of the average, how many are equal in all models, whether any integer differs.

        Laws: as `tna_jax.weighted_average`: a single weight that is not 0 gives that model, equal entries are copied.
        """
        parts = [self._read(tensor, i, first, size) for i, tensor in enumerate(tensors)]
        bits = [part.view(f"u{part.dtype.itemsize}") for part in parts]
        equal = np.ones(size, bool)
        for other in bits[1:]:
            np.logical_and(equal, bits[0] == other, out=equal)
        count = int(np.count_nonzero(equal))
        used = np.flatnonzero(self.weights)
        if not tensors[0].floating or count == size:
            return parts[0].copy(), count, count < size
        if len(used) == 1:
            return parts[used[0]].copy(), count, False
        wide = np.promote_types(self.wide, np.float64) if tensors[0].kind == "F64" else self.wide
        total, term = np.empty(size, wide), self._buffer("term", 0, wide, size)
        for turn, i in enumerate(used):
            into = term if turn else total
            np.multiply(parts[i], self.weights[i], out=into, dtype=wide, casting="unsafe")
            if turn:
                np.add(total, term, out=total)
        average = total.astype(parts[0].dtype, copy=False)
        if count:
            np.copyto(average, parts[0], where=equal)
        return average, count, False

    def close(self) -> None:
        """Closes the files."""
        for file in self.files.values():
            file.close()


def pieces(columns: dict[str, list[Tensor]]) -> Iterator[tuple[str, int, int]]:
    """Yields the pieces of tensors in their order: (name, first entry, number of entries)."""
    for name, (tensor, *_) in columns.items():
        for first in range(0, tensor.size, PIECE):
            yield name, first, min(PIECE, tensor.size - first)


def write(
    out: Path,
    checkpoints: list[Checkpoint],
    names: list[str],
    weights: np.ndarray,
    metadata: dict[str, str],
    counts: Counts,
    *,
    wide: np.dtype,
    advance: Callable[[int], None] = lambda bytes: None,
    threads: int | None = None,
) -> None:
    """Writes the average of some tensors as one safetensors file, whole or not at all: renamed when its last byte is on disk.

    Args:
      out: the file.
      checkpoints: M of them, of the same tensors.
      names: of the tensors, in the order in which they are written.
      weights: (M,) float64, sum not 0.
      metadata: of the file.
      counts: what was averaged is added to it.
      wide: dtype in which is summed, float32 or float64 (float64 tensors always in float64).
      advance: called with the number of bytes that were written.
      threads: that compute; default: one for each core, at most 4.
    """
    columns = {name: [checkpoint.tensors[name] for checkpoint in checkpoints] for name in names}
    threads = threads or min(os.cpu_count() or 1, 4)
    local, blenders = threading.local(), []

    def start() -> None:
        local.blender = Blender(weights, wide)
        blenders.append(local.blender)

    partial = out.with_name(f".{out.name}.{os.getpid()}.part")
    waiting: collections.deque[tuple[str, Future[Any]]] = collections.deque()
    try:
        with open(partial, "wb") as file, ThreadPoolExecutor(threads, initializer=start) as pool:
            file.write(header({name: column[0] for name, column in columns.items()}, metadata))

            def finish() -> None:
                name, future = waiting.popleft()
                average, equal, differs, bad = future.result()
                file.write(memoryview(average.view(np.uint8)))
                advance(average.nbytes)
                counts.not_finite.update({name: bad} if bad else {})
                if columns[name][0].floating:
                    counts.entries += average.size
                    counts.equal += equal
                elif differs and name not in counts.differing_integers:
                    counts.differing_integers.append(name)

            for name, first, size in pieces(columns):
                waiting.append(
                    (name, pool.submit(lambda *piece: local.blender.checked(*piece), columns[name], first, size))
                )
                if len(waiting) > AHEAD * threads:
                    finish()
            while waiting:
                finish()
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
        for blender in blenders:
            blender.close()
