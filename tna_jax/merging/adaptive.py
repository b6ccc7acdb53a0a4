"""AdaMerging: coefficients of task vectors learned by making predictions on unlabeled inputs certain (Yang et al., arXiv 2310.02575).

    params(c) = base + sum_i c_i (model_i - base)        task-wise: c_i a number
                                                         layer-wise: c_i a number for each leaf
    minimize over c   sum_k E_x H(softmax(f_k(params(c), x)))        H the entropy, x inputs of task k

with Adam, from c = 0.3 (the paper's start and optimizer, 1e-3). Coefficients are not bounded.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tna_jax import networks, trees
from tna_jax.masks.operations import Mask, Params
from tna_jax.merging import tensors
from tna_jax.merging.columns import Column, columns_of, like
from tna_jax.merging.method import Array
from tna_jax.merging.methods import METHODS
from tna_jax.networks import Network, State


class AdaMerged(NamedTuple):
    """Merged parameters and how they came to be."""

    params: Params
    coefficients: dict[str, Array]
    """By leaf: (M,) float32; task-wise all the same."""
    entropies: Array
    """(steps,) float32, of the batches of each step, mean over the tasks, nats; before the step."""


def adamerging(
    tasks: Network | Sequence[Network],
    models: Sequence[Params],
    base: Params,
    inputs: Sequence[Any],
    *,
    key: jax.Array,
    layerwise: bool = True,
    states: Sequence[State] | None = None,
    steps: int = 500,
    batch_size: int = 16,
    start: float = 0.3,
    optimizer: optax.GradientTransformation | None = None,
    mask: Mask | None = None,
) -> AdaMerged:
    """Merges M models with coefficients learned on unlabeled inputs of the tasks.

    Entries equal in all models and the base are copied, bit for bit, and what `mask` anchors is the base's.

    Args:
      tasks: logits (B, ..., C) of merged parameters; one network for all tasks, or one for each, which then holds that task's
        head.
      models: M pytrees of the same paths, shapes and dtypes; of what is merged.
      base: the model from which they were fine-tuned.
      inputs: of each task, (N, ...) in every leaf.
      key: of the batches.
      layerwise: whether every leaf has coefficients of its own.
      states: of the network of each task.
      steps: of the optimizer.
      batch_size: of each task in each step.
      start: of all coefficients.
      optimizer: default: Adam with 1e-3.
      mask: a mask like the models.

    Raises:
      ValueError: trees that do not fit, other numbers of networks, states or inputs than tasks, no inputs, or no steps.
    """
    count = len(inputs)
    each = list(tasks) if isinstance(tasks, Sequence) else [tasks] * count
    held = [()] * count if states is None else list(states)
    if not count or len(each) != count or len(held) != count:
        raise ValueError(
            f"expected a network, a state and inputs for every task, got {len(each)}, {len(held)} and {count}"
        )
    if steps < 1 or not all(len(jax.tree.leaves(x)[0]) for x in inputs):
        raise ValueError("AdaMerging needs at least one step, and at least one input of every task")
    columns = columns_of(models, base, mask)
    vectors = [_vectors(column) for column in columns]
    base = trees.like(models[0], [column.base for column in columns])  # whose leaves may stand in another order
    optimizer = optax.adam(1e-3) if optimizer is None else optimizer
    shape = (len(columns), len(models)) if layerwise else (1, len(models))
    initial = jnp.full(shape, start, jnp.float32)

    def assemble(coefficients: jax.Array, vectors: list[jax.Array], base: Params) -> Params:
        leaves = [
            (leaf.astype(v.dtype) + jnp.tensordot(c.astype(v.dtype), v, 1)).astype(leaf.dtype)
            if column.is_merged
            else leaf
            for column, leaf, v, c in zip(
                columns,
                jax.tree.leaves(base),
                vectors,
                jnp.broadcast_to(coefficients, (len(columns), len(models))),
                strict=True,
            )
        ]
        return trees.like(base, leaves)

    def entropy(coefficients: jax.Array, fixed: Any, batches: list[Any], states: list[State]) -> jax.Array:
        params = assemble(coefficients, *fixed)
        means = [
            _entropy(networks.evaluate(network, params, state, x))
            for network, state, x in zip(each, states, batches, strict=True)
        ]
        return sum(means[1:], means[0]) / np.float32(count)

    @jax.jit
    def learn(initial: jax.Array, key: jax.Array, fixed: Any, inputs: list[Any], states: list[State]) -> Any:
        def step(carry: Any, number: jax.Array) -> Any:
            coefficients, memory = carry
            batches = [_batch(jax.random.fold_in(key, number), k, x, batch_size) for k, x in enumerate(inputs)]
            value, gradient = jax.value_and_grad(entropy)(coefficients, fixed, batches, states)
            updates, memory = optimizer.update(gradient, memory, coefficients)
            return (optax.apply_updates(coefficients, updates), memory), value

        return jax.lax.scan(step, (initial, optimizer.init(initial)), jnp.arange(steps))

    (learned, _), entropies = learn(initial, key, (vectors, base), list(inputs), held)
    coefficients = np.broadcast_to(np.asarray(learned), (len(columns), len(models)))
    method, merged = METHODS["task_arithmetic"], []
    for column, leaf in zip(columns, coefficients, strict=True):
        merged.append(
            tensors.merge_tensor(
                method, column.models, column.base, leaf, {"strength": 1.0}, column.name, anchored=column.anchored
            )
        )
    by_leaf = {column.name: leaf for column, leaf in zip(columns, coefficients, strict=True)}
    return AdaMerged(like(models[0], merged), by_leaf, np.asarray(entropies))


def _vectors(column: Column) -> Array:
    """Task vectors (M, ...), 0 under anchors; of no entries for what is not merged."""
    if not column.is_merged:
        return np.zeros((len(column.models), 0), np.float32)
    vectors = tensors.vectors_of(METHODS["task_arithmetic"], column.models, column.base)
    if column.anchored is not None:
        vectors[:, column.anchored] = 0
    return vectors


def _entropy(logits: jax.Array) -> jax.Array:
    """The mean entropy of predictions (..., C), nats, float32; a class with a logit of minus infinity adds nothing."""
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    occurs = ~jnp.isneginf(log_p)
    log_p = jnp.where(occurs, log_p, np.float32(0))
    return -jnp.mean(jnp.sum(jnp.where(occurs, jnp.exp(log_p), np.float32(0)) * log_p, axis=-1))


def _batch(key: jax.Array, task: int, inputs: Any, size: int) -> Any:
    """Draws inputs of a task, with replacement."""
    count = len(jax.tree.leaves(inputs)[0])
    chosen = jax.random.randint(jax.random.fold_in(key, task), (size,), 0, count)
    return jax.tree.map(lambda x: jnp.asarray(x)[chosen], inputs)
