"""The devices JAX computes on: set up for ensembles before anything is computed, and described afterwards."""

import contextlib
import glob
import hashlib
import importlib.util
import logging
import os
import platform
import re
import warnings
from pathlib import Path
from typing import Any

import jax
import jaxlib.version

YNN_OFF = "--xla_cpu_experimental_ynn_fusion_type="
"""Switches the CPU kernels off that jaxlib 0.10 to 0.12 takes by default, see `configure`."""
NVIDIA = Path("/dev/nvidia0")
"""There where the machine shows an NVIDIA GPU."""


def idle_gpu() -> str:
    """Says in a sentence why a GPU is not used that was meant to be; empty where all is well, or the CPU was chosen."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if jax.default_backend() != "cpu" or "cpu" in platforms.split(","):
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
    """Returns whether `error` says that a device or the machine ran out of memory."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error)


def configure(cpu_devices: int | None = None, members: int = 1) -> None:
    """Sets the backend up for ensembles; call it before anything is computed.

    On the CPU, JAX shows one device however many cores there are. This shows one per core, so that members train side by side,
    each in the cache of a core (never more devices than members). The CPU kernels called YNN of jaxlib 0.10 to 0.12 are switched off: with
    them the gradient of a convolution's kernel takes 2 to 8 times as long (`benchmarks.convolution_ways`), and a model's bits depend on the
    placement. A later jaxlib is left as it is: it may not know the flag, which would stop it.

    Args:
      cpu_devices: number of CPU devices, `None` for one per usable core. An XLA_FLAGS device count set by the user wins.
      members: number of models that will train.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if jax.__version_info__ < (0, 13) and "ynn_fusion" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {YNN_OFF}".strip()
    if "xla_force_host_platform_device_count" not in flags:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        count = cpu_devices or max(1, min(cores, members))
        try:
            jax.config.update("jax_num_cpu_devices", count)
        except RuntimeError:
            pass  # the backend is up already (a notebook, a test): it keeps its devices
    logging.getLogger("absl").setLevel(
        logging.CRITICAL
    )  # orbax logs each save and failure at length; the programs do in a line
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
        folder = root / "tna_jax" / f"{platform.machine()}-{_cpu_kind()}-jaxlib-{jaxlib.version.__version__}"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return  # no home that can be written: compile each time
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.02)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        _mend_damaged_programs(folder)


_DAMAGED = re.compile(r"Error (?:reading|writing) persistent compilation cache entry for '([^']+)'")
"""What JAX says of a program that is cut off (killed in the middle of writing it, a full disk) or could not be written."""


def _mend_damaged_programs(folder: Path) -> None:
    """Removes the kept programs that JAX warns of, in place of the warning: it never replaces one, and would warn for ever.

    It has compiled the program, or is about to, so that nothing is lost but time.
    """
    warnings.filterwarnings("always", message=_DAMAGED.pattern)
    show = warnings.showwarning

    def mend(message: Warning | str, *where: Any, **more: Any) -> None:
        if (named := _DAMAGED.match(str(message))) is None:
            return show(message, *where, **more)
        with contextlib.suppress(OSError):
            for program in folder.glob(f"{glob.escape(named[1])}-*"):
                program.unlink(missing_ok=True)

    warnings.showwarning = mend


def _cpu_kind() -> str:
    """Returns a short name for the processor's instruction sets, equal on machines that can run each other's programs."""
    lines = [line for line in _cpu_lines() if line.startswith(("vendor_id", "model name", "flags", "Features"))]
    return hashlib.sha256("".join(sorted(set(lines))).encode()).hexdigest()[:8]


def _cpu_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines(keepends=True)
    except OSError:
        return [platform.processor()]


def describe() -> dict[str, object]:
    """Describes the devices for a run's provenance."""
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
