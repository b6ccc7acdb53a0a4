"""DINOv2 (arXiv 2304.07193), with registers too (2309.16588), in the form of Hugging Face's `Dinov2Model`, of any size."""

import math
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from tna_jax.models import layers, transformer
from tna_jax.models.vit import Embedding, grid, position_grids, resize_positions


class Body(transformer.Transformer):
    """All of a `Dinov2` but its classifier: images to tokens (B, 1 + registers + patches, width)."""

    patch: int = 14
    image_size: int | tuple[int, int] | None = None
    interpolate: bool = True
    qkv_bias: bool = True
    registers: int = 0
    layer_scale: float = 1.0
    eps: float = 1e-6

    HEADS: ClassVar[tuple[str, ...]] = ("classes", "none")

    def _counts(self) -> tuple[str, ...]:
        return ("patch",) if self.registers == 0 else ("patch", "registers")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (
            isinstance(self.layer_scale, bool)
            or not isinstance(self.layer_scale, int | float)
            or not math.isfinite(self.layer_scale)
        ):
            raise ValueError(f"layer_scale must be a finite number, got {self.layer_scale!r}")
        if self.image_size is not None:
            grid(self.image_size, self.patch)

    @property
    def antialias(self) -> bool:
        """Whether position embeddings are smoothed where their grid shrinks: with registers they are, as published."""
        return self.registers > 0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, weight: jax.Array | None = None) -> jax.Array:
        x = layers.images(x, self.dtype)
        of, here = position_grids(x, self.image_size, self.patch, self.interpolate)
        normal = nn.initializers.truncated_normal(self.init_std)
        patches = Embedding(self.width, self.patch, self.init_std, self.dtype, name="patches")(x)
        class_token = self.param("cls_token", normal, (1, 1, self.width))
        positions = self.param("positions", normal, (1, 1 + math.prod(of), self.width))
        positions = resize_positions(positions, of, here, self.antialias)
        parts = [self._for_each(x, class_token + positions[:, :1]), patches + positions[:, 1:]]
        if self.registers:
            registers = self.param("register_tokens", normal, (1, self.registers, self.width))
            parts.insert(1, self._for_each(x, registers))
        tokens = jnp.concatenate(parts, axis=1)
        tokens = nn.Dropout(self.dropout, deterministic=not train)(tokens.astype(self.dtype or jnp.float32))
        for block in self.blocks(True, self.qkv_bias, train, layer_scale=self.layer_scale):
            tokens = block(tokens)
        return transformer.layer_norm(self.eps, self.dtype, "norm")(tokens)

    def _for_each(self, x: jax.Array, tokens: jax.Array) -> jax.Array:
        """The same tokens (1, N, width) for each image: (B, N, width)."""
        return jnp.broadcast_to(tokens, (x.shape[0], *tokens.shape[1:]))


class Dinov2(Body):
    """A ViT whose sublayers' outputs are scaled by learned factors, one a channel, and that takes images of any size.

    Input (B, H, W, channels) floats. What comes out, float32, is by `head`: `classes`: (B, num_classes), a dense layer on the
    class token beside the mean of the patches; `none`: all tokens, (B, 1 + registers + patches, width), class token first.
    All but the classifier is under `body`: patches, cls_token, register_tokens, positions, layer_0 ..., norm; that is `head`.
    Parameters without a head for positions of 518x518: dinov2_s 22,056,192.

    Attributes:
      patch: side of a patch in pixels; must divide the images' sides.
      image_size: side, or (H, W), of the images that the position embeddings are for; None: of those it is initialized with.
      interpolate: take images of other sizes, for which the position embeddings are interpolated (`resize_positions`).
      qkv_bias: whether queries, keys and values have biases.
      registers: tokens after the class token that stand for no patch, have no position and are read by no head.
      layer_scale: the initial factor of the sublayers' outputs.

    Other fields: see `Transformer`. `weight` is there for the common interface: no layer depends on it.

    Raises:
      ValueError: as `Transformer`; images that have no such patches, or are not of this size where `interpolate` is off.
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, weight: jax.Array | None = None) -> jax.Array:
        tokens = Body(**self.fields(), name="body")(x, train)
        if self.head == "classes":
            mean = jnp.mean(tokens[:, 1 + self.registers :], axis=1)
            both = nn.Dropout(self.dropout, deterministic=not train)(jnp.concatenate([tokens[:, 0], mean], axis=1))
            tokens = transformer.dense(self.num_classes, self.init_std, self.dtype, "head")(both)
        return tokens.astype(jnp.float32)
