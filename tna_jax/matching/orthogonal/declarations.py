"""Which layers read which norm of a residual stream, and what layer scale multiplies: of the library's networks with norms first."""

from collections.abc import Mapping, Sequence

Norms = Mapping[str, Sequence[str]]
"""By the path of a norm, the paths of the layers that read what it gives; `*` stands for one and the same text in all of them."""

NORMS: dict[str, Norms] = {
    "vit": {
        "body/layer_*/norm1": ("body/layer_*/query", "body/layer_*/key", "body/layer_*/value"),
        "body/layer_*/norm2": ("body/layer_*/up",),
        "body/norm": ("head",),
    },
    "gpt2": {
        "body/layer_*/norm1": ("body/layer_*/qkv",),
        "body/layer_*/norm2": ("body/layer_*/up",),
        "body/norm": ("head",),
    },
    "dinov2": {
        "body/layer_*/norm1": ("body/layer_*/query", "body/layer_*/key", "body/layer_*/value"),
        "body/layer_*/norm2": ("body/layer_*/up",),
        "body/norm": ("head",),
    },
    "llama": {
        "body/layer_*/norm1": ("body/layer_*/query", "body/layer_*/key", "body/layer_*/value"),
        "body/layer_*/norm2": ("body/layer_*/gate", "body/layer_*/up"),
        "body/norm": ("head",),
    },
}
"""Of the library's networks with norms first, `tna_jax.models`, by name; a tied head is untied before (`untied`)."""

LAYER_SCALES: dict[str, Norms] = {
    "dinov2": {
        "body/layer_*/layer_scale1": ("body/layer_*/out",),
        "body/layer_*/layer_scale2": ("body/layer_*/down",),
    },
}
"""Likewise: by the path of a factor on the outputs of a sublayer (layer scale, arXiv 2103.17239), the layers whose outputs it multiplies."""
