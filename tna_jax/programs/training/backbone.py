"""A pretrained transformer of a Hugging Face folder as what an ensemble fine-tunes: network, features, fresh heads.

Any folder that `tna_jax.hf.loading` reads will do: one of `tna pretrain`, or a downloaded ViT, DeiT, DINOv2, BERT, RoBERTa (XLM-R, CamemBERT), DistilBERT or
ELECTRA.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import trees
from tna_jax.hf import cache, dinov2_config, loading, model_types
from tna_jax.hf import config as hf_config
from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import read_json, write_json
from tna_jax.masks import Params
from tna_jax.models import Dinov2
from tna_jax.programs.cli.progress import console
from tna_jax.programs.data import Dataset
from tna_jax.programs.data.tokens import IDS, TYPES

ABOUT, IMAGES = cache.ABOUT, "preprocessor_config.json"
"""Files beside a model: what it was pretrained on (ours), and how images are to be scaled (Hugging Face's)."""
HEAD = "head/"


def is_head(path: str) -> bool:
    """Returns whether a parameter is of the classifier, which is new in every fine-tuning and never anchored."""
    return path.startswith(HEAD)


def is_body(path: str) -> bool:
    """Returns whether a parameter is of the pretrained body."""
    return not is_head(path)


@dataclasses.dataclass(frozen=True, eq=False)
class Backbone:
    """A body with a new classifier on it."""

    folder: str
    kind: str
    """vit, dinov2, bert, roberta, distilbert or electra."""
    module: Any
    params: Params
    """The body as it was loaded, with one fresh head."""
    config: dict[str, Any]
    new: tuple[str, ...]
    """Leaves that the folder does not hold: the head, and the pooler of a BERT that never had one."""
    network: Callable[[Params, jax.Array], jax.Array]
    """Parameters and stored inputs (images (B, H, W, C), or tokens (B, 2, L)) to logits (B, C)."""
    features: Callable[[Params, jax.Array], jax.Array]
    """Parameters and stored inputs to what a linear probe takes, (B, D): the class token of a ViT or DINOv2, the mean of all tokens of
    a text encoder but the padding."""

    @property
    def num_classes(self) -> int:
        """C."""
        return int(self.module.num_classes)

    def fresh(self, key: jax.Array) -> Params:
        """Returns the body with new leaves drawn from `key`; the other leaves are the loaded ones, bit for bit."""
        channels = self.params["body"]["patches"]["kernel"].shape[2] if self.kind in ("vit", "dinov2") else 3
        example = hf_config.example(self.module, channels)
        initial = jax.jit(self.module.init)(key, example)["params"]
        new = set(self.new)
        leaves = [
            drawn if trees.name(path) in new else loaded
            for (path, loaded), drawn in zip(
                trees.named_leaves(self.params), trees.align(initial, self.params, subject="new model"), strict=True
            )
        ]
        return trees.like(self.params, leaves)

    def save(self, folder: str | Path, params: Params, overwrite: bool = False) -> None:
        """Writes one model, head included, with the files beside the checkpoint that say how inputs are to be made."""
        loading.save(folder, self.module, params, self.config, overwrite=overwrite)
        for file in Path(self.folder).iterdir():
            if file.suffix in (".json", ".txt") and file.name not in (hf_config.CONFIG, "model.safetensors.index.json"):
                (Path(folder) / file.name).write_bytes(file.read_bytes())


def for_images(folder: str, data: Dataset, num_classes: int, image_size: int | None = None, **options: Any) -> Backbone:
    """Loads the ViT, DeiT or DINOv2 of a folder for a set of images, which are resized (bilinear) to the size that it takes.

    Args:
      image_size: side in pixels of the images that it is to take, a multiple of its patches' side: its position embeddings are
        interpolated once. Default: the size that it was made for; of a DINOv2, at most that which its preprocessor_config.json
        crops images to (else 224), for its positions are made for 518.
      options: `dtype` and `remat` of the module.

    Raises:
      UsageError: as `tna_jax.hf.load`; it is not a ViT, or takes images of other channels.
    """
    folder = locate(folder)
    side = image_size or _default_size(Path(folder))
    loaded = _load(folder, hf_config.VISION, num_classes, options | ({} if side is None else {"image_size": side}))
    module, shape = loaded.module, data.image_shape
    channels = loaded.params["body"]["patches"]["kernel"].shape[2]
    if channels != shape[2]:
        raise UsageError(f"{folder} takes images of {channels} channels, {data.name} has {shape[2]}")
    size = module.image_size if isinstance(module.image_size, tuple) else (module.image_size, module.image_size)
    scale = scaling(Path(folder)) or (data.mean, data.std)
    if {len(values) for values in scale} != {channels}:
        raise UsageError(f"{folder} scales {len(scale[0])} channels ({IMAGES}), {data.name} has {channels}")
    scaled = dataclasses.replace(data, mean=tuple(scale[0]), std=tuple(scale[1])).preprocess

    def images(x: jax.Array) -> jax.Array:
        pixels: jax.Array = scaled(x)
        return pixels if size == shape[:2] else jax.image.resize(pixels, (len(pixels), *size, channels), "bilinear")

    body = module.clone(head="none")

    def network(params: Params, x: jax.Array) -> jax.Array:
        logits: Any = module.apply({"params": params}, images(x))
        return cast(jax.Array, logits)

    def features(params: Params, x: jax.Array) -> jax.Array:
        tokens: Any = body.apply({"params": {"body": params["body"]}}, images(x))
        return cast(jax.Array, tokens[:, 0])

    kind = "dinov2" if isinstance(module, Dinov2) else "vit"
    return Backbone(folder, kind, module, loaded.params, loaded.config, loaded.new, network, features)


def for_text(folder: str, length: int, num_classes: int, **options: Any) -> Backbone:
    """Loads the BERT, RoBERTa, DistilBERT or ELECTRA of a folder for encoded texts (B, 2, `length`).

    Raises:
      UsageError: as `tna_jax.hf.load`; it is another model, or takes fewer tokens than `length`.
    """
    folder = locate(folder)
    loaded = _load(folder, TEXT, num_classes, options)
    module, body = loaded.module, loaded.module.clone(head="none")
    most = module.positions - module.pad_id - 1 if module.kind == "roberta" else module.positions
    if length > most:
        raise UsageError(f"--length {length}: {folder} takes at most {most} tokens")
    one_type = module.types < 2

    def inputs(x: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        ids, types = x[:, IDS], x[:, TYPES]
        return ids, {"mask": ids != module.pad_id, "types": jnp.zeros_like(types) if one_type else types}

    def network(params: Params, x: jax.Array) -> jax.Array:
        ids, rest = inputs(x)
        logits: Any = module.apply({"params": params}, ids, **rest)
        return cast(jax.Array, logits)

    def features(params: Params, x: jax.Array) -> jax.Array:
        ids, rest = inputs(x)
        tokens: Any = body.apply({"params": {"body": params["body"]}}, ids, **rest)
        counted = rest["mask"][:, :, None].astype(tokens.dtype)
        return jnp.sum(tokens * counted, axis=1) / jnp.sum(counted, axis=1)

    return Backbone(folder, module.kind, module, loaded.params, loaded.config, loaded.new, network, features)


def locate(checkpoint: str) -> str:
    """Returns the folder of a checkpoint: it is one, or the name of one that is fetched into the cache where it is not there."""
    return str(cache.locate(checkpoint, console.print))


TEXT = ("bert", "roberta", "distilbert", "electra")
"""Architectures of text encoders."""


def require_kind(folder: str, architectures: tuple[str, ...]) -> None:
    """Raises UsageError unless the folder holds a model of one of these architectures, as far as its config.json says."""
    loading.require_folder(Path(folder))
    config = read_json(Path(folder) / hf_config.CONFIG)
    if not isinstance(config, dict) or "model_type" not in config:
        inner = Path(folder) / "model"
        instead = f"; its model is {inner}" if (inner / hf_config.CONFIG).is_file() else ""
        raise UsageError(f"--checkpoint {folder} is not a model folder (its config.json names no model_type){instead}")
    kinds = [kind for kind, about in model_types.TYPES.items() if about.architecture in architectures]
    if config.get("model_type") not in kinds:
        raise UsageError(
            f"--checkpoint {folder} holds a {config.get('model_type')}, expected {' or '.join(kinds)} for this data"
        )


def _load(folder: str, architectures: tuple[str, ...], num_classes: int, options: dict[str, Any]) -> loading.Loaded:
    require_kind(folder, architectures)
    return loading.load(folder, head="new", num_classes=num_classes, key=jax.random.key(0), **options)


def _default_size(folder: Path) -> int | None:
    """Returns the side to which a DINOv2's images are scaled: what they are cropped to, or its own where that is less; None for others."""
    config = read_json(folder / hf_config.CONFIG) if (folder / hf_config.CONFIG).is_file() else {}
    if config.get("model_type") not in dinov2_config.KINDS:
        return None
    processor = read_json(folder / IMAGES) if (folder / IMAGES).is_file() else {}
    crop = processor.get("crop_size") if isinstance(processor, dict) else None
    side = crop.get("height") if isinstance(crop, dict) else None
    usual = side if type(side) is int and side > 0 else 224
    size = config.get("image_size", 224)
    return min(size, usual) if type(size) is int else None


def scaling(folder: Path) -> tuple[list[float], list[float]] | None:
    """Reads the mean and standard deviation of images, in units of the largest pixel value; None if the folder has none."""
    if not (folder / IMAGES).is_file():
        return None
    values = read_json(folder / IMAGES)
    scale = values.get("image_mean"), values.get("image_std")
    if not all(isinstance(channels, list) and len(channels) in (1, 3) for channels in scale):
        raise UsageError(f"{folder / IMAGES}: image_mean and image_std must be lists of one number for each channel")
    return cast(tuple[list[float], list[float]], scale)


def write_about(folder: Path, about: dict[str, Any], data: Dataset | None = None) -> None:
    """Writes what a model was pretrained on, and for a ViT how images are scaled (as those of `data`), beside it."""
    write_json(folder / ABOUT, about)
    if data is not None:
        height, width, _ = data.image_shape
        processor = {
            "image_processor_type": "ViTImageProcessor", "do_normalize": True, "do_rescale": True, "do_resize": True,
            "image_mean": data.mean, "image_std": data.std, "rescale_factor": 1 / data.max_value, "resample": 2,
            "size": {"height": height, "width": width},
        }  # fmt: skip
        write_json(folder / IMAGES, processor)


def pretraining_record(folder: str) -> dict[str, Any]:
    """What a checkpoint's body stands on: what `tna pretrain` or `tna fetch` wrote beside it, or that there is no record."""
    file = Path(locate(folder)) / ABOUT
    if file.is_file():
        return {"checkpoint": Path(folder).name, **read_json(file)}
    return {"checkpoint": Path(folder).name, "in_words": "a checkpoint without a record of its pretraining"}


def require_finite(params: Params, folder: str, option: str = "--checkpoint") -> None:
    """Raises UsageError that names the leaves of a model of `folder` which are not finite."""
    if wrong := trees.names_not_finite(params):
        raise UsageError(
            f"{option} {folder} holds values that are not finite: {', '.join(wrong)}. Nothing can be learned from it"
        )


def num_parameters(params: Params) -> int:
    """Number of parameters."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
