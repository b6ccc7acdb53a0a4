"""Bytes on one device of eight, and between the devices, of the FSDP training step in `examples/fsdp`, with anchors and without.

Goal: the mask is split as the parameters are, an eighth on each device at one byte an entry, and the step moves nothing more
between devices. Counts, not times: the same on every machine with this compiler. Ten seconds.
"""

import importlib.util
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import AxisType

from benchmarks.timing import report
from tna_jax import backend

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "fsdp" / "train.py"
DEVICES, BATCH = 8, 16


def load_example() -> Any:
    """Imports the example, which is a program and no module of a package."""
    spec = importlib.util.spec_from_file_location("fsdp_example", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measured(example: Any, ratio: float | None) -> dict[str, Any]:
    """Bytes of the state on device 0, what the compiled step needs on each device, and its collectives."""
    devices = jax.devices()
    mesh = jax.make_mesh((len(devices),), ("fsdp",), axis_types=(AxisType.Auto,))
    loop = example.make_loop(mesh, ratio)
    with jax.set_mesh(mesh), nn.logical_axis_rules(example.RULES):
        state = loop.init(jax.random.key(0))
    tokens = jax.device_put(example.batches(BATCH, 1)[0], loop.data)
    memory: Any = loop.step.lower(state, tokens).compile().memory_analysis()
    adam = state.opt_state[0] if ratio is None else state.opt_state.inner[0]
    parts = {
        "parameters": state.params,
        "moments": (adam.mu, adam.nu),
        **({} if ratio is None else {"mask": state.opt_state.mask}),
    }
    return {
        "bytes_in_all": {name: sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) for name, tree in parts.items()},
        "bytes_on_a_device": {name: example.bytes_on(tree, devices[0]) for name, tree in parts.items()},
        "step_arguments_on_a_device": memory.argument_size_in_bytes,
        "step_temporaries_on_a_device": memory.temp_size_in_bytes,
        "collectives": {f"{kind} {shape}": n for (kind, shape), n in sorted(example.collectives(loop.step, state, tokens).items())},
    }  # fmt: skip


if __name__ == "__main__":
    backend.configure(cpu_devices=DEVICES)
    program = load_example()
    plain, anchored = (measured(program, ratio) for ratio in (None, 0.4))
    entries = sum(plain["bytes_in_all"].values()) // 12  # float32: a parameter and two moments
    report(
        "fsdp",
        {
            "devices": DEVICES,
            "parameters": entries,
            "plain": plain,
            "anchored": anchored,
            "mask_bytes_an_entry_on_a_device_times_devices": anchored["bytes_on_a_device"]["mask"] * DEVICES / entries,
            "state_on_a_device_ratio": sum(anchored["bytes_on_a_device"].values()) / sum(plain["bytes_on_a_device"].values()),
            "same_collectives": plain["collectives"] == anchored["collectives"],
        },
    )  # fmt: skip
