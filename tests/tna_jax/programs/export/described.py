"""Exported files of networks that were not trained: random arrays, and what `tna export` says of the network."""

import json

import jax
import numpy as np

from tna_jax import models, networks
from tna_jax.io import safetensors
from tna_jax.programs.data.source import Dataset, Split
from tna_jax.programs.runs.exported import ABOUT
from tna_jax.programs.training import model_description


def data_of(shape, largest=255):
    """A data set of four random images."""
    images = np.random.default_rng(1).integers(0, largest + 1, (4, *shape)).astype(np.uint8)
    split = Split(images, np.arange(4, dtype=np.int32))
    names = tuple("abcd")
    channels = shape[-1]
    return Dataset("made", split, split, 4, names, largest, (0.5,) * channels, (0.25,) * channels)


def write(file, name, shape, **options):
    """Writes the file; returns the images, and the logits of the library."""
    data, module = data_of(shape), models.create(name, num_classes=4, **options)
    network, init = networks.linen(module, shape, data.preprocess)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        values = (rng.normal(size=leaf.shape) / np.sqrt(leaf.shape[0])).astype(np.float32)
        return np.abs(values) + np.float32(0.5) if path[-1].key == "var" else values

    params, state = jax.tree_util.tree_map_with_path(draw, jax.eval_shape(init, jax.random.key(0)))
    about = {"network": model_description.describe({"model": name}, data, module)}
    tree = {"params": params, **({"state": state} if state else {})}
    safetensors.save(file, tree, {ABOUT: json.dumps(about)})
    return data.train.images, np.asarray(
        jax.jit(lambda p, s, x: networks.evaluate(network, p, s, x))(params, state, data.train.images)
    )
