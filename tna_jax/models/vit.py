"""The vision transformer (arXiv 2010.11929) in the form of Hugging Face's `ViTModel`, of any size."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from tna_jax.models import layers, transformer


class Body(transformer.Transformer):
    """All of a `ViT` but its classifier: images to tokens (B, 1 + patches, width), or for head `pooled` to (B, width).

    A distilled one has two tokens before the patches.
    """

    patch: int = 16
    image_size: int | tuple[int, int] | None = None
    interpolate: bool = False
    qkv_bias: bool = True
    distilled: bool = False

    def _counts(self) -> tuple[str, ...]:
        return ("patch",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.interpolate and self.image_size is None:
            raise ValueError("interpolate needs image_size, that of the images the position embeddings are for")
        if self.image_size is not None:
            grid(self.image_size, self.patch)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, weight: jax.Array | None = None) -> jax.Array:
        x = layers.images(x, self.dtype)
        of, here = position_grids(x, self.image_size, self.patch, self.interpolate)
        normal = nn.initializers.truncated_normal(self.init_std)
        tokens = Embedding(self.width, self.patch, self.init_std, self.dtype, name="patches")(x)
        names = ("cls_token", "distillation_token") if self.distilled else ("cls_token",)
        first = [self.param(name, normal, (1, 1, self.width)) for name in names]
        first = [jnp.broadcast_to(token, (x.shape[0], 1, self.width)) for token in first]
        positions = self.param("positions", normal, (1, len(names) + math.prod(of), self.width))
        tokens = jnp.concatenate([*first, tokens], axis=1) + resize_positions(positions, of, here)
        tokens = nn.Dropout(self.dropout, deterministic=not train)(tokens.astype(self.dtype or jnp.float32))
        for block in self.blocks(True, self.qkv_bias, train):
            tokens = block(tokens)
        tokens = transformer.layer_norm(self.eps, self.dtype, "norm")(tokens)
        if self.head == "pooled":
            return transformer.Pooler(self.width, self.init_std, self.dtype, name="pooler")(tokens)
        return tokens


class ViT(Body):
    """Patches as tokens, a class token before them, positions added, blocks with norms first, a last norm, a head.

    Input (B, H, W, channels) floats. What comes out, float32, is by `head`: `classes`: (B, num_classes), a dense layer on the
    class token; `pooled`: (B, width), a dense layer and tanh on it; `none`: all tokens, (B, 1 + patches, width).
    All but the classifier is under `body`: patches, cls_token, positions, layer_0 ..., norm (and pooler); that is `head`.
    Parameters with 224x224x3 images and 1000 classes: vit_b16 86,567,656, vit_b32 88,224,232.

    Attributes:
      patch: side of a patch in pixels; must divide the images' sides.
      image_size: side, or (H, W), of the images that the position embeddings are for; None: of those it is initialized with.
      interpolate: take images of other sizes, for which the position embeddings are interpolated (`resize_positions`);
        needs `image_size`. Without it they are an error.
      qkv_bias: whether queries, keys and values have biases.
      distilled: whether a distillation token follows the class token, as in DeiT (arXiv 2012.12877); no head reads it.

    Other fields: see `Transformer`. `weight` is there for the common interface: no layer depends on it.

    Raises:
      ValueError: as `Transformer`; images that have no such patches, or are not of this size.
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, weight: jax.Array | None = None) -> jax.Array:
        tokens = Body(**self.fields(), name="body")(x, train)
        if self.head == "classes":
            first = nn.Dropout(self.dropout, deterministic=not train)(tokens[:, 0])
            tokens = transformer.dense(self.num_classes, self.init_std, self.dtype, "head")(first)
        return tokens.astype(jnp.float32)


