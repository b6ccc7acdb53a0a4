"""Linen modules as networks."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import errors
from jaxtyping import Array, Key

from tna_jax import networks, trees
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


def from_linen(
    module: nn.Module,
    example: Any,
    key: Key[Array, ""] | None = None,
    *,
    preprocess: Callable[[Any], Any] = lambda x: x,
) -> Model:
    """Returns a Linen module as a `Model`: its network, initial parameters and state, `init(key)` and `to_module`.

    `__call__` is given the inputs, and of `train`, `training`, `deterministic`, `use_running_average` and `weight` those that
    it takes. Dropout draws from the step's key in training and is off in evaluation. Every collection but `params` is
    state (`batch_stats`). In a padded batch, `nn.BatchNorm` leaves the padding out by its `mask`.

    Args:
      module: any Linen module.
      example: a batch of inputs (B, ...) as the module takes them, arrays or shapes; or the shape of one float32 input, a
        tuple of ints without the batch axis.
      key: of the initial parameters; default: `jax.random.key(0)`.
      preprocess: stored inputs to what the module takes (scaling); run first.

    Raises:
      ValueError: the module draws random numbers in evaluation mode, or has dropout that is off in training mode too; in
        training: padding in a state other than BatchNorm's.
    """
    shape = isinstance(example, tuple) and all(isinstance(size, int) for size in example)
    batch = jax.ShapeDtypeStruct((1, *example), jnp.float32) if shape else example
    parameters = call_parameters(module)

    def init(key: Key[Array, ""]) -> tuple[Params, State]:
        inputs = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), batch)
        rngs = {"params": key, "dropout": jax.random.fold_in(key, 0)}
        variables: Any = module.init(rngs, inputs, **call_options(parameters, False, False, None))
        state = {name: part for name, part in variables.items() if name not in ("params", "intermediates")}
        return variables.get("params", {}), state or ()

    def run(params: Params, state: State, inputs: Any, training: bool, key: Any, weight: Any) -> tuple[Array, State]:
        return _apply(module, parameters, params, state, preprocess(inputs), training, key, weight)

    def shapes(training: bool, quiet: bool) -> Any:
        params, state = jax.eval_shape(init, jax.random.key(0))
        return jax.eval_shape(
            lambda p, s, x: _apply(module, parameters, p, s, x, training, None, None, quiet), params, state, batch
        )

    params, state = init(jax.random.key(0) if key is None else key)
    try:
        shapes(training=False, quiet=False)
    except errors.InvalidRngError as error:
        raise ValueError(
            f"{type(module).__name__} draws random numbers in evaluation mode too: let its __call__ take `train` or "
            f"`deterministic` and hand it to dropout ({error})"
        ) from error
    try:
        shapes(training=True, quiet=False)
        wants_key = False
    except errors.InvalidRngError:
        wants_key = True

    def bound(params: Params, state: State) -> nn.Module:
        return module.bind({"params": params, **(state or {})})

    return Model(network_of(run, state, wants_key), params, state, bound, init)


def _apply(
    module: nn.Module,
    parameters: Any,
    params: Params,
    state: State,
    inputs: Any,
    training: bool,
    key: Any,
    weight: Any,
    quiet: bool = True,
) -> tuple[Array, State]:
    """Runs the module; `quiet`: dropout is left out where there is no key."""
    normalized: set[tuple[str, ...]] = set()
    still: list[str] = []

    def intercept(call: Callable[..., Any], arguments: Any, options: Any, context: Any) -> Any:
        if context.method_name == "__call__":
            if isinstance(context.module, nn.Dropout) and key is None and quiet:
                return arguments[0]
            if _is_still(context.module, arguments, options):
                still.append("/".join(context.module.path))
            if isinstance(context.module, nn.BatchNorm) and weight is not None:
                normalized.add(context.module.path)
                if options.get("mask") is None:
                    options = {**options, "mask": batch_norm_mask(weight, arguments[0])}
        return call(*arguments, **options)

    variables = {"params": params, **(state or {})}
    options = call_options(parameters, training, key is not None or (training and not quiet), weight)
    rngs = {} if key is None else {"rngs": {"params": key}}  # the stream that all others fall back to
    apply: Callable[..., Any] = module.apply
    if not training:
        return apply(variables, inputs, **options), state
    with nn.intercept_methods(intercept):
        if state:
            outputs, new = apply(variables, inputs, mutable=list(state), **rngs, **options)
        else:
            outputs, new = apply(variables, inputs, **rngs, **options), state
    if still and (key is not None or not quiet):
        raise refuse_still_dropout(still)
    if weight is not None and "weight" not in parameters:
        others = [trees.name(path) for path, _ in trees.named_leaves(state) if path[1:-1] not in normalized]
        if others:
            raise refuse_padding(", ".join(others))
    return outputs, dict(new) if state else state


def _is_still(module: nn.Module, arguments: Any, options: Any) -> bool:
    """Whether a layer is called that would draw (see `networks.draws_in_training`), but is told not to."""
    if not isinstance(module, nn.Dropout | nn.MultiHeadDotProductAttention) or not networks.draws_in_training(module):
        return False
    called = arguments[1] if isinstance(module, nn.Dropout) and len(arguments) > 1 else options.get("deterministic")
    return bool(module.deterministic if called is None else called)
