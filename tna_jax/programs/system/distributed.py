"""The devices a program runs on."""

import dataclasses
import os
import sys
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from tna_jax import backend
from tna_jax.io.errors import UsageError, unknown
from tna_jax.programs.cli.progress import console


@dataclasses.dataclass(frozen=True)
class HostOptions:
    """On which machines and devices?"""

    cpu_devices: int | None = None
    """CPU devices of a process to spread the models over; default: one per core."""
    precision: str = "float32"
    """Arithmetic of the networks: float32, tf32 (matrix products of NVIDIA GPUs), bf16. Parameters stay float32."""
    distributed: bool = False
    """Run as one process of several, as the cluster tells (TPU pod, SLURM, Open MPI): start the same command on each host."""
    coordinator: str | None = None
    """Run as one process of several: address of process 0, HOST:PORT; with --num-processes and --process-id."""
    num_processes: int | None = None
    """Number of processes."""
    process_id: int | None = None
    """Number of this process, from 0."""

    def check(self) -> None:
        """Raises UsageError for options that do not go together; of several processes the first speaks from now on."""
        if self.precision not in PRECISIONS:
            raise unknown("--precision", self.precision, PRECISIONS)
        if self.cpu_devices is not None and self.cpu_devices < 1:
            raise UsageError(f"--cpu-devices must be at least 1, got {self.cpu_devices}")
        explicit = (self.coordinator, self.num_processes, self.process_id)
        if any(value is not None for value in explicit):
            if any(value is None for value in explicit):
                raise UsageError("--coordinator, --num-processes and --process-id go together: give all three")
            if not 0 <= (self.process_id or 0) < (self.num_processes or 0):
                raise UsageError(
                    f"--process-id must lie in 0 to {(self.num_processes or 0) - 1}, got {self.process_id}"
                )
            if ":" not in (self.coordinator or ""):
                raise UsageError(f"--coordinator must be HOST:PORT, got {self.coordinator}")
            console.quiet = bool(self.process_id)

    def start(self, members: int) -> None:
        """Sets the backend up for `members` models and joins the other processes; process 0 alone speaks from now on."""
        backend.configure(self.cpu_devices, members)
        if self.coordinator is not None:
            jax.distributed.initialize(
                self.coordinator, self.num_processes, self.process_id, heartbeat_timeout_seconds=HEARTBEAT
            )
        elif self.distributed:
            jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT)
        if jax.default_backend() != "cpu":
            full = self.precision == "float32"
            jax.config.update("jax_default_matmul_precision", "float32" if full else "tensorfloat32")
        console.quiet = not is_main_process()
        if told := backend.idle_gpu():
            console.print(f"warning: {told}", highlight=False)


PRECISIONS = ("float32", "tf32", "bf16")


def is_main_process() -> bool:
    """Whether this process is the one that prints and writes."""
    return jax.process_index() == 0


def print_user_error(message: str) -> int:
    """Prints one line on stderr, once for all processes; returns the exit code for input that is the user's to mend."""
    if not console.quiet:
        print(message, file=sys.stderr)
    return 2


HEARTBEAT = 60
"""Seconds without a sign of life after which a process of a job is given up by the others."""
LOSSES = ("Gloo", "heartbeat", "oordination service", "UNAVAILABLE", "DEADLINE_EXCEEDED", "Connection reset", "Barrier")
"""What errors of JAX's communication say when another process is gone."""


def is_peer_lost(error: Exception) -> bool:
    """Whether `error` comes from another process of the job being gone."""
    return jax.process_count() > 1 and any(sign in str(error) for sign in LOSSES)


def abort(message: str) -> NoReturn:
    """Ends this process at once with exit code 1 and a line on stderr: the usual end would wait for the others."""
    print(message, file=sys.stderr, flush=True)
    os._exit(1)


def broadcast_text(value: str) -> str:
    """The leader's `value`, on every process; all must call it."""
    if jax.process_count() == 1:
        return value
    sent = np.zeros(4096, np.uint8)
    data = np.frombuffer(value.encode()[:4096], np.uint8)
    sent[: len(data)] = data
    return multihost_utils.broadcast_one_to_all(sent).tobytes().rstrip(b"\0").decode()


def any_process(value: bool) -> bool:
    """Whether `value` holds on any process; all must call it."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.process_allgather(np.array(value)).any())