class Embedding(nn.Module):
    """The convolution of a ViT, whose stride is its kernel's side, as one matrix product: (B, H, W, C) to (B, patches, width).

    Parameters as `nn.Conv` has them: "kernel" (patch, patch, channels, width) and "bias" (width,). The result is float32.
    """

    width: int
    patch: int
    init_std: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        cut = patches(x, self.patch)
        normal = nn.initializers.truncated_normal(self.init_std)
        kernel = self.param("kernel", normal, (self.patch, self.patch, x.shape[-1], self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        product = cut @ kernel.reshape(-1, self.width).astype(cut.dtype)
        return product.astype(jnp.float32) + bias.reshape(1, 1, -1)


def grid(size: int | tuple[int, ...], patch: int) -> tuple[int, int]:
    """Returns rows and columns of patches of an image; raises ValueError unless the patch's side divides the image's sides."""
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1 or height % patch or width % patch:
        raise ValueError(f"patches of {patch}x{patch} do not tile images of {height}x{width}")
    return height // patch, width // patch


def position_grids(
    x: Float[Array, "B H W C"], image_size: int | tuple[int, ...] | None, patch: int, interpolate: bool
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns rows and columns of patches that position embeddings are for, and those of the images.

    Args:
      x: images (B, H, W, C).
      image_size: side, or (H, W), that the embeddings are for; None: that of these images.
      patch: side of a patch in pixels.
      interpolate: whether images of other sizes are taken.

    Raises:
      ValueError: patches do not tile the images, or the sizes differ where `interpolate` is off.
    """
    here = grid(x.shape[1:3], patch)
    of = here if image_size is None else grid(image_size, patch)
    if of != here and not interpolate:
        raise ValueError(
            f"the images are {x.shape[1]}x{x.shape[2]}, the position embeddings are for image_size {image_size}: "
            "interpolate=True takes other sizes"
        )
    return of, here


def patches(x: Float[Array, "B H W C"], patch: int) -> Float[Array, "B N P"]:
    """Cuts images (B, H, W, C) into squares, row by row: (B, patches, patch * patch * C)."""
    rows, columns = grid(x.shape[1:3], patch)
    cut = x.reshape(x.shape[0], rows, patch, columns, patch, x.shape[-1]).transpose(0, 1, 3, 2, 4, 5)
    return cut.reshape(x.shape[0], rows * columns, -1)


def resize_positions(
    positions: Float[Array, "1 M D"], old: tuple[int, int], new: tuple[int, int], antialias: bool = False
) -> Float[Array, "1 N D"]:
    """Resizes position embeddings for another number of patches: bicubic, as PyTorch's `interpolate` that Hugging Face calls.

    Args:
      positions: (1, 1 + rows * columns, D) floats; the first is the class token's and stays, a second one (distillation) too.
      old, new: rows and columns of patches.
      antialias: smooth where the grid shrinks, see `cubic`.

    Returns:
      The same for the new grid; `positions` itself, bit for bit, if it is the old one.
    """
    if old == new:
        return positions
    kept = positions.shape[1] - math.prod(old)
    first, rest = positions[:, :kept], positions[:, kept:].reshape(*old, -1)
    down, right = (jnp.asarray(cubic(*sides, antialias), positions.dtype) for sides in zip(old, new, strict=True))
    resized = jnp.einsum("ri,cj,ijd->rcd", down, right, rest)
    return jnp.concatenate([first, resized.reshape(1, new[0] * new[1], -1)], axis=1)


def cubic(old: int, new: int, antialias: bool = False) -> Float64[np.ndarray, "new old"]:
    """Returns bicubic interpolation along one axis as a matrix, (new, old) float64; its rows sum to 1.

    Keys' kernel (1981, IEEE TASSP 29(6)), pixel centers at halves. Without `antialias`, a = -3/4, edges repeated, no smoothing
    when shrinking; with it, as PyTorch has it, a = -1/2, what lies outside left out, and a kernel as wide as a new pixel.
    """
    if antialias:
        scale = old / new
        width = max(scale, 1.0)
        center = scale * (np.arange(new) + 0.5)
        offset = np.arange(old) + 0.5 - center[:, None]
        first, last = np.floor(center - 2 * width + 0.5), np.floor(center + 2 * width + 0.5)
        inside = (np.arange(old) >= first[:, None]) & (np.arange(old) < last[:, None])
        smooth = np.where(inside, _keys(np.abs(offset) / width, -0.5), 0.0)
        smooth /= smooth.sum(axis=1, keepdims=True)
        return smooth
    at = (np.arange(new) + 0.5) * old / new - 0.5
    left = np.floor(at).astype(int)
    weights = np.zeros((new, old))
    for shift in range(-1, 3):
        np.add.at(
            weights, (np.arange(new), np.clip(left + shift, 0, old - 1)), _keys(np.abs(at - (left + shift)), -0.75)
        )
    return weights


def _keys(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel at distances from 0 on; it is 0 from 2 on."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    wide = a * (((distance - 5) * distance + 8) * distance - 4)
    kernel: np.ndarray = np.where(distance <= 1, near, np.where(distance < 2, wide, 0.0))
    return kernel
