"""A training step with anchors against the same step without, and what a mask of 100 M parameters costs.

Goals: the step within 2 %; compile time and program text that do not grow with the mask; the mask kept in place when the
state is donated. Alternative for the last: a mask the step closes over. About two minutes, 3 GB.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.timing import paired, ratio, report
from tna_jax import anchored, backend, masks, models, tna_mask


def step_of(tx, model, images, labels):
    def step(params, state):
        def loss(p):
            logits = model.apply({"params": p}, images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(0, 1))


def training_step() -> dict:
    """Plain SGD with momentum, 784-512-512-10, batch 128, against `tna_mask` in a chain and `anchored`."""
    model = models.create("mlp", num_classes=10, depth=2, width=512)
    images = jax.random.normal(jax.random.key(0), (128, 784))
    labels = jax.random.randint(jax.random.key(1), (128,), 0, 10)
    start = model.init(jax.random.key(2), images)["params"]
    mask = masks.bernoulli(jax.random.key(3), start, 0.4)
    plain = optax.sgd(0.1, momentum=0.9)
    runs = {}
    for name, tx in {
        "plain": plain,
        "tna_mask": optax.chain(tna_mask(mask), plain),
        "anchored": anchored(plain, mask),
    }.items():
        step = step_of(tx, model, images, labels)
        carry = [jax.tree.map(jnp.copy, start), tx.init(start)]

        def run(step=step, carry=carry):
            for _ in range(10):
                carry[:] = step(*carry)
            jax.block_until_ready(carry)

        runs[name] = run
    seconds = paired(runs, rounds=30, warmup=2)
    return {
        "anchored_over_plain": ratio(seconds, "anchored", "plain"),
        "tna_mask_over_plain": ratio(seconds, "tna_mask", "plain"),
        "seconds": seconds,
    }


def mask_of(parameters: int) -> dict:
    """Compile seconds, program text and buffers of one masked SGD step over one vector."""
    params = {"w": jnp.ones(parameters)}
    mask = {"w": jnp.arange(parameters) % 5 > 1}
    tx = anchored(optax.sgd(0.1), mask)
    state = tx.init(params)

    def step(params, state):
        updates, state = tx.update(params, state, params)
        return optax.apply_updates(params, updates), state

    def closed(params):
        return jnp.where(mask["w"], params["w"] * np.float32(0.9), params["w"])

    result = {"parameters": parameters}
    for name, program, arguments in (("in_state", step, (params, state)), ("closed_over", closed, (params,))):
        started = time.perf_counter()
        lowered = jax.jit(program, donate_argnums=tuple(range(len(arguments)))).lower(*arguments)
        compiled = lowered.compile()
        result[f"compile_seconds_{name}"] = time.perf_counter() - started
        if name == "in_state":
            memory = compiled.memory_analysis()
            result["temporary_bytes"] = memory.temp_size_in_bytes
            before = jax.tree.leaves(state.mask)[0].unsafe_buffer_pointer()
            _, after = compiled(params, state)
            result["mask_kept_in_place"] = jax.tree.leaves(after.mask)[0].unsafe_buffer_pointer() == before
            params = {"w": jnp.ones(parameters)}
    return result


if __name__ == "__main__":
    backend.configure(cpu_devices=1)
    report("anchored_step", {**training_step(), "mask": [mask_of(n) for n in (1_000_000, 10_000_000, 100_000_000)]})
