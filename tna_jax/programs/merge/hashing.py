"""The SHA-256 of the files that are merged, computed while the merge runs."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tna_jax.io.tensor_headers import Checkpoint
from tna_jax.programs.merge import verify_anchors
from tna_jax.programs.merge.sequential import open_sequential

READ = 1 << 18
"""Bytes that are read at a time: they stay in a core's cache."""


class Hashing:
    """The SHA-256 of every file that is merged, computed in threads while the merge runs; closing it ends them at once.

    A thread hashes less than what a merge reads and writes meanwhile, so that a single one for all files would be what a merge waits for.
    """

    def __init__(self, checkpoints: list[Checkpoint], base: Checkpoint | None) -> None:
        held = [*checkpoints, *([base] if base is not None else [])]
        self.files = sorted(
            {file for c in held for tensor in c.tensors.values() for file in verify_anchors.files_of(tensor)}
        )
        self.stopped = False
        self.pool = ThreadPoolExecutor(max(1, min(len(self.files), os.cpu_count() or 1, 4)))
        self.digests = {str(file): self.pool.submit(self._digest, file) for file in self.files}

    def _digest(self, file: Path) -> str:
        digest, buffer = hashlib.sha256(), memoryview(bytearray(READ))
        with open_sequential(file) as opened:
            while not self.stopped and (size := opened.readinto(buffer)):
                digest.update(buffer[:size])
        return digest.hexdigest()

    def result(self) -> dict[str, str]:
        """Returns the hashes by path, when all are known."""
        return {name: digest.result() for name, digest in self.digests.items()}

    def close(self) -> None:
        """Ends the threads, finished or not."""
        self.stopped = True
        self.pool.shutdown()
