"""A round of 20 clients with the CNN on CIFAR-10 shapes, simulated, against a plain PyTorch loop over the clients.

Both train every client for one pass over its own 64 to 192 images (batch 64, SGD with momentum) and average the models by their
numbers of images; ours under a FedPFN mask of ratio 0.4, PyTorch with gradients masked by the same share. Goal: 1.5 times PyTorch on
two cores, 10 times where a GPU is lent. PyTorch is given its faster memory format of the two. `--clients 500` also says what memory
the device took. About four minutes. `--processor` counts seconds of the processor on one core instead, which other programs disturb
less; of our ways it takes XLA's own convolutions, and a network of one unit beside them: what a round costs but for its network.
"""

import argparse
import copy
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.timing import paired, quartiles, ratio, report
from benchmarks.torch_networks import NETWORKS
from tna_jax import backend, models, networks
from tna_jax.federated import Federation, Schedule, init_server
from tna_jax.federated.partition import padded
from tna_jax.federated.simulation import init_client_states, resolve, simulate_round
from tna_jax.programs.system import memory

BATCH, SHARE = 64, 0.4


def ours(net, init, images, labels, parts, placement):
    """A function that runs the next round, and the placement used."""
    federation = Federation(net, len(parts), 10, epochs=1, batch_size=BATCH, momentum=0.9, placement=placement)
    server = init_server(federation, *jax.jit(init)(jax.random.key(0)))
    client_states, clients = init_client_states(federation, server), padded(parts)
    data = (jnp.asarray(images), jnp.asarray(labels))
    state = {"server": server, "number": 0}

    def run():
        state["server"], _ = simulate_round(
            federation,
            Schedule("pfn", SHARE),
            jax.random.key(1),
            state["number"],
            state["server"],
            client_states,
            clients,
            *data,
            0.01,
        )
        state["number"] += 1
        jax.block_until_ready(state["server"].params)

    return run, resolve(federation, server.params, server.state, data[0])


def torch_loop(images, labels, parts, layout):
    """A function that runs a round: each client from a copy of the server's model, then the weighted average."""
    torch.manual_seed(0)
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    y = torch.from_numpy(labels.astype(np.int64))
    server = NETWORKS["cnn"]().to(memory_format=layout)
    total = sum(map(len, parts))

    def run():
        frozen = [torch.rand_like(p) < SHARE for p in server.parameters()]
        mean = [torch.zeros_like(p) for p in server.parameters()]
        for part in parts:
            net = copy.deepcopy(server)
            optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
            order = torch.from_numpy(part.astype(np.int64))[torch.randperm(len(part))]
            for first in range(0, len(part), BATCH):
                index = order[first : first + BATCH]
                inputs = (x[index].float() / 255).to(memory_format=layout)
                loss = torch.nn.functional.cross_entropy(net(inputs), y[index])
                optimizer.zero_grad()
                loss.backward()
                for p, f in zip(net.parameters(), frozen, strict=True):
                    p.grad.masked_fill_(f, 0)
                optimizer.step()
            for m, p in zip(mean, net.parameters(), strict=True):
                m.add_(p.detach(), alpha=len(part) / total)
        with torch.no_grad():
            for p, m in zip(server.parameters(), mean, strict=True):
                p.copy_(m)

    return run


def faster(images, labels, parts, clock) -> str:
    """PyTorch's faster memory format, by one round of each."""
    tried = {}
    for name, layout in LAYOUTS.items():
        run = torch_loop(images, labels, parts, layout)
        run()
        start = clock()
        run()
        tried[name] = clock() - start
    return min(tried, key=lambda name: tried[name])


LAYOUTS = {"channels_last": torch.channels_last, "channels_first": torch.contiguous_format}


def main() -> None:
    """Runs the benchmark and writes its result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processor", action="store_true")
    options = parser.parse_args()
    clock = time.process_time if options.processor else time.perf_counter
    if options.processor:
        torch.set_num_threads(1)
    backend.configure(members=options.clients)
    rng = np.random.default_rng(0)
    sizes = rng.integers(BATCH, 3 * BATCH + 1, options.clients)
    images = rng.integers(0, 256, (sizes.sum(), 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, sizes.sum()).astype(np.int32)
    parts = np.split(np.arange(sizes.sum(), dtype=np.int32), np.cumsum(sizes)[:-1])
    alternatives, used = {}, {}
    ways = ("native", "slices") if jax.default_backend() == "cpu" and not options.processor else ("native",)
    for conv in (*ways, "one_unit") if options.processor else ways:
        module = (
            models.create("cnn", num_classes=10, conv=conv)
            if conv in ways
            else models.create("mlp", num_classes=10, depth=1, width=1)
        )
        net, init = networks.linen(module, (32, 32, 3), lambda x: x.astype(jnp.float32) / np.float32(255))
        alternatives[conv], used[conv] = ours(net, init, images, labels, parts, "auto")
    layout = faster(images, labels, parts, clock)
    alternatives["torch"] = torch_loop(images, labels, parts, LAYOUTS[layout])
    seconds = paired(alternatives, options.rounds, clock=clock)
    steps = int(sum(-(-sizes // BATCH)))
    name = (
        "federated"
        + (f"_{options.clients}" if options.clients != 20 else "")
        + ("_processor" if options.processor else "")
    )
    report(name, {
        "clients": options.clients, "clock": "processor" if options.processor else "wall", "load": os.getloadavg(), "steps_a_round": steps, "torch": torch.__version__, "torch_layout": layout,
        "torch_threads": torch.get_num_threads(), "placement": used,
        "times_torch": {conv: ratio(seconds, "torch", conv) for conv in ways},
        "quartiles": {conv: quartiles(seconds, "torch", conv) for conv in ways},
        "seconds_a_round": {name: min(found) for name, found in seconds.items()},
        "peak_gb": memory.peak() / memory.GB, "seconds": seconds,
    })  # fmt: skip


if __name__ == "__main__":
    main()
