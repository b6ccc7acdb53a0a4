"""Networks whose head is the words' embeddings, with a head of its own: what is read may then be turned against what is written."""

from typing import Any

import jax
import numpy as np

from tna_jax import networks, trees
from tna_jax.masks import Params
from tna_jax.networks import Network


def untied(body: Network, head: str = "head") -> Network:
    """Returns a network that computes logits from a body's tokens, with a kernel and a bias of its own.

    Args:
      body: (params, ids) -> tokens (B, T, D): the network with `head="none"`, say.
      head: where the head's `kernel` (D, V) and `bias` (V,) stand in the parameters; all else is the body's.

    Returns:
      (params, ids) -> logits (B, T, V) float32, of parameters as `untied_params` makes them.
    """

    def run(params: Any, ids: Any) -> jax.Array:
        rest = {name: leaf for name, leaf in params.items() if name != head}
        tokens = networks.evaluate(body, rest, (), ids)
        kernel, bias = (params[head][name].astype(tokens.dtype) for name in ("kernel", "bias"))
        logits: jax.Array = (tokens @ kernel + bias.reshape(1, 1, -1)).astype(np.float32)
        return logits

    return run


def untied_params(params: Params, words: str, head: str = "head") -> dict[str, Any]:
    """Returns the parameters of a tied network with a head of its own: a copy of the words, transposed, and a bias of 0.

    Args:
      params: a dict, of one model.
      words: path of the embeddings (V, D), `body/words/embedding`.
      head: as in `untied`.

    Raises:
      ValueError: no such path, or there is such a head.
    """
    leaves = {trees.name(path): leaf for path, leaf in trees.named_leaves(params)}
    if words not in leaves:
        raise ValueError(f"no leaf {words!r}; leaves: {', '.join(leaves)}")
    if head in params:
        raise ValueError(f"these parameters have a {head!r}: they are not tied")
    embedding = np.asarray(leaves[words])
    return {**params, head: {"kernel": embedding.T, "bias": np.zeros(len(embedding), embedding.dtype)}}
