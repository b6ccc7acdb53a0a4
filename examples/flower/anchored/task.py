"""What is learnt: the network, each client's data, and how the federation trains. Put yours here.

Server and clients call `build` with the same run configuration. Whatever is random is drawn from `seed`, so all of them have the
same initial weights and masks without sending them.
"""

import functools
from typing import Any

import jax
import numpy as np

from fusion.flower.task import Task
from tna_jax import models
from tna_jax.federated import ALGORITHMS, PARTITION, SERVERS, Federation, Schedule, features, stream
from tna_jax.federated.partition import partition
from tna_jax.network import linen
from train.data import Dataset, load


def build(config: dict[str, Any]) -> Task:
    """The task of a run configuration."""
    data = functools.cache(lambda: load(config["dataset"], data_dir=config["data-dir"] or None))
    shape, classes = data().image_shape, data().num_classes
    options = {"depth": config["depth"], "width": config["width"]} if config["model"] == "mlp" else {}
    module = models.create(config["model"], num_classes=classes, **options)
    network, init = linen(module, shape, data().preprocess)
    federation = Federation(
        network, config["clients"], classes,
        algorithm=ALGORITHMS[config["algorithm"]](), server=SERVERS[config["server"]](),
        epochs=config["epochs"], batch_size=config["batch-size"], momentum=config["momentum"],
        weight_decay=config["weight-decay"], features=features.penultimate(module, data().preprocess),
    )  # fmt: skip
    return Task(
        federation, Schedule(config["masks"], config["ratio"]), config["seed"], config["rounds"], init,
        learning_rate=lambda number: config["learning-rate"] * config["learning-rate-decay"] ** number,
        examples=lambda client: own_examples(data(), config, client),
        held_out=lambda: (data().test.images, data().test.labels),
        participation=config["participation"],
    )  # fmt: skip


def own_examples(data: Dataset, config: dict[str, Any], client: int) -> tuple[np.ndarray, np.ndarray]:
    """A client's images and labels. Here each cuts its own part out of a data set that all have: a trial, no federation. A
    real client reads its own data instead, which nobody else has."""
    key = stream(jax.random.key(config["seed"]), PARTITION)
    labels = data.train.labels
    parts = partition("dirichlet", key, labels, config["clients"], alpha=config["alpha"], least=config["batch-size"])
    return data.train.images[parts[client]], labels[parts[client]]
