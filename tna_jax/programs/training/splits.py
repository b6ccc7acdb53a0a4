"""The splits of a data set as the library's evaluation takes them: arrays on the devices, or streams that are read part by part."""

from typing import Any

import jax
import jax.numpy as jnp

from tna_jax.programs.data import Dataset
from tna_jax.programs.data.records import StreamedSplit


def streamed(data: Any) -> bool:
    """Returns whether the training examples are on the disk."""
    return isinstance(data.train, StreamedSplit)


def splits(data: Dataset) -> dict[str, Any]:
    """Returns the train and the test split by name: (inputs, labels), or a stream."""
    return {
        name: split if isinstance(split, StreamedSplit) else (jnp.asarray(split.images), jnp.asarray(split.labels))
        for name, split in (("train", data.train), ("test", data.test))
    }


def training_inputs(data: Dataset, examples: int) -> jax.Array:
    """Returns the inputs of the first training examples, (N, ...)."""
    return jnp.asarray(data.train.images[:examples])
