"""Anchors in an FSDP training loop, built as MaxText and Tunix build theirs: logical axes, rules, one mesh, one compiled step.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python examples/fsdp/train.py

Parameters, both moments of Adam and the mask are split over all devices; the batch too. What anchoring changes is marked (1) and (2).
The text is that of Python's own documentation.
"""

import re
from collections import Counter
from pydoc_data.topics import topics
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tna_jax import anchored, masks

RULES = (("embed", "fsdp"), ("batch", "fsdp"), ("mlp", None), ("vocab", None), ("heads", None))
"""Logical axes to axes of the mesh: every matrix is split along its embedding axis."""
VOCABULARY, LENGTH, WIDTH, LAYERS = 128, 32, 64, 2


def dense(features: int, *axes: str | None, **options: Any) -> nn.Module:
    kernel = nn.with_logical_partitioning(nn.initializers.lecun_normal(), axes)
    bias = nn.with_logical_partitioning(nn.initializers.zeros, axes[1:])
    return nn.Dense(features, kernel_init=kernel, bias_init=bias, **options)


class Decoder(nn.Module):
    """A small causal Transformer of bytes."""

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        table = nn.with_logical_partitioning(nn.initializers.normal(0.02), ("vocab", "embed"))
        x = nn.Embed(VOCABULARY, WIDTH, embedding_init=table)(tokens)
        causal = nn.make_causal_mask(tokens)
        for _ in range(LAYERS):
            h = nn.LayerNorm()(x)
            query, key, value = (dense(WIDTH, "embed", "heads")(h)[:, :, None] for _ in range(3))
            attended = nn.dot_product_attention(query, key, value, mask=causal)[:, :, 0]
            x = x + dense(WIDTH, "heads", "embed")(attended)
            h = nn.gelu(dense(4 * WIDTH, "embed", "mlp")(nn.LayerNorm()(x)))
            x = x + dense(WIDTH, "mlp", "embed")(h)
        return dense(VOCABULARY, "embed", "vocab")(nn.LayerNorm()(x))


class TrainState(NamedTuple):
    params: Any
    opt_state: Any


class Loop(NamedTuple):
    """The compiled loop: `init(key)`, `step(state, tokens)`, and where everything lies."""

    init: Any
    step: Any
    sharding: Any
    data: NamedSharding


def make_loop(mesh: Mesh, ratio: float | None, seed: int = 7) -> Loop:
    """Returns the loop with a share `ratio` of anchors, or without anchoring (`None`)."""
    model, plain = Decoder(), optax.adamw(3e-3, weight_decay=0.1)
    optimizer = (
        plain if ratio is None else anchored(plain)
    )  # (1) the mask is in the state, so that it is split as the rest

    def init(key: jax.Array) -> TrainState:
        params = model.init(key, jnp.zeros((1, LENGTH), jnp.int32))["params"]
        if ratio is None:
            return TrainState(params, optimizer.init(params))
        mask = masks.bernoulli(jax.random.key(seed), params, ratio)  # (2) drawn where it will lie
        return TrainState(params, anchored(plain, mask).init(params))

    def step(state: TrainState, tokens: jax.Array) -> tuple[TrainState, jax.Array]:
        def loss(params: Any) -> jax.Array:
            logits = model.apply({"params": params}, tokens[:, :-1])
            return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

        value, gradients = jax.value_and_grad(loss)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        return TrainState(optax.apply_updates(state.params, updates), opt_state), value

    logical = nn.get_partition_spec(jax.eval_shape(init, jax.random.key(0)))
    sharding = nn.logical_to_mesh_sharding(logical, mesh, RULES)
    data, scalar = NamedSharding(mesh, PartitionSpec("fsdp")), NamedSharding(mesh, PartitionSpec())
    compiled_init = jax.jit(init, out_shardings=sharding)
    compiled_step = jax.jit(step, in_shardings=(sharding, data), out_shardings=(sharding, scalar), donate_argnums=0)
    return Loop(compiled_init, compiled_step, sharding, data)


def collectives(step: Any, *arguments: Any) -> Counter[tuple[str, str]]:
    """Counts the collectives in the compiled text of a step by kind and shape."""
    text = step.lower(*arguments).compile().as_text()
    kinds = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
    return Counter((kind, shape) for shape, kind in re.findall(rf"= (\S+|\(.*?\)) ({kinds})(?:-start)?\(", text))


def batches(rows: int, steps: int) -> np.ndarray:
    """(steps, rows, LENGTH + 1) int32 bytes of text."""
    text = "".join(topics.values()).encode("ascii", "replace")
    starts = np.random.default_rng(0).integers(0, len(text) - LENGTH - 1, (steps, rows, 1))
    return np.frombuffer(text, np.uint8)[starts + np.arange(LENGTH + 1)].astype(np.int32)


def bytes_on(tree: Any, device: jax.Device) -> int:
    parts = [part for leaf in jax.tree.leaves(tree) for part in leaf.addressable_shards]
    return sum(part.data.nbytes for part in parts if part.device == device)


def main(steps: int = 41) -> None:
    devices = jax.devices()
    mesh = jax.make_mesh((len(devices),), ("fsdp",), axis_types=(AxisType.Auto,))
    loop = make_loop(mesh, ratio=0.4)
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):  # each device draws its part of the mask
        state = loop.init(jax.random.key(0))
    start = jax.device_get(state)
    for name, tree in (
        ("parameters", state.params),
        ("one moment", state.opt_state.inner[0].mu),
        ("mask", state.opt_state.mask),
    ):
        total = sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
        print(f"{name}: {total:,} bytes, {bytes_on(tree, devices[0]):,} of them on device 0")
    for number, tokens in enumerate(batches(16, steps)):
        state, loss = loop.step(state, jax.device_put(tokens, loop.data))
        if number % 20 == 0 or number == steps - 1:
            print(f"step {number}: loss {float(loss):.3f}")
    trees = start.params, jax.device_get(state.params), start.opt_state.mask
    moved = sum(int(((p != q) & ~m).sum()) for p, q, m in zip(*map(jax.tree.leaves, trees), strict=True))
    print(f"anchors that moved: {moved} of {sum(int((~m).sum()) for m in jax.tree.leaves(trees[2])):,}")


if __name__ == "__main__":
    main()
