"""The devices a program runs on."""

import logging
import os

import jax

YNN_OFF = "--xla_cpu_experimental_ynn_fusion_type="


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
    logging.getLogger("absl").setLevel(logging.WARNING)  # orbax tells each save at length


def describe() -> dict[str, object]:
    """The devices in words, for a run's provenance."""
    devices = jax.devices()
    return {"backend": jax.default_backend(), "kind": devices[0].device_kind, "count": len(devices), "cpu": _cpu_name()}


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        import platform

        return platform.processor() or platform.machine()
