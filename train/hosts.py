"""The devices a program runs on."""

import dataclasses
import hashlib
import importlib.util
import logging
import os
import platform
import sys
from pathlib import Path
from typing import Any, NoReturn

import jax
import jaxlib
import numpy as np
from jax.experimental import multihost_utils

from train.errors import UsageError, unknown
from train.progress import console

YNN_OFF = "--xla_cpu_experimental_ynn_fusion_type="


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
        configure(self.cpu_devices, members)
        if self.coordinator is not None:
            jax.distributed.initialize(
                self.coordinator, self.num_processes, self.process_id, heartbeat_timeout_seconds=HEARTBEAT
            )
        elif self.distributed:
            jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT)
        if jax.default_backend() != "cpu":
            full = self.precision == "float32"
            jax.config.update("jax_default_matmul_precision", "float32" if full else "tensorfloat32")
        console.quiet = not leads()
        if told := idle_gpu():
            console.print(f"warning: {told}", highlight=False)


PRECISIONS = ("float32", "tf32", "bf16")


def leads() -> bool:
    """Whether this process is the one that prints and writes."""
    return jax.process_index() == 0


def complain(message: str) -> int:
    """Prints one line on stderr, once for all processes; returns the exit code for input that is the user's to mend."""
    if not console.quiet:
        print(message, file=sys.stderr)
    return 2


HEARTBEAT = 60
"""Seconds without a sign of life after which a process of a job is given up by the others."""
LOSSES = ("Gloo", "heartbeat", "oordination service", "UNAVAILABLE", "DEADLINE_EXCEEDED", "Connection reset", "Barrier")
"""What errors of JAX's communication say when another process is gone."""


def lost(error: Exception) -> bool:
    """Whether `error` comes from another process of the job being gone."""
    return jax.process_count() > 1 and any(sign in str(error) for sign in LOSSES)


def leave(message: str) -> NoReturn:
    """Ends this process at once with exit code 1 and a line on stderr: the usual end would wait for the others."""
    print(message, file=sys.stderr, flush=True)
    os._exit(1)


def agree(value: str) -> str:
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


NVIDIA = Path("/dev/nvidia0")


def idle_gpu() -> str:
    """Why a GPU is not used that was meant to be, in a sentence; empty where all is well, or the CPU was asked for."""
    asked = os.environ.get("JAX_PLATFORMS", "")
    if jax.default_backend() != "cpu" or "cpu" in asked.split(","):
        return ""
    plugins = [name for name in ("jax_cuda12_plugin", "jax_cuda13_plugin") if importlib.util.find_spec(name)]
    if plugins and not NVIDIA.exists():
        return (
            "running on the CPU although JAX's CUDA build is installed: this machine shows no NVIDIA GPU (nvidia-smi lists what the "
            "driver sees). JAX_PLATFORMS=cpu says that this is meant"
        )
    if plugins:
        return (
            "running on the CPU although there is an NVIDIA GPU and JAX's CUDA build is installed: the driver is too old or the GPU "
            "is taken; JAX_PLATFORMS=cuda python -c 'import jax; jax.devices()' shows why"
        )
    if NVIDIA.exists():
        return (
            "running on the CPU although there is an NVIDIA GPU: pip install 'tna-jax[cuda12]' puts JAX's CUDA build in; "
            "JAX_PLATFORMS=cpu says that this is meant"
        )
    return ""


def exhausted(error: BaseException) -> bool:
    """Whether `error` says that a device or the machine ran out of memory."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error)


def configure(cpu_devices: int | None = None, members: int = 1) -> None:
    """Sets the backend up for ensembles; call it before anything is computed.

    On the CPU, JAX shows one device however many cores there are. We show one per core, so that members train side by side,
    each in its own core's cache (never more devices than members). jaxlib 0.10's new CPU kernels are switched off: with
    them a model's bits depend on the placement (and some losses run 2-8 times slower).

    Args:
      cpu_devices: number of CPU devices, `None` for one per usable core. An XLA_FLAGS device count set by the user wins.
      members: number of models that will train.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if jax.__version_info__ < (0, 11) and "ynn_fusion" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {YNN_OFF}".strip()
    if "xla_force_host_platform_device_count" not in flags:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        wanted = cpu_devices or max(1, min(cores, members))
        try:
            jax.config.update("jax_num_cpu_devices", wanted)
        except RuntimeError:
            pass  # the backend is up already (a notebook, a test): it keeps its devices
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax tells each save and failure at length; we do in a line
    _keep_compiled_programs()


def _keep_compiled_programs() -> None:
    """Turns JAX's persistent compilation cache on, in the user's cache folder, unless the user has set one or turned it off.

    One folder for each jaxlib and kind of processor: a program compiled for another CPU might not run on this one.
    """
    config: Any = jax.config
    if config.jax_compilation_cache_dir or not config.jax_enable_compilation_cache:
        return
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = root / "tna_jax" / f"{platform.machine()}-{_cpu_kind()}-jaxlib-{jaxlib.__version__}"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return  # no home that can be written: compile each time
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.02)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _cpu_kind() -> str:
    """A short name for the processor's instruction sets, equal on machines that can run each other's programs."""
    lines = [line for line in _cpu_lines() if line.startswith(("vendor_id", "model name", "flags", "Features"))]
    return hashlib.sha256("".join(sorted(set(lines))).encode()).hexdigest()[:8]


def _cpu_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines(keepends=True)
    except OSError:
        return [platform.processor()]


def describe() -> dict[str, object]:
    """The devices in words, for a run's provenance."""
    devices = jax.devices()
    return {
        "backend": jax.default_backend(),
        "kind": devices[0].device_kind,
        "count": len(devices),
        "processes": jax.process_count(),
        "cpu": _cpu_name(),
    }


def _cpu_name() -> str:
    names = (line.split(":", 1)[1].strip() for line in _cpu_lines() if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
