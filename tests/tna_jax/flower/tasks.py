"""A small federated task on the digits for the tests of the deployment, and the same task simulated."""

import functools

import jax
import numpy as np

from tna_jax import models
from tna_jax.federated import PARTITION, Federation, Schedule, features, simulation, stream
from tna_jax.federated.partition import padded, partition
from tna_jax.flower.task import Task
from tna_jax.networks import linen
from tna_jax.programs.data import load

EXAMPLES = 240
SEED = 3


@functools.cache
def digits():
    return load("digits")


def examples() -> tuple[np.ndarray, np.ndarray]:
    """Images and labels that are dealt out."""
    train = digits().train
    return train.images[:EXAMPLES], train.labels[:EXAMPLES]


def parts(clients: int, kind: str = "iid") -> list[np.ndarray]:
    return partition(kind, stream(jax.random.key(SEED), PARTITION), examples()[1], clients, alpha=0.5, least=8)


@functools.cache  # one task for equal arguments: its programs are compiled once
def task(schedule: Schedule = Schedule("pfn"), clients: int = 3, width: int = 16, **options) -> Task:  # noqa: B008
    module = models.create("mlp", num_classes=10, depth=1, width=width)
    data, (images, labels) = digits(), examples()
    network, init = linen(module, data.image_shape, data.preprocess)
    given = {"epochs": 1, "batch_size": 16, **options}
    participation, kind = given.pop("participation", 1.0), given.pop("partition", "iid")
    algorithm = given.get("algorithm")
    if algorithm is not None and algorithm.needs_features:
        given["features"] = features.penultimate(module, data.preprocess)
    federation = Federation(network, clients, 10, **given)
    own = parts(clients, kind)
    return Task(
        federation, schedule, SEED, 3, init, lambda number: 0.1 * 0.9**number, lambda k: (images[own[k]], labels[own[k]]),
        held_out=lambda: (data.test.images, data.test.labels), proxy=lambda: data.train.images[-32:],
        participation=participation,
    )  # fmt: skip


def simulated(task: Task, rounds: int = 3, kind: str = "iid"):
    """The servers before each round and after the last, and what happened in each."""
    federation = task.federation
    server, clients = task.init_server(), padded(parts(federation.clients, kind))
    client_states = simulation.init_client_states(federation, server)
    servers, rounds_ = [server], []
    for number in range(rounds):
        server, found = simulation.simulate_round(
            federation, task.schedule, task.root, number, server, client_states, clients, *examples(),
            task.learning_rate(number), participation=task.participation,
            proxy=task.proxy() if federation.server.distillation else (),
        )  # fmt: skip
        servers.append(server)
        rounds_.append(found)
    return servers, rounds_
