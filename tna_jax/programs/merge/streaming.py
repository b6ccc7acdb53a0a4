"""Writes merged tensors: averages piece by piece, other methods tensor by tensor; memory does not grow with the models."""

import collections
import dataclasses
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tna_jax.io.errors import UsageError
from tna_jax.io.tensor_headers import Tensor, header
from tna_jax.programs.merge import folder_output
from tna_jax.programs.merge.plan import Output
from tna_jax.programs.merge.sequential import open_sequential
from tna_jax.programs.merge.similarity import Similarity

PIECE = 1 << 17
"""Entries of a piece: what several of them take stays in a core's cache."""
AHEAD = 3
"""Pieces computed ahead of the one being written, per thread."""
Whole = Callable[[Output], np.ndarray]
"""Computes a whole merged tensor in its own dtype: what `--method` is, where that is not the average."""


@dataclasses.dataclass
class Counts:
    """What a merge was made of."""

    models: int = 0
    entries: int = 0
    """Floating-point entries."""
    equal: int = 0
    """Of those, the ones equal in all models, copied bit for bit."""
    differing_integers: list[str] = dataclasses.field(default_factory=list)
    """Tensors that are not floating-point and differ: the first model's were taken."""
    not_finite: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Entries of the merge that are NaN or infinite, by tensor."""
    similarity: Similarity | None = None

    def add(self, output: Output, piece: "Piece") -> None:
        """Adds what is known of a piece."""
        self.not_finite.update({output.name: piece.not_finite} if piece.not_finite else {})
        if output.copied:
            return
        if output.sources[0].floating:
            self.entries += piece.values.size
            self.equal += piece.equal
        elif piece.equal < piece.values.size and output.name not in self.differing_integers:
            self.differing_integers.append(output.name)
        if piece.products is not None:
            self.similarity = self.similarity or Similarity.of(len(output.sources))
            self.similarity.add(piece.products)


class Piece(NamedTuple):
    """Entries of a merged tensor."""

    values: np.ndarray
    equal: int
    """Entries equal in all models."""
    not_finite: int
    """Entries that are NaN or infinite."""
    products: np.ndarray | None
    """Inner products, see `Similarity`."""


class Blender:
    """Computes pieces; one for a thread at a time, it keeps its buffers and open files."""

    def __init__(self, wide: np.dtype, whole: Whole | None = None) -> None:
        self.wide = wide
        self.whole = whole
        self.files: dict[Path, FileIO] = {}
        self.buffers: dict[tuple[str, int, np.dtype], np.ndarray] = {}

    def _buffer(self, purpose: str, number: int, dtype: np.dtype, size: int) -> np.ndarray:
        key = purpose, number, dtype
        if key not in self.buffers or len(self.buffers[key]) < size:
            self.buffers[key] = np.empty(max(size, PIECE), dtype)
        return self.buffers[key][:size]

    def _read(self, source: Tensor, number: int, first: int, size: int) -> np.ndarray:
        if type(source) is not Tensor:  # computed, see `adapters`
            return source.read().reshape(-1)[first : first + size]
        into = self._buffer("read", number, source.dtype, size)
        if source.file not in self.files:
            self.files[source.file] = open_sequential(source.file)
        view, offset = memoryview(into.view(np.uint8)), source.start + first * source.dtype.itemsize
        while len(view):
            got = os.preadv(self.files[source.file].fileno(), [view], offset)
            if not got:
                raise UsageError(f"{source.file} became shorter while it was read")
            view, offset = view[got:], offset + got
        return into

    def piece(self, output: Output, first: int, size: int) -> Piece:
        """Computes entries `first` to `first + size` of a merged tensor."""
        with np.errstate(over="ignore", invalid="ignore"):  # they are counted
            parts = [self._read(source, i, first, size) for i, source in enumerate(output.sources)]
            if output.copied:
                values, equal, products = parts[0].astype(output.dtype), size, None
            else:
                same = _same(parts)
                equal = int(np.count_nonzero(same))
                products = self._products(parts) if counts_similarity(output) else None
                values = self._merge(output, parts, same, equal, first, size)
        floating = output.sources[0].floating
        bad = size - int(np.count_nonzero(np.isfinite(values))) if floating else 0
        return Piece(values, equal, bad, products)

    def _merge(
        self, output: Output, parts: list[np.ndarray], same: np.ndarray, equal: int, first: int, size: int
    ) -> np.ndarray:
        if not output.sources[0].floating:
            return parts[0].copy()
        if equal == size and (output.base is None or _same([parts[0], self._read(output.base, -1, first, size)]).all()):
            return parts[0].astype(output.dtype)
        if self.whole is None:
            return self.average(parts, np.asarray(output.weights), same, equal, output.dtype)
        values = self.whole(output).reshape(-1)
        if output.base is not None:
            np.logical_and(same, _same([parts[0], self._read(output.base, -1, first, size)]), out=same)
        self._take(values, parts[0].astype(output.dtype, copy=False), same)
        return values

    def average(
        self, parts: list[np.ndarray], weights: np.ndarray, same: np.ndarray, equal: int, dtype: np.dtype
    ) -> np.ndarray:
        """Computes the weighted average of pieces.

        Laws: as `tna_jax.weighted_average`: a single weight that is not 0 gives that model, equal entries are copied.
        """
        weights = weights / weights.sum()
        used = np.flatnonzero(weights)
        if len(used) == 1:
            single: np.ndarray = parts[used[0]].astype(dtype)
            return single
        double = any(part.dtype == np.float64 for part in parts) or dtype == np.float64
        wide = np.promote_types(self.wide, np.float64) if double else self.wide
        total, term = np.empty(len(same), wide), self._buffer("term", 0, wide, len(same))
        for turn, i in enumerate(used):
            into = term if turn else total
            np.multiply(parts[i], weights[i], out=into, dtype=wide, casting="unsafe")
            if turn:
                np.add(total, term, out=total)
        average: np.ndarray = total.astype(dtype, copy=False)
        if equal:
            self._take(average, parts[0].astype(dtype, copy=False), same)
        return average

    def _take(self, values: np.ndarray, source: np.ndarray, where: np.ndarray) -> None:
        """Puts the entries of `source` where `where` says so into `values`, bit for bit.

        As `np.copyto(values, source, where=where)`, which takes ten times as long: it branches at every entry, and where anchors lie no
        processor can guess.
        """
        kind = np.dtype(f"u{values.dtype.itemsize}")
        bits, changed = values.view(kind), self._buffer("changed", 0, kind, len(values))
        np.bitwise_xor(bits, source.view(kind), out=changed)
        np.multiply(changed, where, out=changed)
        np.bitwise_xor(bits, changed, out=bits)

    def _products(self, parts: list[np.ndarray]) -> np.ndarray:
        """Computes the inner products of [first model, differences from it] in a piece."""
        single = np.dtype(np.float32)
        rows = [parts[0].astype(single, copy=False)]
        for i, part in enumerate(parts[1:]):
            row = self._buffer("row", i, single, len(part))
            rows.append(np.subtract(part, rows[0], out=row, dtype=single, casting="unsafe"))
        products = np.zeros((len(rows), len(rows)))
        for i, row in enumerate(rows):  # one by one: a product of so flat a matrix is slower
            products[i, i:] = products[i:, i] = [np.dot(row, other) for other in rows[i:]]
        return products

    def close(self) -> None:
        """Closes the files."""
        for file in self.files.values():
            file.close()


def counts_similarity(output: Output) -> bool:
    """Whether a tensor counts for how close models are, see `similarity`."""
    return output.sources[0].floating and len(output.shape) > 1


def _same(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Returns where all parts hold the same bits; of different dtypes, the same values."""
    alike = all(part.dtype == parts[0].dtype for part in parts)
    bits = [part.view(f"u{part.dtype.itemsize}") for part in parts] if alike else list(parts)
    if len(bits) == 1:
        return np.ones(len(bits[0]), bool)
    same: np.ndarray = bits[0] == bits[1]
    for other in bits[2:]:
        np.logical_and(same, bits[0] == other, out=same)
    return same


