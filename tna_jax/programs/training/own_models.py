"""A network of the user's own (`--model ./net.py:create`): its function, called with its options, as network and initialization."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from tna_jax import frameworks, networks, trees
from tna_jax.io.errors import UsageError
from tna_jax.networks import Network, State
from tna_jax.programs.cli.code_options import AnyModelOptions
from tna_jax.programs.data import Dataset
from tna_jax.programs.training import half_precision
from tna_jax.programs.user_code import UserFunction, resolve
from tna_jax.programs.user_code.arguments import check_arguments
from tna_jax.programs.user_code.resolve import line_of

EXPECTED = "a Linen, NNX or Equinox module, tna_jax.from_linen(...) and the like, or (network, init)"


class BuiltModel(NamedTuple):
    """A network on stored inputs, and its initialization."""

    network: Network
    init: Any
    """A key to (params, state)."""


def build(settings: AnyModelOptions, data: Dataset) -> BuiltModel:
    """Returns the network that the user's function creates.

    Raises:
      UsageError: the function fails, takes other options, or returns something else.
    """
    named = function_of(settings)
    options, place = settings.factory_options, f"--model {settings.model}"
    file = named.reference.rpartition(":")[0]

    def failed(what: str, error: Exception) -> UsageError:
        return UsageError(f"{place}: {what}: {line_of(error, file)}")

    takes = check_arguments(named.function, options, place, "--model-options", ("rngs", "key"))

    def create(key: Any) -> Any:
        return named.function(**options, **({"key": key} if "key" in takes else {}))

    def by_rngs(rngs: Any) -> Any:
        return named.function(**options, rngs=rngs, **({"key": rngs.params()} if "key" in takes else {}))

    try:
        made = by_rngs(_nnx_rngs()) if "rngs" in takes else create(jax.random.key(0))
    except Exception as error:
        raise failed("creating the network fails", error) from error
    try:
        half = getattr(settings, "precision", "float32") == "bf16"
        preprocess = half_precision.rounded_inputs(data.preprocess) if half else data.preprocess
        model = _model(made, create if "key" in takes else None, by_rngs if "rngs" in takes else None, data, preprocess)
        if model is None:
            raise UsageError(f"{place}: returned {type(made).__name__}, expected {EXPECTED}")
        model = model._replace(network=half_precision.in_bfloat16(model.network)) if half else model
        _check(model, data)
    except UsageError as error:
        raise error if str(error).startswith(place) else UsageError(f"{place}: {error}") from error
    except Exception as error:
        raise failed(f"it does not go with {data.name}", error) from error
    return model


def _nnx_rngs() -> Any:
    from flax import nnx  # it takes as long to import as JAX, and most models are of Linen

    return nnx.Rngs(jax.random.key(0))


def _is_nnx(made: Any) -> bool:
    nnx = sys.modules.get("flax.nnx")  # a module of it cannot exist before it was imported
    return nnx is not None and isinstance(made, nnx.Module)


def function_of(settings: AnyModelOptions) -> UserFunction:
    """Returns the function that `--model` names; UsageError where it is not to be run, see `tna_jax.programs.user_code.resolve`."""
    return resolve(settings.model, "--model", settings.model_sha256, settings.trust_code)


Create = Callable[[Any], Any]


def _model(
    made: Any, by_key: Create | None, by_rngs: Create | None, data: Dataset, preprocess: Create
) -> BuiltModel | None:
    """The network of what the function returned; None for what is no network."""
    if isinstance(made, nn.Module):
        return _of_model(frameworks.from_linen(made, data.preprocess(data.train.images[:1]), preprocess=preprocess))
    if _is_nnx(made):
        if by_rngs is None:
            raise UsageError("its function must take rngs (flax.nnx.Rngs), from which other initial values are drawn")
        return _of_model(frameworks.from_nnx(by_rngs, preprocess=preprocess))
    if isinstance(made, frameworks.Model):
        return BuiltModel(_preprocessed(made.network, preprocess), made.init)
    if isinstance(made, tuple) and len(made) == 2 and callable(made[1]) and _is_network(made[0]):
        return BuiltModel(_preprocessed(made[0], preprocess), made[1])
    if _is_network(getattr(made, "network", None)) and callable(getattr(made, "init", None)):
        return BuiltModel(_preprocessed(made.network, preprocess), made.init)
    if _is_equinox(made[0] if isinstance(made, tuple) and made else made):
        if by_key is None:
            raise UsageError("its function must take key (a jax.random.key), from which other initial values are drawn")
        return _of_model(frameworks.from_equinox(by_key, preprocess=preprocess))
    return None


def _of_model(model: frameworks.Model) -> BuiltModel:
    return BuiltModel(model.network, model.init)


def _is_network(value: Any) -> bool:
    return isinstance(value, networks.Stateful | networks.Stochastic) or (
        callable(value) and not isinstance(value, type) and not _is_equinox(value)
    )


def _is_equinox(value: Any) -> bool:
    return any(base.__module__.startswith("equinox.") and base.__name__ == "Module" for base in type(value).__mro__)


def _preprocessed(network: Network, preprocess: Callable[[Any], Any]) -> Network:
    """The network on stored inputs, where it is written for prepared ones."""
    if isinstance(network, networks.Stateful):
        train, evaluate = network.train, network.evaluate
        return dataclasses.replace(
            network,
            train=lambda params, state, inputs, *rest: train(params, state, preprocess(inputs), *rest),
            evaluate=lambda params, state, inputs: evaluate(params, state, preprocess(inputs)),
        )
    if isinstance(network, networks.Stochastic):
        noisy, still = network.train, network.evaluate
        return networks.Stochastic(
            lambda params, inputs, key: noisy(params, preprocess(inputs), key),
            lambda params, inputs: still(params, preprocess(inputs)),
        )
    return lambda params, inputs: network(params, preprocess(inputs))


def _check(model: BuiltModel, data: Dataset) -> None:
    """Raises UsageError unless `init` draws parameters and a state, with which the network runs on the data."""
    shapes: tuple[Any, State] = jax.eval_shape(model.init, jax.random.key(0))
    if not (isinstance(shapes, tuple) and len(shapes) == 2):
        raise UsageError(f"init(key) must return (params, state), with () for no state; got {type(shapes).__name__}")
    if not jax.tree.leaves(shapes[0]):
        raise UsageError("it has no parameters")
    if wrong := [
        trees.name(path) for path, leaf in trees.named_leaves(shapes[0]) if not jnp.issubdtype(leaf.dtype, jnp.floating)
    ]:
        raise UsageError(f"parameters must be floating-point, {', '.join(wrong)} are not: those belong to the state")
    jax.eval_shape(lambda p, s, x: networks.evaluate(model.network, p, s, x), *shapes, data.train.images[:2])
