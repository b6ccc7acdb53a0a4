"""ColD Fusion (Don-Yehiya et al., arXiv 2212.01378): many fine-tune the shared body on tasks of their own, bodies are averaged.

>>> model = {"body": jnp.zeros(4), "head": jnp.zeros(2)}
>>> heads = {"body": jnp.zeros((3, 4)), "head": jnp.arange(6.0).reshape(3, 2)}  # K = 3 contributors
>>> is_head = lambda path: path == "head"
>>> params = broadcast_body(model, heads, is_head)  # the body of all, to each its head
>>> mask = draw_mask(jax.random.key(0), 0, model, ratio=0.5, is_head=is_head)
>>> def train(params, mask):  # contributor k adds k to what is trainable of the body
...     added = jnp.where(mask["body"][None], jnp.arange(3.0)[:, None], jnp.zeros((3, 1)))
...     return {"body": params["body"] + added, "head": params["head"]}
>>> fused = fuse(train(params, mask), is_head)  # bodies averaged, heads as they are
>>> bool((fused["body"] == mask["body"].astype(jnp.float32)[None]).all())  # the mean of 0, 1 and 2, anchors as they were
True
>>> fused["head"].tolist()
[[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]

With anchors [ours, see arXiv 2402.01342 for the anchors]: each iteration draws a fresh mask over the body, the same for all its
contributors; heads are never anchored. Anchored entries of the body are equal in all contributors, so the average copies them, bit
for bit. K is the number of contributors, the leading axis of every leaf.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Integer, Key, PyTree, Shaped

from tna_jax import averaging, masks, trees
from tna_jax.masks import Mask, Params
from tna_jax.placement import to_host

IsHead = Callable[[str], bool]
"""Of a parameter's path (`classifier/kernel`), whether it belongs to a head and stays with its contributor."""


def broadcast_body(
    start: Params, heads: PyTree[Shaped[Array | np.ndarray, "K ..."]], is_head: IsHead
) -> PyTree[Shaped[Array | np.ndarray, "K ..."]]:
    """Returns K contributors with one body: the leaves of `start` (...), but for heads, which are those of `heads` (K, ...).

    Args:
      start: one model, whose heads are not used.
      heads: a tree of the same paths with leaves (K, ...), of which only heads are used.

    Returns:
      Leaves (K, ...).

    Raises:
      ValueError: paths or shapes differ (all are listed), no leaf is a head, or heads of no or of unlike numbers of contributors.
    """
    shapes = jax.tree.map(lambda leaf: trees.shape_of(leaf, np.shape(leaf)[1:]), heads)
    trees.align(shapes, start, subject="heads")  # raises where they do not fit
    flags, by_path = _flags(start, is_head), dict(trees.named_leaves(heads))
    own = {path: by_path[path] for flag, (path, _) in zip(flags, trees.named_leaves(start), strict=True) if flag}
    count = averaging.count_of({trees.name(path): leaf for path, leaf in own.items()})
    if not count:
        raise ValueError("heads of 0 contributors: expected leaves (K, ...) with K of 1 or more")
    leaves = [
        own[path] if path in own else jnp.broadcast_to(jnp.asarray(leaf)[None], (count, *np.shape(leaf)))
        for path, leaf in trees.named_leaves(start)
    ]
    return trees.like(start, leaves)


def draw_mask(
    key: Key[Array, ""],
    number: int | Integer[Array, ""],
    params: Params,
    ratio: float | Shaped[Array, ""],
    is_head: IsHead,
) -> Mask:
    """Draws the mask of iteration `number` for one contributor's parameters: fresh in each iteration, heads all trainable.

    Args:
      key: of the whole fusion; the iteration is folded in.
      number: of the iteration, from 0; may be traced.
      params: one model, arrays or shapes.
      ratio: share of ANCHORED entries of the body, in [0, 1]; may be traced.
      is_head: which parameters belong to a head.

    Returns:
      A tree like `params` of bool, `True` = trainable.

    Raises:
      ValueError: all parameters are heads, or a ratio outside [0, 1].
    """
    if all(is_head(trees.name(path)) for path, _ in trees.named_leaves(params)):
        _flags(params, is_head)
    return masks.bernoulli(jax.random.fold_in(key, number), params, ratio, lambda path: not is_head(path))


