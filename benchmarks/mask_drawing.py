"""What drawing the mask of a Transformer of 117 leaves costs inside a program: seconds of compiling, bytes, seconds of drawing.

Goal: seconds to compile, for every kind of mask. Alternative: the same draws leaf by leaf, each a program part of its own. Processor
seconds, which other work on the machine disturbs less than wall time; sizes hardly matter to them. About two minutes.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.timing import report
from tna_jax import backend, masks, trees
from tna_jax.masks.draws import uniform

KEY = jax.random.key(0)


def shapes(layers: int = 7, width: int = 256, hidden: int = 1024, heads: int = 4, words: int = 2000) -> Any:
    """Shapes of the parameters of a Transformer in Flax's layout."""

    def leaf(*sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    size = width // heads
    norm = {"scale": leaf(width), "bias": leaf(width)}
    projection = {"kernel": leaf(width, heads, size), "bias": leaf(heads, size)}
    block = {
        "attention": {**dict.fromkeys(("query", "key", "value"), projection), "out": {"kernel": leaf(heads, size, width), "bias": leaf(width)}},
        "Dense_0": {"kernel": leaf(width, hidden), "bias": leaf(hidden)},
        "Dense_1": {"kernel": leaf(hidden, width), "bias": leaf(width)},
        "LayerNorm_0": norm,
        "LayerNorm_1": norm,
    }  # fmt: skip
    ends = {"words": {"embedding": leaf(words, width)}, "places": {"embedding": leaf(512, width)}, "LayerNorm_0": norm}
    return {**{f"block_{i}": block for i in range(layers)}, **ends, "head": {"kernel": leaf(width, 10)}}


def cost(draw: Callable[[jax.Array], Any]) -> dict[str, float]:
    """Processor and wall seconds of compiling, bytes beside the mask, and wall seconds of the second run."""
    lowered = jax.jit(draw).lower(KEY)
    wall, processor = time.perf_counter(), time.process_time()
    program = lowered.compile()
    result = {
        "compile_processor_seconds": time.process_time() - processor,
        "compile_seconds": time.perf_counter() - wall,
    }
    jax.block_until_ready(program(KEY))
    wall = time.perf_counter()
    jax.block_until_ready(program(KEY))
    memory: Any = program.memory_analysis()
    return {**result, "temporary_bytes": memory.temp_size_in_bytes, "draw_seconds": time.perf_counter() - wall}


if __name__ == "__main__":
    jax.config.update("jax_enable_compilation_cache", False)  # a program that is read back costs nothing
    backend.configure(cpu_devices=1)
    tree = shapes()
    draws: dict[str, Callable[[jax.Array], Any]] = {
        "bernoulli_leaf_by_leaf": lambda key: [uniform(key, p, x.shape) >= 0.4 for p, x in trees.parameters(tree)],
        "bernoulli": lambda key: masks.bernoulli(key, tree, 0.4),
        "soft": lambda key: masks.soft(masks.bernoulli(key, tree, 0.4), 0.2),
        "exact": lambda key: masks.exact(key, tree, 0.4),
        "neurons": lambda key: masks.neurons(key, tree, 0.4, apart=True),
    }
    jax.jit(jnp.sort).lower(jnp.ones(3)).compile()  # the compiler's own start
    report("mask_drawing", {"leaves": len(jax.tree.leaves(tree)), **{name: cost(draw) for name, draw in draws.items()}})
