"""Equinox modules as networks. Equinox need not be installed until one is made."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from tna_jax import trees
from tna_jax.frameworks.conversion import (
    Model,
    call_options,
    call_parameters,
    network_of,
    refuse_padding,
    refuse_still_dropout,
)
from tna_jax.masks import Params
from tna_jax.networks import State


def from_equinox(
    module: Any,
    state: Any = None,
    key: Key[Array, ""] | None = None,
    *,
    preprocess: Callable[[Any], Any] = lambda x: x,
) -> Model:
    """Returns an Equinox module as a `Model`: its network, parameters and state, `to_module`, and `init(key)` for a function.

    The parameters are the module's inexact arrays (`eqx.filter(module, eqx.is_inexact_array)`), the state a nested dict of
    what `eqx.nn.State` holds, by the path of the layer. As usual in Equinox, the module takes one example: it is run under
    `vmap`, `module(x)`, `module(x, state)`, with `key=` where its `__call__` has that (a key of its own for each example).
    Dropout is off in evaluation. Equinox's BatchNorm has no mask, so a padded batch is refused for modules with a state.

    Args:
      module: an `eqx.Module`; or a function (key) -> module or (module, state), e.g.
        `lambda key: eqx.nn.make_with_state(Net)(key)`.
      state: the `eqx.nn.State` that belongs to a module with one.
      key: of the initial parameters that a function creates; default: `jax.random.key(0)`.
      preprocess: stored inputs (B, ...) to what the module takes (scaling); run first.

    Raises:
      ImportError: Equinox is not installed.
      TypeError: what is given is no module, and does not create one.
      ValueError: a module with BatchNorm without its state, or BatchNorms of several axis names; in training: a padded batch,
        or dropout that is switched off by the module itself.
    """
    eqx = _equinox()
    create = None
    if not isinstance(module, eqx.Module):
        create = _creator(module)
        module, state = create(jax.random.key(0) if key is None else key)
    batch_norm, index = eqx.nn.BatchNorm, eqx.nn.StateIndex
    norms = _parts(module, batch_norm)
    if state is None and _parts(module, index):
        raise ValueError(
            "this module has a state (BatchNorm): make both by `module, state = eqx.nn.make_with_state(Net)(...)`, then "
            "from_equinox(module, state)"
        )
    axes = {norm.axis_name for norm in norms}
    if len(axes) > 1:
        raise ValueError(f"the BatchNorms of a module must have one axis name, got {', '.join(map(str, axes))}")
    axis_name = next(iter(axes), "batch")

    def mode(training: bool, drawing: bool) -> Any:
        switched = eqx.nn.inference_mode(module, not drawing)
        if training and not drawing:  # BatchNorm alone is in training mode
            switched = jax.tree.map(
                lambda part: eqx.nn.inference_mode(part, False) if isinstance(part, batch_norm) else part,
                switched,
                is_leaf=lambda part: isinstance(part, batch_norm),
            )
        return eqx.partition(switched, eqx.is_inexact_array)[1]

    rests = {pair: mode(*pair) for pair in ((False, False), (True, False), (True, True))}
    params = eqx.partition(module, eqx.is_inexact_array)[0]
    parameters = call_parameters(module)
    has_state = state is not None and bool(jax.tree.leaves(state))
    wants_key = "key" in parameters and (
        bool(_parts(module, eqx.nn.Dropout)) or not type(module).__module__.startswith("equinox.")
    )
    names, structure = _state_names(module, state) if has_state else ([], None)

    def opened(state: Any) -> State:
        return _nested(dict(zip(names, jax.tree.leaves(state), strict=True))) if has_state else ()

    def closed(state: State) -> Any:
        leaves = dict(trees.named_leaves(state))
        return jax.tree.unflatten(structure, [leaves[name] for name in names])

    def run(params: Params, state: State, inputs: Any, training: bool, key: Any, weight: Any) -> tuple[Array, State]:
        if weight is not None and has_state:
            raise refuse_padding(", ".join(map(trees.name, names)), by_weight=False)
        drawing = key is not None
        ready = eqx.combine(params, rests[training, drawing or (training and not wants_key)])
        options = call_options(parameters, training, drawing, None)
        inputs = preprocess(inputs)
        still: list[str] = []
        if training and drawing:
            ready = _watch_dropout(ready, still)

        def example(x: Any, key: Any) -> Any:
            extra = {"key": key} if wants_key else {}
            return ready(x, closed(state), **extra, **options) if has_state else (ready(x, **extra, **options), ())

        keys = jax.random.split(key, jax.tree.leaves(inputs)[0].shape[0]) if wants_key and drawing else None
        run_all = jax.vmap(example, in_axes=(0, None if keys is None else 0), out_axes=(0, None), axis_name=axis_name)
        outputs, new = run_all(inputs, keys)
        if still:
            raise refuse_still_dropout(still)
        return outputs, opened(new) if training and has_state else state

    def settled(state: State) -> State:
        """Statistics that stand on their own: a count so large that Equinox no longer corrects for their start."""
        value = closed(state)
        for norm in norms:
            if (counter := getattr(norm, "batch_counter", None)) is not None:
                value = value.set(counter, jnp.full_like(value.get(counter), 2**30))
        return opened(value)

    def to_module(params: Params, state: State) -> Any:
        ready = eqx.combine(params, rests[False, False])
        return (ready, closed(state)) if has_state else ready

    def init(key: Key[Array, ""]) -> tuple[Params, State]:
        assert create is not None
        drawn, state = create(key)
        return eqx.partition(drawn, eqx.is_inexact_array)[0], opened(state)

    first = opened(state)
    network = network_of(run, first, wants_key, settled if has_state else None)
    return Model(network, params, first, to_module, init if create is not None else None)


def _equinox() -> Any:
    try:
        import equinox
    except ImportError as error:
        raise ImportError("from_equinox needs Equinox, which is not installed: pip install equinox") from error
    return equinox


def _creator(function: Any) -> Callable[[Any], tuple[Any, Any]]:
    eqx = _equinox()
    if not callable(function):
        raise TypeError(
            f"from_equinox takes an eqx.Module or a function (key) -> module, got {type(function).__name__}"
        )

    def create(key: Any) -> tuple[Any, Any]:
        created = function(key)
        module, state = created if isinstance(created, tuple) and len(created) == 2 else (created, None)
        if not isinstance(module, eqx.Module):
            raise TypeError(
                f"the function given to from_equinox must return an eqx.Module, or (module, state); got {type(module).__name__}"
            )
        return module, state

    return create


def _watch_dropout(module: Any, still: list[str]) -> Any:
    """The module with dropout that adds its path to `still` where it is switched off."""
    dropout = _equinox().nn.Dropout

    class Watched(dropout):  # type: ignore[valid-type, misc]
        def __call__(self, x: Array, *, key: Any = None, inference: Any = None, deterministic: Any = None) -> Any:
            off = next(flag for flag in (deterministic, inference, self.inference) if flag is not None)
            if isinstance(off, bool) and off:
                still.append(self.__dict__["path"])
            return dropout.__call__(self, x, key=key, inference=off)

    def watch(path: Any, part: Any) -> Any:
        if not isinstance(part, dropout) or not isinstance(part.p, (int, float)) or part.p == 0:
            return part
        watched = object.__new__(Watched)
        for name, value in {**vars(part), "path": jax.tree_util.keystr(path, simple=True, separator="/")}.items():
            object.__setattr__(watched, name, value)
        return watched

    return jax.tree_util.tree_map_with_path(watch, module, is_leaf=lambda part: isinstance(part, dropout))


def _parts(module: Any, kind: Any) -> list[Any]:
    """The parts of a module that are of a class."""
    leaves = jax.tree.leaves(module, is_leaf=lambda part: isinstance(part, kind))
    return [leaf for leaf in leaves if isinstance(leaf, kind)]


def _state_names(module: Any, state: Any) -> tuple[list[trees.KeyPath], Any]:
    """A path for every leaf of the state, that of its index in the module and its place there; and the state's structure."""
    index = _equinox().nn.StateIndex
    leaves, structure = jax.tree.flatten(state)
    numbers = jax.tree.unflatten(structure, list(range(len(leaves))))
    names: dict[int, trees.KeyPath] = {}
    flat, _ = jax.tree_util.tree_flatten_with_path(module, is_leaf=lambda part: isinstance(part, index))
    for path, part in flat:
        if isinstance(part, index):
            at = tuple(jax.tree_util.keystr((entry,), simple=True) for entry in path)
            for inner, number in trees.named_leaves(numbers.get(part)):
                names.setdefault(number, (*at, *inner))
    return [names.get(i, ("other", str(i))) for i in range(len(leaves))], structure


def _nested(leaves: dict[trees.KeyPath, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for (*parents, last), leaf in leaves.items():
        branch = tree
        for name in parents:
            branch = branch.setdefault(name, {})
        branch[last] = leaf
    return tree