def fuse(
    params: PyTree[Shaped[Array | np.ndarray, "K ..."]],
    is_head: IsHead,
    weights: Shaped[Array | np.ndarray, "..."] | None = None,
) -> PyTree[Shaped[Array | np.ndarray, "K ..."]]:
    """Replaces every contributor's body by the average of all bodies; heads stay, bit for bit.

    Laws: an entry that is equal in all contributors, an anchor above all, is copied; contributors with equal bodies change
    nothing; the order of contributors matters up to rounding only. Works under `jit` and `vmap`.

    Args:
      params: leaves (K, ...).
      weights: (K,) shares of the contributors (their numbers of examples, say); default: equal shares.

    Raises:
      ValueError: no leaf is a head, another number of weights than contributors, or weights that sum to 0.
    """
    flags = _flags(params, is_head)
    leaves = jax.tree.leaves(params)
    bodies = [leaf for flag, leaf in zip(flags, leaves, strict=True) if not flag]
    count = averaging.count_of({trees.name(path): leaf for path, leaf in trees.named_leaves(params)})
    shares = np.ones(count, np.float32) if weights is None else weights
    fused = iter(averaging.average_stacked(bodies, shares))
    fused_leaves: list[Any] = [
        leaf if flag else jnp.broadcast_to(next(fused)[None], leaf.shape)
        for flag, leaf in zip(flags, leaves, strict=True)
    ]
    return trees.like(params, fused_leaves)


def cold_fusion_round(
    key: Key[Array, ""],
    number: int,
    params: PyTree[Shaped[Array | np.ndarray, "K ..."]],
    ratio: float,
    train: Callable[[Params, Mask], Params],
    is_head: IsHead,
    weights: Shaped[Array | np.ndarray, " K"] | None = None,
) -> tuple[PyTree[Shaped[Array | np.ndarray, "K ..."]], Mask]:
    """Runs one iteration: draws the mask, lets the contributors train, averages their bodies.

    Args:
      key, number, ratio, is_head: as in `draw_mask`.
      params: leaves (K, ...), the bodies equal.
      weights: as in `fuse`.
      train: (params (K, ...), mask of one contributor (...)) -> params (K, ...) after training.

    Returns:
      The contributors with the fused body, and the mask that was used.

    Raises:
      ValueError: as `fuse`; or anchored entries are not those of the first contributor's body before the training, bit for bit: `train`
        moves them, or bodies differed. All paths are listed. Under `jit` that is not looked at.
    """
    first = jax.tree.map(lambda x: x[0], params)
    mask = draw_mask(key, number, first, ratio, is_head)
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((params, mask)))
    sent = (
        {} if traced else {path: _bits(leaf).copy() for path, leaf in trees.named_leaves(first)}
    )  # `train` may donate params
    trained = train(params, mask)
    _require_anchors(sent, trained, mask)
    return fuse(trained, is_head, weights), mask


def _require_anchors(sent: dict[trees.KeyPath, np.ndarray], trained: Params, mask: Mask) -> None:
    """Raises ValueError, which names all leaves, unless every contributor holds the anchored entries of the bits that were sent out."""
    held, wrong = dict(trees.named_leaves(mask)), []
    for path, leaf in trees.named_leaves(trained):
        new, old = _bits(leaf) if path in sent else None, sent.get(path)
        if new is None or old is None or new.shape[1:] != old.shape:  # another structure, shape or dtype
            continue
        count = int((new != old).any(-1)[:, ~np.asarray(to_host(held[path]))].sum())
        wrong += [f"{trees.name(path)} ({count})"] if count else []
    if wrong:
        raise ValueError(
            f"anchored entries are not those of the body that was sent out: {', '.join(wrong)}. Either `train` moves them (give its "
            "optimizer the mask: tna_jax.anchored(optimizer, mask)), or the bodies differed before (broadcast_body makes them one)"
        )


def _bits(leaf: Any) -> np.ndarray:
    """(..., bytes) uint8."""
    array = np.ascontiguousarray(to_host(leaf))
    return array.reshape(*array.shape, 1).view(np.uint8)


def _flags(params: Params, is_head: IsHead) -> list[bool]:
    names = [trees.name(path) for path, _ in trees.named_leaves(params)]
    flags = [bool(is_head(name)) for name in names]
    if not any(flags) or all(flags):
        raise ValueError(f"{'all' if any(flags) else 'none'} of the parameters are heads: {', '.join(names)}")
    return flags
