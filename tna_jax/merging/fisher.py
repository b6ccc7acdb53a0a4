"""Fisher merging: each weight averaged by how much each model's outputs depend on it (Matena and Raffel, arXiv 2111.09832).

    merged = sum_i w_i F_i theta_i / sum_i w_i F_i,    F = E_x E_{y ~ p(y | x)} (d log p(y | x) / d theta)^2

F is the diagonal of the Fisher information, on data of the model's own task. No labels are needed: the expectation over y is
taken exactly, class by class. With `labels` the gradients are those of the labels instead (the "empirical" Fisher). Where all
F are 0, for units that are never active say, nothing tells the models apart and the weighted average is taken (ours; the
authors' code adds 1e-6 to every F, here `floor`).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import labels as labels_lib
from tna_jax import networks, objectives, program_cache, trees
from tna_jax.masks.operations import Mask, Params
from tna_jax.merging import tensors
from tna_jax.merging.columns import columns_of, like
from tna_jax.merging.methods import METHODS
from tna_jax.networks import Network, State


def fisher_information(
    network: Network,
    params: Params,
    inputs: Any,
    *,
    state: State = (),
    labels: jax.Array | None = None,
    batch_size: int = 32,
) -> Params:
    """Computes the diagonal Fisher information of a classifier, the mean over examples; each batch in one vmapped pass.

    Outputs of several positions (tokens), (B, T, C), are taken as independent draws: their terms are added.

    Args:
      network: logits (B, ..., C); any network, in evaluation mode.
      params: of one model, floating-point leaves.
      inputs: (N, ...) in every leaf.
      state: of that model.
      labels: (N, ...) integers in [0, C), or `None` for the exact expectation over labels.
      batch_size: examples whose gradients are held at once, one copy of the parameters each.

    Returns:
      A pytree like `params`, float32.

    Raises:
      ValueError: no inputs, logits without a class axis, or labels that are no classes, -100 for what does not count among them.
    """
    count = len(jax.tree.leaves(inputs)[0])
    if not count:
        raise ValueError("the Fisher information needs at least one input")
    objectives.check_batch_size(batch_size)
    trees.parameters(params)
    if labels is not None:
        _check_labels(network, params, state, inputs, labels, count)
    squares = _squares(network, labels is not None)
    total: Any = None
    for start in range(0, count, batch_size):
        part, targets = jax.tree.map(lambda x, at=start: x[at : at + batch_size], (inputs, labels))
        summed = squares(params, state, part, targets)
        total = summed if total is None else jax.tree.map(jnp.add, total, summed)
    return jax.tree.map(lambda x: x / np.float32(count), total)


def _check_labels(network: Network, params: Params, state: State, inputs: Any, labels: Any, count: int) -> None:
    """Raises ValueError unless there is a class for each input, or for each position of it: JAX would take another one, or none."""
    example = jax.tree.map(lambda x: trees.shape_of(x, (1, *np.shape(x)[1:])), inputs)
    form = jax.tree.map(lambda x: trees.shape_of(x), (params, state))
    shape = jax.eval_shape(functools.partial(networks.evaluate, network), *form, example).shape
    expected = (count, *shape[1:-1])
    if np.shape(labels) != expected:
        raise ValueError(f"expected labels {expected}, one for each row of logits, got the shape {np.shape(labels)}")
    labels_lib.check_labels(labels.reshape(-1), int(np.prod(expected)), classes=shape[-1])


@program_cache.by_contents()
def _squares(network: Network, labelled: bool) -> Callable[..., Params]:
    """A compiled function of (params, state, inputs (B, ...), labels (B, ...) or None) to sums of squared gradients, float32."""

    def example(params: Params, state: State, x: Any, label: Any) -> Params:
        def log_probabilities(p: Params) -> jax.Array:
            logits = networks.evaluate(network, p, state, jax.tree.map(lambda leaf: leaf[None], x))
            if logits.ndim < 2:
                raise ValueError(f"expected logits (B, ..., C), got {logits.shape} for one example")
            return jax.nn.log_softmax(logits[0].astype(jnp.float32)).reshape(-1, logits.shape[-1])  # (T, C)

        log_p, pull = jax.vjp(log_probabilities, params)
        positions, classes = log_p.shape
        which = jnp.arange(positions * (1 if labelled else classes))

        def add(total: Params, i: jax.Array) -> tuple[Params, None]:
            position, choice = (i, jnp.ravel(label)[i]) if labelled else (i // classes, i % classes)
            (gradient,) = pull(jnp.zeros_like(log_p).at[position, choice].set(1))
            share = np.float32(1) if labelled else jnp.exp(log_p[position, choice])
            return jax.tree.map(lambda t, g: t + share * jnp.square(g.astype(jnp.float32)), total, gradient), None

        zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
        return jax.lax.scan(add, zeros, which)[0]

    @jax.jit
    def squares(params: Params, state: State, inputs: Any, labels: Any) -> Params:
        each = jax.vmap(example, (None, None, 0, None if labels is None else 0))(params, state, inputs, labels)
        return jax.tree.map(lambda x: x.sum(0), each)

    return squares


def fisher_merge(
    models: Sequence[Params],
    fishers: Sequence[Params],
    weights: Sequence[float] | None = None,
    *,
    mask: Mask | None = None,
    floor: float = 0.0,
) -> Params:
    """Returns the average of M models weighted, entry by entry, by their Fisher information.

    Laws: equal F give the weighted average; an F of 0 beside one that is not takes the other model's entry; entries equal in
    all models are copied, bit for bit, and what `mask` anchors is the first model's.

    Args:
      models: M pytrees of the same paths, shapes and dtypes.
      fishers: M pytrees like them, not negative, from `fisher_information`.
      weights: (M,) not negative; default: equal.
      mask: a mask like the models.
      floor: added to every F.

    Raises:
      ValueError: trees that do not fit, another number of `fishers` or weights, or an F that is negative or not finite.
    """
    if len(fishers) != len(models):
        raise ValueError(f"expected one Fisher information for each of the {len(models)} models, got {len(fishers)}")
    shares = METHODS["average"].shares(weights, len(models))
    aligned = [
        trees.align(f, models[0], what="first model", subject=f"Fisher information {i}") for i, f in enumerate(fishers)
    ]
    merged: list[Any] = []
    for column, *information in zip(columns_of(models, mask=mask), *aligned, strict=True):
        if not column.is_merged:
            merged.append(column.models[0].copy())
            continue
        vectors = tensors.vectors_of(METHODS["average"], column.models, None)
        importance = np.stack([np.broadcast_to(np.asarray(f, np.float64), vectors.shape[1:]) for f in information])
        if not (np.isfinite(importance).all() and (importance >= 0).all()):
            raise ValueError(f"the Fisher information of {column.name} must be finite and not negative")
        parts = shares.reshape(-1, *(1,) * (vectors.ndim - 1)) * np.ones_like(importance)
        total = (parts * (importance + floor)).sum(0)
        used = np.where(total > 0, parts * (importance + floor) / np.where(total > 0, total, 1), parts)
        values = (used * vectors).sum(0)
        merged.append(tensors.settle(values, column.models, None, column.anchored, "fisher_merge", column.name))
    return like(models[0], merged)
