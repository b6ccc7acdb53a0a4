"""The optax transformation of `compact`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from tna_jax import optimizers, trees
from tna_jax.masks import Mask, Params
from tna_jax.packing import index
from tna_jax.packing.elementwise import NotElementwise, require_elementwise
from tna_jax.packing.held_mask import HeldMask


class CompactState(NamedTuple):
    """State of `compact`: the tables of each parameter, in the order of `jax.tree.leaves`, and the state of the optimizer inside.

    The latter is that of parameters of the same tree, ranks and layouts, with as many entries as train.
    """

    leaves: tuple[index.PackedLeaf, ...]
    inner: Any


def compact(
    optimizer: optax.GradientTransformation | optax.MultiSteps, mask: Mask | Callable[[Params], Mask]
) -> optax.GradientTransformationExtraArgs:
    """Runs `optimizer` on trainable entries alone, so that anchored entries cost it neither memory nor arithmetic.

    Trainable entries are packed together, the optimizer sees an array of these, and its updates are put back into their places, beside
    the negative zero for anchors. The arithmetic of an entry is that of `anchored(optimizer, mask)`, operation by operation; the bits
    are the same too, but where the compiler contracts a product and a sum in one program and not in the other. Adam keeps two moments of 60 % of
    the entries at a ratio of 0.4, and tables of 0.9 bytes an entry, less than the mask of `anchored` takes. A parameter is packed where
    that takes less memory than a bit an entry, else it is kept in its shape. (Ours; arXiv 2402.01342 says nothing of it.)

    Over a mesh each device packs its own block; all blocks take the slots of the largest. Stacked models (an axis of members in
    front) are parameters like others; `jax.vmap` over `init` is not possible, since members have numbers of trainable entries of their own.

    Args:
      optimizer: an optax transformation that treats every entry on its own: sgd, momentum, adam, adamw, lion, rmsprop, schedules, decay
        by path or rank, MultiSteps, ... Its program is read to see that it does.
      mask: as in `anchored`, `True` = trainable, of bools: values, not traced ones, or a function of the parameters that `init` calls. It cannot be
        passed at update.

    Returns:
      An optax transformation. Its state belongs to this mask, and over a mesh to this layout of the parameters.

    Raises:
      ValueError: the mask does not fit the parameters (all paths listed), the state holds another mask (noticed where its values are at
        hand; under `jit` see `checks.state_mask`), or, by `init`, the optimizer mixes entries (global
        norms, trust ratios, factored moments, muon, noise) or goes by shapes: use `anchored` for it.
      TypeError: soft or traced masks, or what is no optimizer.

    Example:
      >>> params = {"kernel": jax.numpy.ones((64, 64))}
      >>> mask = {"kernel": jax.numpy.arange(64 * 64).reshape(64, 64) % 2 == 0}
      >>> state = compact(optax.adam(1e-3), mask).init(params)
      >>> state.inner[0].mu["kernel"].shape
      (1, 2048)
    """
    if optimizers.is_transformation(mask):
        raise TypeError(
            "compact(optimizer, mask) takes a mask second, got an optimizer: write compact(optimizer, mask)"
        )
    inside = optimizers.as_transformation(optimizer, "compact(optimizer, mask)")
    checked: set[Any] = set()
    held = HeldMask(mask)

    def check(params: Params, packed: Params, extra_args: dict[str, Any]) -> None:
        shapes = tuple(np.shape(leaf) for leaf in jax.tree.leaves(packed))
        seen = (jax.tree.structure(params), shapes, tuple(map(_kind, jax.tree.leaves(params))), *sorted(extra_args))
        if seen in checked:
            return
        try:
            require_elementwise(inside, params, shapes, **extra_args)
        except Exception as error:
            raise (ValueError if isinstance(error, NotElementwise) else _Unreadable)(
                f"compact(optimizer, mask) takes optimizers that treat every entry on its own, and this one does not: {error}. "
                "Use anchored(optimizer, mask), or keep what mixes entries outside, as in "
                "chain(tna_mask(mask), clip_by_global_norm(1.0), compact(adam(1e-3), mask))"
            ) from error
        checked.add(seen)

    def init(params: Params) -> CompactState:
        leaves = _tables(held.of(params), params, inside)
        held.remember(leaves)
        packed = _pack(leaves, params)
        try:
            check(params, packed, {})
        except _Unreadable:  # perhaps it needs arguments that only an update has
            pass
        return CompactState(leaves, inside.init(optimizers.in_float32(packed)))

    def update(
        updates: Params, state: CompactState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Params, CompactState]:
        if extra_args.get("mask") is not None:
            raise TypeError(
                "compact(optimizer, mask) has the mask that its state was made with; one that changes: anchored"
            )
        if "grad" in extra_args:
            extra_args["grad"] = optimizers.in_float32(_pack(state.leaves, extra_args["grad"]))
        gradients = _pack(state.leaves, updates)
        held.check(state.leaves, updates, params)
        check(updates, gradients, extra_args)
        present = None if params is None else optimizers.in_float32(_pack(state.leaves, params))
        moved, inner = inside.update(optimizers.in_float32(gradients), state.inner, present, **extra_args)
        packed = optimizers.in_types_of(moved, gradients)
        pairs = zip(state.leaves, jax.tree.leaves(packed), jax.tree.leaves(updates), strict=True)
        return trees.like(updates, [index.unpack(*pair) for pair in pairs]), CompactState(state.leaves, inner)

    return optax.GradientTransformationExtraArgs(init, update)


class _Unreadable(ValueError):
    """An optimizer whose program cannot be traced on packed entries, as one that calls a loss with them."""


def _pack(leaves: tuple[index.PackedLeaf, ...], tree: Params) -> Params:
    arrays = jax.tree.leaves(tree)
    if len(arrays) != len(leaves):
        raise ValueError(
            f"this state was made for {len(leaves)} arrays, and got {len(arrays)}: make one by init(params)"
        )
    named = [(path, array) for path, array in trees.named_leaves(tree) if not isinstance(array, optax.MaskedNode)]
    other = [
        f"{trees.name(path)} {np.shape(array)}, here {leaf.shape}"
        for leaf, (path, array) in zip(leaves, named, strict=True)
        if np.shape(array) != leaf.shape
    ]
    if other:
        raise ValueError(
            f"this state was made for arrays of other shapes: {'; '.join(other)}. Make one by init(params)"
        )
    return trees.like(tree, [index.pack(leaf, array) for leaf, array in zip(leaves, arrays, strict=True)])


def _tables(mask: Mask, params: Params, optimizer: optax.GradientTransformation) -> tuple[index.PackedLeaf, ...]:
    aligned = trees.align(mask, params)
    names = [trees.name(path) for path, leaf in trees.named_leaves(params) if not isinstance(leaf, optax.MaskedNode)]
    traced = [name for name, m in zip(names, aligned, strict=True) if isinstance(m, jax.core.Tracer)]
    if traced:
        raise TypeError(
            f"compact(optimizer, mask) counts trainable entries and needs the values of its mask, which are traced here "
            f"({', '.join(traced)}): make the mask outside jit and vmap"
        )
    soft = [name for name, m in zip(names, aligned, strict=True) if np.asarray(m).dtype != bool]
    if soft:
        raise TypeError(
            f"compact(optimizer, mask) takes masks of bools, and these leaves are not: {', '.join(soft)}. Soft anchors: anchored"
        )
    arrays = jax.tree.leaves(params)
    state = jax.eval_shape(lambda p: optimizer.init(optimizers.in_float32(p)), params)
    entries = sum(int(np.prod(np.shape(array))) for array in arrays)
    kept = sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state) if leaf.shape)
    bytes_a_slot = kept / max(entries, 1)
    return tuple(
        index.packed_leaf(np.broadcast_to(np.asarray(m), np.shape(array)), array, bytes_a_slot)
        for m, array in zip(aligned, arrays, strict=True)
    )


def _kind(leaf: Any) -> tuple[Any, ...]:
    return np.shape(leaf), jax.numpy.result_type(leaf)
