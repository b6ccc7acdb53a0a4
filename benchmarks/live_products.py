"""Products whose anchored columns get no kernel gradient (`packing.live_dot_general`) against plain ones, with whole units anchored.

Of a layer's three products one shrinks by the ratio: at best 1 / (1 - ratio / 3) times as fast, the kernel's gradient alone
1 / (1 - ratio) times. All alternatives of a case take turns, in seconds of the processor (all cores); `plain_again` is the same program as `plain`, for the noise.
`python -m benchmarks.live_products`; two minutes.
"""

import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from benchmarks.timing import paired, quartiles, ratio, report
from tna_jax import anchored, backend, masks
from tna_jax.packing import live_dot_general

RATIOS = (0.4, 0.8)
ROUNDS, REPEATS = 9, 1
TOKENS, WIDTH = 512, 832
LAYERS, UNITS, BATCH = 3, 2048, 256


def repeated(program, *arguments):
    """A function that runs a program some times and returns when all are done."""

    def run():
        for _ in range(REPEATS):
            result = program(*arguments)
        jax.block_until_ready(result)

    return run


def compared(runs: dict, best: dict[str, float]) -> dict:
    """How many times as fast as plain each ratio is, with quartiles, and how many times it could be at best."""
    seconds = paired(runs, ROUNDS, clock=time.process_time)
    return {
        name: {
            "times_plain": ratio(seconds, "plain", name),
            "quartiles": quartiles(seconds, "plain", name),
            "at_best": best.get(name, 1.0),
        }
        for name in runs
        if name != "plain"
    } | {"seconds": seconds}


def products(width: int, units: int, kernel_only: bool) -> dict:
    """One layer of a Transformer: its product, and the gradients of kernel and inputs (or of the kernel alone)."""
    x, w = jax.random.normal(jax.random.key(0), (TOKENS, width)), jax.random.normal(jax.random.key(1), (width, units))
    target = jax.random.normal(jax.random.key(2), (TOKENS, units))

    def program(multiply):
        def loss(w, x, target):
            return jnp.vdot(
                multiply(x, w, (((1,), (0,)), ((), ()))), target
            )  # linear: no product forward but for its value

        return jax.jit(jax.grad(loss, argnums=0 if kernel_only else (0, 1)))

    plain = program(jax.lax.dot_general)
    runs, best = {name: repeated(plain, w, x, target) for name in ("plain", "plain_again")}, {}
    for share in RATIOS:
        column = jax.random.permutation(jax.random.key(3), units) >= round(share * units)
        mask = jnp.broadcast_to(column, (width, units))
        runs[str(share)] = repeated(program(live_dot_general(mask)), w, x, target)
        best[str(share)] = 1 / (1 - share) if kernel_only else 1 / (1 - share / 2)
    return compared(runs, best)


class Net(nn.Module):
    """A plain MLP; `multiply` names the products of its hidden layers."""

    multiply: tuple

    @nn.compact
    def __call__(self, x):
        for i, dot in enumerate(self.multiply):
            x = nn.relu(nn.Dense(UNITS, dot_general=dot, name=f"hidden{i}")(x))
        return nn.Dense(10, name="out")(x)


def training_step() -> dict:
    """SGD with momentum under `anchored`, of an MLP whose hidden units are anchored whole."""
    x, y = jax.random.normal(jax.random.key(0), (BATCH, 784)), jnp.arange(BATCH) % 10
    params = Net((jax.lax.dot_general,) * LAYERS).init(jax.random.key(1), x)["params"]

    def program(net, mask):
        optimizer = anchored(optax.sgd(0.01, momentum=0.9), mask)
        state = optimizer.init(params)

        def step(params, state, x, y):
            def loss(p):
                return optax.softmax_cross_entropy_with_integer_labels(net.apply({"params": p}, x), y).mean()

            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return optax.apply_updates(params, updates), state

        return repeated(jax.jit(step), params, state, x, y)

    runs, best = {}, {}
    for share in RATIOS:
        mask = masks.neurons(jax.random.key(2), params, share, where=lambda path: "hidden" in path)
        dots = tuple(live_dot_general(mask[f"hidden{i}"]["kernel"]) for i in range(LAYERS))
        runs.setdefault("plain", program(Net((jax.lax.dot_general,) * LAYERS), mask))
        runs.setdefault("plain_again", program(Net((jax.lax.dot_general,) * LAYERS), mask))
        runs[str(share)] = program(Net(dots), mask)
        best[str(share)] = 1 / (1 - share / 3)
    return compared(runs, best)


if __name__ == "__main__":
    backend.configure(members=1)
    report(
        "live_products",
        {
            "tokens": TOKENS,
            "kernel_gradient": products(WIDTH, 4 * WIDTH, kernel_only=True),
            "both_gradients": products(WIDTH, 4 * WIDTH, kernel_only=False),
            "mlp_step": training_step(),
        },
    )
