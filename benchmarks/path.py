"""A 21-point path in one pass against a loop over points with one dispatch per batch. Goal: 2 times. About a minute."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import paired, ratio, report
from tna_jax import backend, connectivity, line, models
from tna_jax.metrics import classification

CASES = {"digits": (64, 4, 128, 1797), "mnist": (784, 2, 512, 10_000)}
"""Inputs, hidden layers, width, examples."""


def case(inputs: int, depth: int, width: int, examples: int, batch: int = 128) -> dict:
    images = jax.random.randint(jax.random.key(0), (examples, inputs), 0, 256).astype(jnp.uint8)
    labels = jax.random.randint(jax.random.key(1), (examples,), 0, 10)
    model = models.create("mlp", num_classes=10, depth=depth, width=width)

    def apply(params, x):
        return model.apply({"params": params}, x.astype(jnp.float32) / 255)

    members = jax.vmap(lambda key: model.init(key, jnp.zeros((1, inputs)))["params"])(
        jax.random.split(jax.random.key(2), 2)
    )
    a, b = (jax.tree.map(lambda leaf, i=i: leaf[i], members) for i in (0, 1))
    alphas, pair = connectivity.grid(21), np.array([[0, 1]])

    def one_pass():
        return jax.block_until_ready(
            connectivity.evaluate_paths(apply, members, pair, alphas, {"test": (images, labels)})
        )

    mix = jax.jit(line)
    metrics = jax.jit(lambda p, x, y: classification(apply(p, x), y, jnp.ones(y.shape)))

    def loop():
        result = []
        for alpha in alphas:
            params, total = mix(a, b, alpha), np.zeros(3)
            for start in range(0, examples, batch):
                total += np.array(metrics(params, images[start : start + batch], labels[start : start + batch]))
            result.append(total)
        return np.array(result)

    correct = one_pass()["test"].metrics.correct[0]
    assert np.array_equal(correct, loop()[:, 1])
    seconds = paired({"one_pass": one_pass, "loop": loop}, rounds=9)
    return {"times_loop": ratio(seconds, "loop", "one_pass"), "seconds": seconds}


if __name__ == "__main__":
    backend.configure(members=21)
    found = {name: case(*settings) for name, settings in CASES.items()}
    print({name: round(result["times_loop"], 2) for name, result in found.items()})
    report("path", {"points": 21, "loop_batch": 128, "cases": found})
