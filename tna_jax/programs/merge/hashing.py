"""The SHA-256 of the files that are merged, computed while the merge runs."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tna_jax.io.tensor_headers import Checkpoint
from tna_jax.programs.merge import verify_anchors

READ = 1 << 22
"""Bytes that are read at a time."""


class Hashing:
    """The SHA-256 of every file that is merged, computed in a thread while the merge runs; closing it ends it at once."""

    def __init__(self, checkpoints: list[Checkpoint], base: Checkpoint | None) -> None:
        held = [*checkpoints, *([base] if base is not None else [])]
        self.files = sorted(
            {file for c in held for tensor in c.tensors.values() for file in verify_anchors.files_of(tensor)}
        )
        self.stopped = False
        self.pool = ThreadPoolExecutor(1)
        self.digests = self.pool.submit(lambda: {str(file): self._digest(file) for file in self.files})

    def _digest(self, file: Path) -> str:
        digest = hashlib.sha256()
        with open(file, "rb") as opened:
            while not self.stopped and (part := opened.read(READ)):
                digest.update(part)
        return digest.hexdigest()

    def result(self) -> dict[str, str]:
        """Returns the hashes by path, when all are known."""
        return self.digests.result()

    def close(self) -> None:
        """Ends the thread, finished or not."""
        self.stopped = True
        self.pool.shutdown()
