"""`tna merge --match --match-by rotation`: turns the residual streams of Transformers with norms first towards the first model's.

After arXiv 2506.22712, `matching.orthogonal_matching`: all models, the first one too, are written in the form in which norms have no scales
of their own (`norm_form`); each computes what it did. What cannot be turned is refused by name.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from tna_jax import trees
from tna_jax.hf import config as hf_config
from tna_jax.io.errors import UsageError
from tna_jax.io.tensor_headers import Checkpoint, Tensor
from tna_jax.masks import Params
from tna_jax.matching.orthogonal import LAYER_SCALES, NORMS, Norms, OrthogonalMatching, orthogonal_matching
from tna_jax.matching.permutations import PermutationSpec
from tna_jax.programs.merge import verify_anchors
from tna_jax.programs.merge.layout import Layout

FLAG = "--match-by rotation"
READERS = ("head", "body/pooler/dense", "readouts")
"""What may read the last norm."""
LIKE = {"deit": "vit", "dinov2_with_registers": "dinov2"}
"""Architectures whose stream and norms are those of another one."""
RMS = ("llama",)
"""Kinds of networks whose norms do not subtract the mean."""


@dataclasses.dataclass(frozen=True, eq=False)
class Rewritten(Tensor):
    """A tensor of other values than its file's, of the same shape and dtype."""

    source: Tensor
    values: np.ndarray

    def read(self) -> np.ndarray:
        """Returns all of it."""
        return self.values


def _architecture(module: Any) -> str:
    of = hf_config.type_of(module)
    return LIKE.get(of, of)


def require_turnable(kind: str, module: Any, checkpoints: list[Checkpoint]) -> None:
    """Raises UsageError, which says why, for models whose residual stream cannot be turned.

    Args:
      kind: the model type of the folders.
      module: the network.
      checkpoints: the models.
    """
    of = _architecture(module)
    problems = []
    if of not in NORMS:
        problems.append(
            f"{kind} has its norms after the sums, so that nothing can be turned; types with norms first: {', '.join(NORMS)}"
        )
    if module.head == "causal_lm" and (of == "gpt2" or getattr(module, "tied", False)):
        problems.append(
            f"{kind} reads its words' embeddings as its head (tie_word_embeddings): what writes the stream cannot be turned against what reads it"
        )
    anchored = [str(checkpoint.path) for checkpoint in checkpoints if verify_anchors.read_recipe(checkpoint)]
    if anchored:
        problems.append(f"anchors do not survive, as a rotation mixes entries: {', '.join(anchored)}")
    if problems:
        raise UsageError(f"{FLAG}: {'; '.join(problems)}. Permutations go: leave it out")


def turn(spec: PermutationSpec, module: Any, a: Params, b: Params, where: str) -> OrthogonalMatching:
    """Turns and permutes `b` towards `a`.

    Args:
      spec, a, b: as in `orthogonal_matching`.
      module: the network.
      where: the model that is turned, for errors.

    Raises:
      UsageError: no stream that can be turned.
    """
    of = _architecture(module)
    try:
        return orthogonal_matching(
            spec, a, b, norms=_norms(of, spec), layer_scales=LAYER_SCALES.get(of), centered=of not in RMS,
            key=jax.random.key(0),
        )  # fmt: skip
    except ValueError as error:
        raise UsageError(f"{FLAG}: {where}: {error}") from error


def _norms(of: str, spec: PermutationSpec) -> Norms:
    """The norms of a network and what reads each; the last one by whatever heads there are."""
    modules = {trees.name(path[:-1]) for path in spec.params}
    last = tuple(name for name in READERS if name in modules)
    if not last:
        raise UsageError(
            f"{FLAG}: these models have no head: what they give out is the stream itself, which must stay as it is"
        )
    return {norm: last if norm == "body/norm" else readers for norm, readers in NORMS[of].items()}


def in_form(
    layout: Layout, checkpoint: Checkpoint, params: Params, held: dict[str, str], rotation: np.ndarray | None = None
) -> Checkpoint:
    """Returns a model with the tensors of its turned parameters.

    Args:
      layout: of the models.
      checkpoint: the model.
      params: its parameters as they are now.
      held: by canonical name, what the files call a tensor.
      rotation: of the stream; None: the form without one. What stands for masked patches is turned too: it is written into the stream.
    """
    values = layout.tensors(params, held)
    for name in layout.alike:
        token = checkpoint.tensors[held[name]].read().astype(np.float64)
        token = token - token.mean(-1, keepdims=True)
        values[held[name]] = token if rotation is None else token @ rotation
    return rewritten(checkpoint, values)


def rewritten(checkpoint: Checkpoint, values: Mapping[str, np.ndarray]) -> Checkpoint:
    """Returns a model some of whose tensors have other values.

    Args:
      checkpoint: the model.
      values: by name, of the tensors' shapes up to axes of length 1; cast to the tensors' dtypes.

    Raises:
      UsageError: values that the dtype of a tensor cannot hold; all are named.
    """
    tensors, wrong = dict(checkpoint.tensors), []
    for name, new in values.items():
        tensor = tensors[name]
        with np.errstate(over="ignore"):
            cast = np.ascontiguousarray(new).reshape(tensor.shape).astype(tensor.dtype)
        if not np.isfinite(cast.astype(np.float32)).all():
            wrong.append(name)
        tensors[name] = Rewritten(tensor.file, tensor.kind, tensor.shape, tensor.start, tensor, cast)
    if wrong:
        raise UsageError(f"{FLAG}: {checkpoint.path}: turned values leave the range of their dtype: {', '.join(wrong)}")
    return dataclasses.replace(checkpoint, tensors=tensors)
