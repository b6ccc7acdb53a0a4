"""NNX modules as networks."""

import contextvars
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Key

from tna_jax import trees
from tna_jax.frameworks.conversion import (
    Model,
    batch_norm_mask,
    call_options,
    call_parameters,
    network_of,
    refuse_padding,
    refuse_still_dropout,
)
from tna_jax.masks import Params
from tna_jax.networks import State


def from_nnx(
    module: Any, key: Key[Array, ""] | None = None, *, preprocess: Callable[[Any], Any] = lambda x: x
) -> Model:
    """Returns an NNX module as a `Model`: its network, parameters and state, `to_module`, and `init(key)` for a function.

    The parameters are the module's `nnx.Param`s, the state all other variables but random-number streams (`nnx.BatchStat`).
    The module itself is not changed. Training and evaluation mode are those of `module.train()` and `module.eval()`;
    `__call__` is given the inputs, and of `train`, `training`, `deterministic`, `use_running_average`, `weight` and `rngs`
    those that it takes. In training all streams are drawn anew from the step's key; in evaluation there is no
    randomness. In a padded batch, `nnx.BatchNorm` leaves the padding out by its `mask`.

    Args:
      module: an `nnx.Module`; or what creates one, given `nnx.Rngs` (as `rngs=` where it takes that): a class or function.
      key: of the initial parameters that a function creates; default: `jax.random.key(0)`.
      preprocess: stored inputs to what the module takes (scaling); run first.

    Raises:
      TypeError: what is given is no module, and does not create one.
      ValueError: in training: padding in a state other than BatchNorm's, or dropout that is switched off by the module itself.
    """
    from flax import nnx

    create = None
    if not isinstance(module, nnx.Module):
        create = _creator(module)
        module = create(jax.random.key(0) if key is None else key)

    def split(module: Any) -> tuple[Any, Params, Any, Any]:
        parts: Any = nnx.split(module, nnx.Param, nnx.RngState, ...)
        graph, params, rngs, rest = parts
        return graph, nnx.as_pure(params), nnx.as_pure(rngs), nnx.as_pure(rest)

    def graph_of(training: bool, drawing: bool) -> Any:
        copy = nnx.clone(module)
        (copy.train if training else copy.eval)()
        copy.set_attributes(deterministic=not drawing, raise_if_not_found=False)
        return split(copy)[0]

    _, params, rngs, rest = split(module)
    key_types = nnx.split(module, nnx.RngKey, ...)[1]
    graphs = {mode: graph_of(*mode) for mode in ((False, False), (True, False), (True, True))}
    parameters = call_parameters(module)
    state = rest if jax.tree.leaves(rest) else ()

    def run(params: Params, state: State, inputs: Any, training: bool, key: Any, weight: Any) -> tuple[Array, State]:
        drawing = key is not None
        streams = rngs if key is None else _streams(rngs, key)
        copy = nnx.merge(graphs[training, drawing], params, streams, state if jax.tree.leaves(state) else rest)
        options = call_options(parameters, training, drawing, weight)
        if "rngs" in parameters:
            options["rngs"] = None if key is None else nnx.Rngs(jax.random.fold_in(key, len(jax.tree.leaves(rngs))))
        masked = training and weight is not None and "weight" not in parameters
        if masked:
            _mask_batch_norms(copy, state)
        still = _watch_dropout(copy) if training and drawing else []
        token = _WEIGHT.set(weight if masked else None)
        try:
            outputs = copy(preprocess(inputs), **options)
        finally:
            _WEIGHT.reset(token)
        if still:
            raise refuse_still_dropout(still)
        if not training or not jax.tree.leaves(state):
            return outputs, state
        nnx.pop(copy, nnx.Intermediate)
        new = split(copy)[3]
        return outputs, jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(new))

    def to_module(params: Params, state: State) -> Any:
        return nnx.merge(graphs[False, False], params, rngs, state if jax.tree.leaves(state) else rest, copy=True)

    def init(key: Key[Array, ""]) -> tuple[Params, State]:
        assert create is not None
        _, params, _, rest = split(create(key))
        return params, rest if jax.tree.leaves(rest) else ()

    wants_key = bool(jax.tree.leaves(key_types)) or "rngs" in parameters
    return Model(network_of(run, state, wants_key), params, state, to_module, init if create is not None else None)


