"""Bytes and seconds of Adam on trainable entries alone (`compact`), against `anchored` and plain Adam, on a Transformer of 100 M parameters.

Goals: at a ratio of 0.4 the moments take 60 % of Adam's, at 0.8 20 %; the step is not slower than under `anchored`. The alternative of
each number is measured in turn in the same process. `python -m benchmarks.compact [layers] [width]`; ten minutes, 6 GB.
"""

import statistics
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.timing import paired, quartiles, ratio, report
from tna_jax import anchored, backend, compact, masks

RATIOS = (0.4, 0.8)
ROUNDS = 7
SEQUENCES, LENGTH = 2, 128


def transformer(layers: int, width: int) -> dict:
    """Parameters of a decoder with four times as wide a feed-forward part, without embeddings: 12 x layers x width^2."""
    key, shapes = (
        jax.random.key(0),
        {"qkv": (width, 3 * width), "out": (width, width), "up": (width, 4 * width), "down": (4 * width, width)},
    )
    return {
        f"layer_{i}": {
            name: jax.random.normal(jax.random.fold_in(key, 4 * i + j), shape) * shape[0] ** -0.5
            for j, (name, shape) in enumerate(shapes.items())
        }
        for i in range(layers)
    }


def loss(params: dict, x: jax.Array, target: jax.Array) -> jax.Array:
    heads = x.shape[-1] // 64

    def normed(h: jax.Array) -> jax.Array:
        return h * jax.lax.rsqrt(jnp.mean(h * h, axis=-1, keepdims=True) + 1e-6)

    for layer in params.values():
        q, k, v = (part.reshape(*part.shape[:2], heads, 64) for part in jnp.split(normed(x) @ layer["qkv"], 3, axis=-1))
        mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x = x + mixed.reshape(x.shape) @ layer["out"]
        x = x + jax.nn.gelu(normed(x) @ layer["up"]) @ layer["down"]
    return jnp.mean((normed(x) - target) ** 2)


def bytes_of(tree: object) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def stepping(optimizer: optax.GradientTransformation, start: dict, whole: bool) -> tuple:
    """A function that takes a step, and its state: of training as a whole, or of the optimizer alone with given gradients."""
    width = start["layer_0"]["out"].shape[0]
    x, target = (jax.random.normal(jax.random.key(i), (SEQUENCES, LENGTH, width)) for i in (1, 2))

    def step(params, state):
        gradients = jax.grad(loss)(params, x, target) if whole else jax.tree.map(lambda p: p * 0.01, params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    program = jax.jit(step, donate_argnums=(0, 1))
    carry = [jax.tree.map(jnp.copy, start), optimizer.init(start)]

    def run():
        carry[:] = program(*carry)
        jax.block_until_ready(carry)

    return run, carry


def measured(start: dict, whole: bool) -> dict:
    """Ratios of seconds to plain Adam, and bytes an entry of each state."""
    entries = bytes_of(start) // 4
    rows = {}
    for share in RATIOS:
        mask = masks.bernoulli(jax.random.key(3), start, share)
        adam = optax.adam(1e-4)
        runs, states = {}, {}
        for name, optimizer in (("plain", adam), ("anchored", anchored(adam, mask)), ("compact", compact(adam, mask))):
            runs[name], carry = stepping(optimizer, start, whole)
            states[name] = {"state": bytes_of(carry[1]) / entries}
            if name == "compact":
                states[name] |= {
                    "moments": bytes_of(carry[1].inner) / entries,
                    "tables": bytes_of(carry[1].leaves) / entries,
                }
        seconds = paired(runs, ROUNDS)
        rows[str(share)] = {
            "bytes_an_entry": states,
            **{
                f"{a}_over_{b}": ratio(seconds, a, b)
                for a, b in (("compact", "plain"), ("compact", "anchored"), ("anchored", "plain"))
            },
            "compact_over_anchored_quartiles": quartiles(seconds, "compact", "anchored"),
            "median_seconds": {name: statistics.median(values) for name, values in seconds.items()},
            "seconds": seconds,
        }
    return rows


if __name__ == "__main__":
    backend.configure(members=1)
    layers, width = (int(word) for word in sys.argv[1:3]) if len(sys.argv) > 2 else (12, 832)
    parameters = transformer(layers, width)
    report(
        "compact",
        {
            "parameters": int(sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(parameters))),
            "tokens": SEQUENCES * LENGTH,
            "training_step": measured(parameters, True),
            "optimizer_alone": measured(parameters, False),
        },
    )
