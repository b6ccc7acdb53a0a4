"""Hugging Face model folders (config.json and safetensors files) to our modules and back, without torch.

    vit = hf.load("vit-base")                                        # vit.module.apply({"params": vit.params}, images)
    model = hf.load("roberta-base", head="new", num_classes=3, key=key)   # the body, and a head from scratch
    hf.save("tuned", model.module, params, model.config)             # transformers reads it

Model types of `tna_jax.hf.model_types` (ViT, DINOv2, BERT, RoBERTa, DistilBERT, ELECTRA, GPT-2, Llama and kin), with a classifier, a head that
predicts words, or bare. Names: `tna_jax.hf.names`.
"""

import dataclasses
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import trees
from tna_jax.hf import cache, validation
from tna_jax.hf import config as hf_config
from tna_jax.hf import names as hf_names
from tna_jax.hf.checkpoints import CHECKPOINTS
from tna_jax.hf.config import example, shapes_of
from tna_jax.hf.hub import fetch
from tna_jax.hf.saving import save
from tna_jax.io.errors import UsageError
from tna_jax.io.tensor_headers import Tensor, open_checkpoint
from tna_jax.models.vit import grid, resize_positions

__all__ = ["Loaded", "fetch", "load", "save"]


OF_CLASSES = ("id2label", "label2id", "num_labels", "problem_type", "finetuning_task")
"""What a config.json says of the classes of a head."""


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A model folder in our form.

    Attributes:
      module: of `tna_jax.models`.
      params: its parameters, float32 (exact for files of float16 and bfloat16).
      config: config.json, for `save`; with a new head, without what it says of the classes of the old one.
      new: leaves that the folder does not hold and that have initial values, by path.
      dropped: tensors of other heads in the folder that are left out, by name.
    """

    module: nn.Module
    params: Any
    config: dict[str, Any]
    new: tuple[str, ...]
    dropped: tuple[str, ...]


def load(
    folder: str | Path,
    head: str | None = None,
    num_classes: int | None = None,
    key: jax.Array | None = None,
    image_size: int | tuple[int, int] | None = None,
    **options: Any,
) -> Loaded:
    """Reads a model folder into a module and its parameters. Names and shapes are checked before any tensor is read.

    Args:
      folder: config.json beside model.safetensors, or shards with model.safetensors.index.json; or the name of a checkpoint
        (`minilm`), see `tna_jax.hf.pretrained`.
      head: None: that of the folder. classes, masked_lm, causal_lm, pooled or none: that one, which the folder must hold (tensors
        of others are dropped). new: a classifier with initial values, whatever head the folder has (and a new pooler, where
        BERT's is not there).
      num_classes, key: of head new: its number of classes, and the key of its initial values.
      image_size: of the images that a ViT or DINOv2 is to take; its position embeddings are interpolated once, here.
      options: fields of the module that change no parameter: dtype, dropout, attention_dropout, remat, interpolate. Dropout is
        0 unless given, whatever config.json says.

    Raises:
      UsageError: no such folder, a model that is not known here, a damaged file, or tensors that are missing, too many or of
        another shape: all are listed.
    """
    folder = cache.locate(folder)
    require_folder(folder)
    if (head == "new") != (num_classes is not None and key is not None):
        raise UsageError("head='new' needs num_classes and key, and only that head does")
    kind, config = hf_config.read(folder)
    held = open_checkpoint(str(folder)).tensors
    names = hf_names.canonical(kind, list(held))
    tensors = {names[name]: tensor for name, tensor in held.items()}
    chosen = validation.head_of(kind, config, set(tensors), head, str(folder))
    count = validation.num_classes(kind, tensors) if num_classes is None else num_classes
    module = hf_config.build(kind, config, chosen, count, options, str(folder / hf_config.CONFIG))
    if chosen in ("masked_lm", "causal_lm") and getattr(module, "tied", True):
        validation.check_tied(kind, tensors, config, str(folder))
    channels = config.get("num_channels", 3)
    resized = _resized(module, image_size)
    shapes = shapes_of(module, channels, len(tensors))
    places = {path: hf_names.place(kind, chosen, path, len(shape)) for path, shape in shapes.items()}
    new, dropped = validation.compare(kind, tensors, shapes, places, head, str(folder))
    initial = _initial(module, channels, new, key)
    leaves = {
        path: initial[path] if path in initial else _read(tensors[place.name], place) for path, place in places.items()
    }
    if resized is not module:
        before, after = (grid(vit.image_size, vit.patch) for vit in (module, resized))
        smooth = getattr(module, "antialias", False)
        leaves["body/positions"] = resize_positions(leaves["body/positions"], before, after, smooth)
    if head == "new":
        config = {name: value for name, value in config.items() if name not in OF_CLASSES}
    return Loaded(resized, tree(leaves), config, tuple(new), tuple(dropped))


def require_folder(folder: Path) -> None:
    """Raises UsageError, which says where models come from, unless the folder has a config.json."""
    if not (folder / hf_config.CONFIG).is_file():
        raise UsageError(
            f"there is no model folder {folder} (config.json and model.safetensors); with a network, "
            f"tna_jax.hf.fetch(REPO, {str(folder)!r}) or `hf download REPO --local-dir {folder}` gets one; names: "
            f"{', '.join(CHECKPOINTS)}"
        )


def _read(tensor: Tensor, place: hf_names.Place) -> jax.Array:
    return jnp.asarray(place.inward(tensor.read()).astype(np.float32))


def _initial(module: Any, channels: int, new: list[str], key: jax.Array | None) -> dict[str, jax.Array]:
    """Computes the initial values of the leaves `new`, and of these alone."""
    if not new:
        return {}

    def run(key: jax.Array) -> dict[str, jax.Array]:
        leaves = trees.named_leaves(module.init(key, example(module, channels))["params"])
        return {trees.name(path): leaf for path, leaf in leaves if trees.name(path) in new}

    values: dict[str, jax.Array] = jax.jit(run)(key)
    return values


def _resized(module: Any, size: int | tuple[int, int] | None) -> Any:
    """Returns the module for images of another size; raises UsageError unless it is a ViT whose patches tile them."""
    if size is None:
        return module
    if hf_config.type_of(module) not in hf_config.VISION:
        raise UsageError(f"image_size is for {', '.join(hf_config.VISION)} only")
    try:
        return module.clone(image_size=size)
    except ValueError as error:
        raise UsageError(f"image_size: {error}") from error


def tree(leaves: dict[str, Any]) -> dict[str, Any]:
    """Leaves by path (`body/norm/scale`) as nested dicts."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *levels, last = path.split("/")
        inner = tree
        for level in levels:
            inner = inner.setdefault(level, {})
        inner[last] = leaf
    return tree