def _creator(function: Any) -> Callable[[Any], Any]:
    from flax import nnx

    if not callable(function):
        raise TypeError(f"from_nnx takes an nnx.Module or a function that creates one, got {type(function).__name__}")
    base = function
    while isinstance(base, functools.partial):
        base = base.func
    called = (
        inspect.getattr_static(base, "__init__") if isinstance(base, type) else base
    )  # NNX hides a class's arguments
    named = "rngs" in inspect.signature(called).parameters

    def create(key: Any) -> Any:
        module = function(rngs=nnx.Rngs(key)) if named else function(nnx.Rngs(key))
        if not isinstance(module, nnx.Module):
            raise TypeError(f"the function given to from_nnx must return an nnx.Module, got {type(module).__name__}")
        return module

    return create


def _streams(rngs: Any, key: Any) -> Any:
    """The streams started anew: each key is drawn from `key`, each count is 0."""
    leaves, structure = jax.tree.flatten(rngs)

    def fresh(i: int, leaf: Any) -> Any:
        if not jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.numpy.zeros_like(leaf)
        own = jax.random.fold_in(key, i)
        return jax.random.split(own, leaf.shape) if leaf.shape else own

    return jax.tree.unflatten(structure, [fresh(i, leaf) for i, leaf in enumerate(leaves)])


_WEIGHT: contextvars.ContextVar[Any] = contextvars.ContextVar("weight", default=None)
"""The weights of the batch that is being traced, for BatchNorm."""


@functools.lru_cache(maxsize=64)
def _masked(kind: Any) -> Any:
    """A class like that BatchNorm whose statistics leave padding out."""

    def call(self: Any, x: Array, use_running_average: bool | None = None, *, mask: Array | None = None) -> Any:
        weight = _WEIGHT.get()
        mask = batch_norm_mask(weight, x) if mask is None and weight is not None else mask
        return kind.__call__(self, x, use_running_average, mask=mask)

    return type(kind.__name__, (kind,), {"__call__": call})


def _mask_batch_norms(module: Any, state: State) -> None:
    """Lets every BatchNorm of a module made for one call leave padding out.

    Raises:
      ValueError: the module has a state that is not BatchNorm's.
    """
    from flax import nnx

    norms = {path: part for path, part in nnx.iter_modules(module) if isinstance(part, nnx.BatchNorm)}
    paths = {tuple(map(str, path)) for path in norms}
    others = [trees.name(path) for path, _ in trees.named_leaves(state) if path[:-1] not in paths]
    if others:
        raise refuse_padding(", ".join(others))
    for part in norms.values():
        object.__setattr__(part, "__class__", _masked(type(part)))


@functools.lru_cache(maxsize=64)
def _watched(kind: Any) -> Any:
    """A class like that dropout or attention that notes where it is told not to draw."""

    def call(self: Any, *arguments: Any, deterministic: bool | None = None, **options: Any) -> Any:
        if self.deterministic if deterministic is None else deterministic:
            path, still = self._watch
            still.append(path)
        return kind.__call__(self, *arguments, deterministic=deterministic, **options)

    return type(kind.__name__, (kind,), {"__call__": call})


def _watch_dropout(module: Any) -> list[str]:
    """Returns a list to which the dropout of a module made for one call adds its path where it is switched off."""
    from flax import nnx

    still: list[str] = []
    for path, part in nnx.iter_modules(module):
        rate = getattr(part, "rate" if isinstance(part, nnx.Dropout) else "dropout_rate", 0)
        if isinstance(part, nnx.Dropout | nnx.MultiHeadAttention) and isinstance(rate, (int, float)) and rate > 0:
            object.__setattr__(part, "__class__", _watched(type(part)))
            object.__setattr__(part, "_watch", ("/".join(map(str, path)), still))
    return still
