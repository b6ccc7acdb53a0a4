"""`tna devices`: what JAX sees here, how models would be placed on it, and how fast it multiplies matrices."""

import time
from typing import Any

import jax
import jax.numpy as jnp
from rich.table import Table

from tna_jax.programs.cli.progress import wide_console
from tna_jax.programs.devices.options import DevicesOptions
from tna_jax.programs.system import distributed, memory


def run(settings: DevicesOptions) -> None:
    """Prints the table."""
    settings.check()
    distributed.start(settings, 1_000_000)
    if not distributed.is_main_process():
        return
    lines = Table(title=f"JAX {jax.__version__}, backend {jax.default_backend()}", title_justify="left")
    for head in ("device", "kind", "process", "free memory"):
        lines.add_column(head)
    for device in jax.devices():
        stats = (device.memory_stats() or {}) if device.process_index == jax.process_index() else {}
        free = stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0)
        shown = f"{free / memory.GB:.1f} GB" if free > 0 else "shared" if device.platform == "cpu" else "-"
        lines.add_row(str(device), device.device_kind, str(device.process_index), shown)
    wide_console().print(lines)
    cpu = jax.default_backend() == "cpu"
    print(f"free for models: {memory.available() / memory.GB:.1f} GB {'in all' if cpu else 'on each device'}")
    print("--placement auto: " + ("map, or loop for convolutions" if cpu else "vmap, or map for convolutions"))
    cache = jax.config.values.get("jax_compilation_cache_dir")
    print(f"compiled programs are kept in {cache}" if cache else "compiled programs are not kept")
    if settings.measure:
        for dtype in (jnp.float32, jnp.bfloat16):
            print(f"matrix product, {jnp.dtype(dtype).name}: {product_rate(dtype) / 1e12:.2f} Tflop/s")


def product_rate(dtype: Any, size: int | None = None) -> float:
    """Measures one square matrix product on one device: the best of five rates, flop/s."""
    size = size or (2048 if jax.default_backend() == "cpu" else 8192)
    a = jnp.ones((size, size), dtype)
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        product(a).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
