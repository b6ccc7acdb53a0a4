"""The state of M models, with a leading axis in every leaf, and one of them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, Key, PyTree, Shaped

from tna_jax import averaging, program_cache, sharding, transform, trees
from tna_jax.ensemble.dtypes import at_least_float32, strong_typed
from tna_jax.ensemble.trainer import Hyper, Trainer
from tna_jax.masks import Mask, Params
from tna_jax.masks.freezing import without_frozen
from tna_jax.networks import State

Stacked = TypeVar("Stacked")
"""The type of a stacked tree, which one member has too."""


class Members(NamedTuple):
    """The state of M models; every leaf has the leading axis M."""

    params: Params
    """(M, ...) parameters."""
    mask: Mask
    """(M, ...) bool or float masks, `True` = trainable."""
    opt_state: Any
    """(M, ...) optimizer state."""
    data_keys: Key[Array, "..."]
    """(M,) typed keys; a member's data order in epoch e is a permutation drawn with `fold_in(data_key, e)`."""
    hyper: Hyper
    """(M,) arrays by name."""
    state: State = ()
    """(M, ...) state of the networks (BatchNorm's running statistics), `()` if they have none."""
    member_data: Any = ()
    """Inputs (M, N, ...) and labels (M, N) where each member has its own data, `()` where all have the same."""


@sharding.outside_meshes
def init_ensemble(
    trainer: Trainer,
    params: PyTree[Shaped[Array | np.ndarray, "..."]],
    data_keys: Key[Array, " M"],
    mask: PyTree[Bool[Array | np.ndarray, "..."] | Float[Array | np.ndarray, "..."]] | None = None,
    hyper: Mapping[str, Shaped[Array | np.ndarray, "..."] | Sequence[float]] | None = None,
    state: State = (),
    member_data: Any = (),
) -> Members:
    """Returns M members with fresh optimizer states.

    Args:
      trainer: the common part.
      params: (M, ...) initial parameters, e.g. `jax.vmap(init)(keys)`; or a list or tuple of M models, as masks and states may be.
      data_keys: (M,) typed PRNG keys of the data order; members with equal keys see the data in the same order.
      mask: (M, ...) masks, `None` for all trainable.
      hyper: (M,) arrays by name, handed to `trainer.optimizer` if that is a function.
      state: (M, ...) initial state, for a `Stateful` network; half-precision leaves become float32.
      member_data: inputs (M, N, ...) and labels (M, N), if each member is to train on its own data; what trains them is then given
        `None` for inputs and labels.

    Raises:
      ValueError: leading axes differ (all are listed), or the mask does not fit the parameters.
      TypeError: parameters that are neither frozen nor floating-point arrays; all their paths are listed.
    """
    dtype, shape = getattr(data_keys, "dtype", type(data_keys).__name__), getattr(data_keys, "shape", ())
    if len(shape) != 1 or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        raise ValueError(
            f"data_keys are typed keys (M,), one for each member: jax.random.split(jax.random.key(0), M), of keys one by one "
            f"jnp.stack(keys); got {dtype} {shape}"
        )
    params, mask, state = (_with_leading_axis(tree, data_keys.size) for tree in (params, mask, state))
    mask = jax.tree.map(lambda p: np.ones(p.shape, bool), params) if mask is None else mask
    hypers: Hyper = {} if hyper is None else {k: jnp.asarray(v) for k, v in hyper.items()}
    members = data_keys.shape[0]
    wrong = [
        f"{part}{jax.tree_util.keystr(path)} {np.shape(leaf)}"
        for part, tree in (
            ("params", params),
            ("mask", mask),
            ("hyper", hypers),
            ("state", state),
            ("member_data", member_data),
        )
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
        if np.shape(leaf)[:1] != (members,)
    ]
    if wrong:
        raise ValueError(f"there are {members} data keys, but these leading axes differ: {', '.join(wrong)}")
    trees.require_exact({"params": params, "state": state, "member_data": member_data})
    transform.tna_mask(mask, last=True).init(params)  # names every leaf that does not fit
    trees.parameters(without_frozen(params, trainer.freeze))

    parts = jax.tree.map(strong_typed, (params, mask, hypers, state, member_data))
    params, mask, hypers, state, member_data = parts
    # Running averages in half precision stop moving: what a batch adds is below their last digit.
    state = jax.tree.map(lambda x: x.astype(at_least_float32(x.dtype)), state)
    opt_state = jax.tree.map(strong_typed, _init_program(trainer)(params, mask, hypers))
    return Members(params, mask, opt_state, data_keys, hypers, state, member_data)


@program_cache.by_contents()
def _init_program(trainer: Trainer) -> Any:
    """Returns the compiled (params, mask, hyper) -> optimizer states, of members with a leading axis."""
    return jax.jit(jax.vmap(trainer.init_optimizer))


def _with_leading_axis(tree: Any, members: int) -> Any:
    """A tree (M, ...); of a list or tuple of M models they are stacked, unless all leaves have the leading axis M already."""
    if (
        type(tree) not in (list, tuple)
        or len(tree) != members
        or all(np.shape(leaf)[:1] == (members,) for leaf in jax.tree.leaves(tree))
    ):
        return tree
    return averaging.stacked(tree)


def trained_part(members: Members) -> tuple[Any, Any, Any]:
    """Returns what a step changes: parameters, optimizer state, state."""
    return members.params, members.opt_state, members.state


def with_trained(members: Members, trained: Sequence[Any]) -> Members:
    """Returns the members with other parameters, optimizer states and states."""
    params, opt_state, state = trained
    return members._replace(params=params, opt_state=opt_state, state=state)


def member(members: Stacked, index: int | Integer[Array | np.ndarray | np.number, ""]) -> Stacked:
    """Returns one member of a stacked tree (M, ...), without the leading axis; negative numbers count from the last.

    Raises:
      IndexError: there is no such member: JAX would take the nearest one. Of a traced number that is not known.

    >>> member({"w": jnp.arange(6).reshape(3, 2)}, 1)["w"].tolist()
    [2, 3]
    """
    if isinstance(index, (int, np.integer)):
        leading = [np.shape(leaf)[0] for leaf in jax.tree.leaves(members) if np.ndim(leaf)]
        if leading and not -min(leading) <= index < min(leading):
            raise IndexError(f"there are {min(leading)} members, 0 to {min(leading) - 1}; got {index}")
    chosen: Stacked = _slice_of(members, index)
    return chosen


def _slice_of(
    members: PyTree[Shaped[Array | np.ndarray, "M ..."]], index: int | Integer[Array | np.ndarray | np.number, ""]
) -> PyTree[Shaped[Array | np.ndarray | np.generic, "..."]]:
    return jax.tree.map(lambda leaf: sharding.entry(leaf, index), members)


def member_shapes(members: Any) -> Any:
    """The shapes and dtypes of one member."""
    return jax.tree.map(lambda x: trees.shape_of(x, x.shape[1:]), members)


def count_examples(arrays: Any) -> int:
    """N of (N, ...)."""
    return int(jax.tree.leaves(arrays)[0].shape[0])


def examples_of(member: Members, inputs: Any) -> int:
    """Returns N, the examples that one member (no leading axis) trains on in an epoch, of shared inputs (N, ...) or its data."""
    return count_examples(member.member_data[0] if member.member_data else inputs)
