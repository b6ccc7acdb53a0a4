"""Eight models by our default placement against the same models one after the other in PyTorch, with masked gradients.

Also against the arithmetic limit: the float32 matrix-product rate of all cores, measured in the same run. Goals: 4 times
PyTorch on the digits MLP (64-128x4-10, batch 32), 1.8 times on 784-512-512-10, 80 % of the limit. Both batch sizes are
given for the second. About three minutes.
"""

import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from benchmarks.timing import paired, ratio, report
from tna_jax import backend, ensemble, masks, models

MODELS = 8
CASES = {"digits_b32": (64, 4, 128, 32, 45), "mnist_b32": (784, 2, 512, 32, 100), "mnist_b128": (784, 2, 512, 128, 25)}
"""Inputs, hidden layers, width, batch size, steps of an epoch."""


def product_rate(size: int = 2048) -> float:
    """Best float32 matrix-product rate of JAX and PyTorch over all cores, flop/s."""
    a = jnp.ones((size, size))
    product, b, best = jax.jit(lambda a: a @ a), torch.ones(size, size), float("inf")
    for run in (lambda: product(a).block_until_ready(), lambda: b @ b):
        for _ in range(5):
            start = time.perf_counter()
            run()
            best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def case(inputs: int, depth: int, width: int, batch: int, steps: int) -> dict:
    images = np.random.default_rng(0).integers(0, 256, (batch * steps, inputs), dtype=np.uint8)
    labels = np.random.default_rng(1).integers(0, 10, batch * steps).astype(np.int32)
    model = models.create("mlp", num_classes=10, depth=depth, width=width)

    def apply(params, x):
        return model.apply({"params": params}, x.astype(jnp.float32) / 255)

    keys = jax.random.split(jax.random.key(0), MODELS)
    params = jax.vmap(lambda key: model.init(key, jnp.zeros((1, inputs)))["params"])(keys)
    mask = jax.vmap(lambda p: masks.bernoulli(jax.random.key(1), p, 0.4))(params)
    trainer = ensemble.Trainer(apply, optax.sgd(0.01, momentum=0.9), batch)
    members = ensemble.init_ensemble(trainer, params, keys, mask)
    data = (jnp.asarray(images), jnp.asarray(labels))

    def ours():
        jax.block_until_ready(ensemble.train_ensemble(trainer, members, *data, 1))

    sizes = [inputs, *[width] * depth, 10]
    flops = (
        MODELS * steps * batch * sum(6 * i * o for i, o in itertools.pairwise(sizes))
        - MODELS * steps * batch * 2 * inputs * width
    )

    def torch_models():
        torch.manual_seed(0)
        x, y = torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))
        for _ in range(MODELS):
            layers = [m for i, o in itertools.pairwise(sizes) for m in (torch.nn.Linear(i, o), torch.nn.ReLU())]
            net = torch.nn.Sequential(*layers[:-1])
            frozen = [torch.rand_like(p) < 0.4 for p in net.parameters()]
            optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
            order = torch.randperm(len(y))
            for s in range(steps):
                index = order[s * batch : (s + 1) * batch]
                loss = torch.nn.functional.cross_entropy(net(x[index].float() / 255), y[index])
                optimizer.zero_grad()
                loss.backward()
                for p, f in zip(net.parameters(), frozen, strict=True):
                    p.grad.masked_fill_(f, 0)
                optimizer.step()

    seconds = paired({"ours": ours, "torch": torch_models}, rounds=7)
    rate = product_rate()
    return {
        "times_torch": ratio(seconds, "torch", "ours"),
        "share_of_matrix_product_rate": flops / min(seconds["ours"]) / rate,
        "matrix_product_gflops": rate / 1e9,
        "microseconds_per_step_and_model": min(seconds["ours"]) / steps / MODELS * 1e6,
        "seconds": seconds,
    }


if __name__ == "__main__":
    backend.configure(members=MODELS)
    found = {name: case(*settings) for name, settings in CASES.items()}
    for name, result in found.items():
        print(name, {key: round(value, 3) for key, value in result.items() if key != "seconds"})
    report(
        "ensemble",
        {"models": MODELS, "torch": torch.__version__, "torch_threads": torch.get_num_threads(), "cases": found},
    )