def pieces(outputs: Sequence[Output], whole: bool = False) -> Iterator[tuple[Output, int, int]]:
    """Yields the pieces of tensors in their order: (tensor, first entry, number of entries).

    Args:
      outputs: the tensors.
      whole: whether the method needs each tensor as a whole; copied tensors are cut all the same.
    """
    for output in outputs:
        computed = any(type(source) is not Tensor for source in output.sources)
        step = max(output.size, 1) if computed or (whole and not output.copied) else PIECE
        for first in range(0, output.size, step):
            yield output, first, min(step, output.size - first)


def write(
    out: Path,
    outputs: Sequence[Output],
    metadata: dict[str, str],
    counts: Counts,
    *,
    wide: np.dtype,
    whole: Whole | None = None,
    advance: Callable[[int], None] = lambda bytes: None,
    threads: int | None = None,
) -> None:
    """Writes merged tensors as one safetensors file, whole or not at all: renamed when its last byte is on disk.

    Args:
      out: the file.
      outputs: in the order in which they are written.
      metadata: of the file.
      counts: what was merged is added to it.
      wide: dtype in which is summed, float32 or float64 (float64 tensors always in float64).
      whole: the method, for whole tensors; None averages.
      advance: called with the number of bytes that were written.
      threads: that compute; default: one for each core, at most 4; one for methods that need whole tensors.
    """
    threads = threads or (1 if whole is not None else min(os.cpu_count() or 1, 4))
    ahead = AHEAD * threads if whole is None else 0
    local, blenders = threading.local(), []

    def start() -> None:
        local.blender = Blender(wide, whole)
        blenders.append(local.blender)

    partial = folder_output.partial(out)
    waiting: collections.deque[tuple[Output, Future[Any]]] = collections.deque()
    try:
        with open(partial, "wb") as file, ThreadPoolExecutor(threads, initializer=start) as pool:
            file.write(header({output.name: output for output in outputs}, metadata))

            def finish() -> None:
                output, future = waiting.popleft()
                piece: Piece = future.result()
                file.write(memoryview(np.ascontiguousarray(piece.values).view(np.uint8)))
                advance(piece.values.nbytes)
                counts.add(output, piece)

            try:
                for output, first, size in pieces(outputs, whole is not None):
                    waiting.append(
                        (output, pool.submit(lambda *piece: local.blender.piece(*piece), output, first, size))
                    )
                    if len(waiting) > ahead:
                        finish()
                while waiting:
                    finish()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
        for blender in blenders:
            blender.close()
