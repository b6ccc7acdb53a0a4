"""Eight CNNs and eight ResNet20s by our default placement against the same networks one after the other in PyTorch, with
masked gradients, and against our own looped steps (placement `loop`).

Goals: 1.2 times PyTorch on both, never more than 5 % behind our own loop. PyTorch is given its faster memory format of the two
(channels last or first, timed first). About six minutes.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from benchmarks.timing import paired, ratio, report
from benchmarks.torch_networks import NETWORKS
from tna_jax import backend, ensemble, masks, models, networks
from tna_jax.programs.devices.run import product_rate

MODELS = 8
CASES = {"cnn": (64, 6), "resnet20": (64, 2)}
"""Batch size, steps of an epoch."""
FLOPS = {"cnn": 27.1e6, "resnet20": 244e6}
"""Of a training step, for one image: three times the multiply-adds of the convolutions and products, times two."""


def case(name: str, batch: int, steps: int) -> dict:
    """Seconds for one epoch of all models, in turns."""
    images = np.random.default_rng(0).integers(0, 256, (batch * steps, 32, 32, 3), dtype=np.uint8)
    labels = np.random.default_rng(1).integers(0, 10, batch * steps).astype(np.int32)
    module = models.create(name, num_classes=10)
    net, init = networks.linen(module, (32, 32, 3), lambda x: x.astype(jnp.float32) / np.float32(255))
    keys = jax.random.split(jax.random.key(0), MODELS)
    params = jax.tree.map(lambda *leaves: np.stack(leaves), *[jax.jit(init)(key)[0] for key in keys])
    one = jax.tree.map(lambda leaf: leaf[0], params)
    mask = jax.tree.map(lambda m: jnp.stack([m] * MODELS), masks.bernoulli(jax.random.key(1), one, 0.4))
    data = (jnp.asarray(images), jnp.asarray(labels))

    def ours(placement):
        trainer = ensemble.Trainer(net, optax.sgd(0.01, momentum=0.9), batch, placement)
        members = ensemble.init_ensemble(trainer, params, keys, mask)

        def run():
            jax.block_until_ready(ensemble.train_ensemble(trainer, members, *data, 1))

        return run

    def torch_models(layout):
        torch.manual_seed(0)
        x = torch.from_numpy(images).permute(0, 3, 1, 2)
        y = torch.from_numpy(labels.astype(np.int64))
        for _ in range(MODELS):
            net = NETWORKS[name]().to(memory_format=layout)
            frozen = [torch.rand_like(p) < 0.4 for p in net.parameters()]
            optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
            order = torch.randperm(len(y))
            for s in range(steps):
                index = order[s * batch : (s + 1) * batch]
                inputs = (x[index].float() / 255).to(memory_format=layout)
                loss = torch.nn.functional.cross_entropy(net(inputs), y[index])
                optimizer.zero_grad()
                loss.backward()
                for p, f in zip(net.parameters(), frozen, strict=True):
                    p.grad.masked_fill_(f, 0)
                optimizer.step()

    layouts = {"channels_last": torch.channels_last, "channels_first": torch.contiguous_format}
    tried = {}
    for label, layout in layouts.items():
        torch_models(layout)
        start = time.perf_counter()
        torch_models(layout)
        tried[label] = time.perf_counter() - start
    best = min(tried, key=lambda label: tried[label])
    alternatives = {"ours": ours("auto"), "loop": ours("loop"), "torch": lambda: torch_models(layouts[best])}
    seconds = paired(alternatives, rounds=5)
    rate = product_rate(jnp.float32)
    return {
        "times_torch": ratio(seconds, "torch", "ours"),
        "over_loop": ratio(seconds, "ours", "loop"),
        "torch_layout": best,
        "images_per_second": MODELS * batch * steps / min(seconds["ours"]),
        "share_of_matrix_product_rate": FLOPS[name] * MODELS * batch * steps / min(seconds["ours"]) / rate,
        "seconds": seconds,
    }


if __name__ == "__main__":
    backend.configure(members=MODELS)
    found = {name: case(name, *settings) for name, settings in CASES.items()}
    for name, result in found.items():
        print(name, {key: value for key, value in result.items() if key != "seconds"})
    report("convolutions", {"models": MODELS, "torch": torch.__version__, "cases": found})
