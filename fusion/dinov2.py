"""DINOv2-small cut in two: its lower layers, frozen, whose tokens are computed once for an image, and its upper ones, which are fine-tuned."""

from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tna_jax.masks import Params
from tna_jax.models import transformer
from tna_jax.programs.data import Dataset
from tna_jax.programs.training import backbone

CHECKPOINT = "dinov2-small"
"""As `tna fetch` names it. Its weights were tuned for saliency by the package that ships them: its features are weaker than DINOv2's own."""
BATCH = 20


class Encoder(NamedTuple):
    """A pretrained image encoder, cut in two."""

    lower: Any
    """Images (B, H, W, C) uint8 to tokens (B, T, 384)."""
    body: Params
    """What is fine-tuned and fused: the upper layers and the last norm."""
    features: Any
    """(body, tokens) to the class token beside the mean of the patches, (B, 768)."""

    def tokens(self, images: np.ndarray) -> np.ndarray:
        """Returns the tokens (N, T, 384) of images (N, H, W, C), of which N is a multiple of `BATCH`."""
        return np.concatenate([np.asarray(self.lower(images[i : i + BATCH])) for i in range(0, len(images), BATCH)])


def load(data: Dataset, image_size: int, trained_layers: int) -> Encoder:
    """Loads the encoder for a set of images, which are resized to `image_size` pixels; its upper `trained_layers` are the body."""
    model = backbone.for_images(CHECKPOINT, data, data.num_classes, image_size)
    module, params = model.module, model.params["body"]
    names = [f"layer_{i}" for i in range(module.depth - trained_layers, module.depth)]
    last = f"layer_{module.depth - trained_layers - 1}"
    below = module.clone(head="none", depth=module.depth - trained_layers)
    kept = {name: part for name, part in params.items() if name not in names}
    scaled = backbone.scaling(Path(model.folder)) or (data.mean, data.std)
    mean, std = (np.asarray(values, np.float32) for values in scaled)
    heads, mlp = module.sizes
    block = transformer.Block(module.width, heads, mlp, module.act, True, module.qkv_bias, (0.0, 0.0), module.eps, module.init_std,
                              None, layer_scale=module.layer_scale)  # fmt: skip
    norm = nn.LayerNorm(module.eps, use_fast_variance=False)

    @jax.jit
    def lower(images: jax.Array) -> jax.Array:
        pixels = (images.astype(jnp.float32) / data.max_value - mean) / std
        pixels = jax.image.resize(pixels, (len(pixels), image_size, image_size, pixels.shape[3]), "bilinear")
        state: Any = below.apply({"params": {"body": kept}}, pixels, capture_intermediates=lambda m, _: m.name == last)[
            1
        ]
        tokens: jax.Array = state["intermediates"]["body"][last]["__call__"][0]
        return tokens

    @jax.jit
    def features(body: Params, tokens: jax.Array) -> jax.Array:
        hidden: Any = tokens
        for name in names:
            hidden = block.apply({"params": body[name]}, hidden)
        hidden = norm.apply({"params": body["norm"]}, hidden)
        return jnp.concatenate([hidden[:, 0], jnp.mean(hidden[:, 1:], axis=1)], axis=1)

    return Encoder(lower, {name: params[name] for name in (*names, "norm")}, features)
