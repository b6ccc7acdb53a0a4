"""Heads that repeat the embeddings: where files hold both, both are merged alike, for readers keep one of them.

A configuration with `tie_word_embeddings` has readers (transformers) take the embeddings for both, whatever the file's head is.
"""

import itertools
import re

from tna_jax.io.tensor_headers import Checkpoint
from tna_jax.programs.merge.inputs import equal_bits
from tna_jax.programs.merge.unmergeable import configuration

HEAD = re.compile(
    r"(^|\.)(lm_head|lm_head\.decoder|cls\.predictions\.decoder|embed_out|vocab_projector|output_projection)\.weight$"
)
"""Names of heads."""
EMBEDDINGS = re.compile(r"(^|\.)(embed_tokens|wte|word_embeddings?|tok_embeddings|embed_in|shared)\.weight$")
"""Names of embeddings of tokens."""


def tied_heads(models: list[Checkpoint], base: Checkpoint | None) -> tuple[dict[str, str], list[str]]:
    """Finds heads that are the embeddings in all models, and those that should be and are not.

    Args:
      models: with tensors of equal names and shapes.
      base: the model that they were fine-tuned from, if one was named.

    Returns:
      By a head's name that of the embeddings that it repeats, bit for bit, in all models; and a sentence of each model whose configuration
      ties a head that differs.
    """
    held = [*models, *([base] if base is not None else [])]
    ties = [configuration(model).get("tie_word_embeddings") for model in held]
    first = models[0].tensors
    repeats: dict[str, str] = {}
    warnings: list[str] = []
    if False in ties:
        return repeats, warnings
    for head in filter(HEAD.search, first):
        embeddings = next((n for n in first if EMBEDDINGS.search(n) and first[n].shape == first[head].shape), None)
        having = [model for model in held if embeddings in model.tensors and head in model.tensors]
        if embeddings is None or len(having) < len(models):
            continue
        differing = (model for model in having if not equal_bits(model.tensors[head], model.tensors[embeddings]))
        differ = list(differing) if True in ties else list(itertools.islice(differing, 1))  # to find one is enough
        if not differ:
            repeats[head] = embeddings
        elif True in ties:
            warnings.append(
                f"{', '.join(str(model.path) for model in differ)}: {head} differs from {embeddings}, though tie_word_embeddings of the "
                "configuration says that they are one: readers that tie them (transformers) take the embeddings for both, and drop this "
                "head. If the head was trained by itself, set tie_word_embeddings to false in the merge's config.json"
            )
    return repeats, warnings
