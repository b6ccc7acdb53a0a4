"""The devices a program runs on, and the other processes of its job."""

import os
import sys
from pathlib import Path
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from tna_jax import backend
from tna_jax.io import switches
from tna_jax.io.errors import UsageError
from tna_jax.io.run_folder import CONFIG, PROVENANCE, read_object
from tna_jax.programs.cli.messages import print_warning
from tna_jax.programs.cli.progress import console
from tna_jax.programs.cli.run_options import MachineOptions


def start(settings: MachineOptions, members: int) -> None:
    """Sets the backend up for `members` models and joins the other processes; process 0 alone speaks from now on."""
    backend.configure(settings.cpu_devices, members)
    if settings.coordinator is not None or settings.distributed:
        _join(settings)
    if jax.default_backend() != "cpu":
        full = settings.precision == "float32"
        jax.config.update("jax_default_matmul_precision", "float32" if full else "tensorfloat32")
    console.quiet = not is_main_process()
    if getattr(settings, "resume", False) and settings.out is not None:  # type: ignore[attr-defined]
        _restore_switches(Path(settings.out))  # type: ignore[attr-defined]
    if warning := backend.idle_gpu():
        print_warning(warning)


def _join(settings: MachineOptions) -> None:
    """Joins the other processes of the job: those that the options name, or those of the cluster that this one runs on."""
    job = (settings.coordinator, settings.num_processes, settings.process_id)
    try:
        jax.distributed.initialize(
            *(job if settings.coordinator else (None, None, None)), heartbeat_timeout_seconds=HEARTBEAT
        )
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        if settings.coordinator is not None:
            raise UsageError(
                f"--coordinator {settings.coordinator}: this process cannot join the others ({reason})"
            ) from error
        raise UsageError(
            f"--distributed: no cluster is seen here that JAX knows (Slurm, MPI, Kubernetes, a TPU pod): {reason} On other machines give "
            "--coordinator HOST:PORT --num-processes N --process-id I, or leave it away on one"
        ) from error


def _restore_switches(folder: Path) -> None:
    """Sets JAX's switches as the run in `folder` recorded them, and says so; a run of before they were recorded has none.

    Nor has one that was killed before its configuration was written: it starts anew, whatever it left.
    """
    if not all((folder / name).is_file() for name in (CONFIG, PROVENANCE)):
        return
    recorded = read_object(folder / PROVENANCE).get("switches")
    if not isinstance(recorded, dict):
        return
    if jax.default_backend() != "cpu":  # --precision decides there
        recorded = {name: value for name, value in recorded.items() if name != "jax_default_matmul_precision"}
    for name, before in switches.restore(recorded, str(folder)).items():
        console.print(f"{name} is {recorded[name]}, as the run was started (here it was {before})", highlight=False)


def is_main_process() -> bool:
    """Returns whether this process is the one that prints and writes."""
    return jax.process_index() == 0


HEARTBEAT = 60
"""Seconds without a sign of life after which a process of a job is given up by the others."""
LOSSES = ("Gloo", "heartbeat", "oordination service", "UNAVAILABLE", "DEADLINE_EXCEEDED", "Connection reset", "Barrier")
"""What errors of JAX's communication say when another process is gone."""


def is_peer_lost(error: Exception) -> bool:
    """Returns whether `error` comes from another process of the job being gone."""
    return jax.process_count() > 1 and any(sign in str(error) for sign in LOSSES)


def abort(message: str) -> NoReturn:
    """Ends this process at once with exit code 1 and a line on stderr: the usual end would wait for the others."""
    print(message, file=sys.stderr, flush=True)
    os._exit(1)


def broadcast_text(value: str) -> str:
    """Returns the `value` of the main process on every process; all must call it."""
    if jax.process_count() == 1:
        return value
    buffer = np.zeros(4096, np.uint8)
    data = np.frombuffer(value.encode()[:4096], np.uint8)
    buffer[: len(data)] = data
    received: np.ndarray = np.asarray(multihost_utils.broadcast_one_to_all(buffer))
    return received.tobytes().rstrip(b"\0").decode()


def any_process(value: bool) -> bool:
    """Returns whether `value` holds on any process; all must call it."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.process_allgather(np.array(value)).any())
