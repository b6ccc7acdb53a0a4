"""What a framework's module becomes: a network, its parameters and state, and the way back."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float, Key

from tna_jax import networks
from tna_jax.masks import Params
from tna_jax.networks import Network, State


@dataclasses.dataclass(frozen=True)
class Model:
    """A module of Linen, NNX or Equinox as the rest of the library takes it.

    Attributes:
      network: a function (params, inputs (B, ...)) -> outputs for a module without state and randomness; else
        `networks.Stochastic` (dropout) or `networks.Stateful` (BatchNorm, with dropout or without).
      params: a pytree of floating-point arrays, what is trained.
      state: a pytree of arrays, what training changes without a gradient; `()` without one.
    """

    network: Network
    params: Params
    state: State
    _build: Callable[[Params, State], Any]
    _draw: Callable[[Key[Array, ""]], tuple[Params, State]] | None = None

    def init(self, key: Key[Array, ""]) -> tuple[Params, State]:
        """Draws initial parameters and state; works under `jit` and `vmap`.

        Raises:
          ValueError: the module was given already made, so that only its own initial values are known.
        """
        if self._draw is None:
            raise ValueError(
                "this model was made from a finished module, which cannot be drawn again: give the function that "
                "creates it instead, from_nnx(lambda rngs: Net(rngs=rngs)) or from_equinox(lambda key: Net(key=key))"
            )
        return self._draw(key)

    def to_module(self, params: Params | None = None, state: State | None = None) -> Any:
        """Returns the framework's module with these parameters and state, in evaluation mode.

        Args:
          params: of one model; default: the model's own.
          state: of the same model; must be given with `params` where the network has a state.

        Returns:
          Linen: a bound module, `bound(x)`; `module, variables = bound.unbind()`. NNX: the module; `.train()` for training mode.
          Equinox: the module, or `(module, eqx.nn.State)` where it has a state; `eqx.nn.inference_mode(module, False)`.

        Raises:
          ValueError: parameters without the state that belongs to them.
        """
        if params is not None and state is None and jax.tree.leaves(self.state):
            raise ValueError("this network has a state (BatchNorm): give the state that belongs to the parameters")
        return self._build(
            self.params if params is None else params,
            self.state if state is None else state,
        )


Run = Callable[..., tuple[Array, State]]
"""(params, state, inputs, training, key, weight) -> outputs and new state."""


def network_of(run: Run, state: State, wants_key: bool, settled: Callable[[State], State] | None = None) -> Network:
    """Returns the smallest kind of `Network` that does: a function, one with randomness, or one with a state."""

    def evaluate(params: Params, state: State, inputs: Any) -> Float[Array, "B ..."]:
        return run(params, state, inputs, False, None, None)[0]

    if jax.tree.leaves(state):

        def train(params: Params, state: State, inputs: Any, weight: Any, key: Any = None) -> tuple[Array, State]:
            return run(params, state, inputs, True, key, weight)

        return networks.Stateful(train, evaluate, wants_key, settled)

    def alone(params: Params, inputs: Any) -> Float[Array, "B ..."]:
        return evaluate(params, (), inputs)

    if not wants_key:
        return alone
    return networks.Stochastic(lambda params, inputs, key: run(params, (), inputs, True, key, None)[0], alone)


def call_options(parameters: Any, training: bool, drawing: bool, weight: Any) -> dict[str, Any]:
    """Returns what a module's `__call__` is told of the mode, of the argument names in use that it has."""
    values = {
        "train": training,
        "training": training,
        "is_training": training,
        "is_train": training,
        "use_running_average": not training,
        "inference": not training,
        "deterministic": not drawing,
        "enable_dropout": drawing,
        "weight": weight,
    }
    return {name: value for name, value in values.items() if name in parameters}


def call_parameters(module: Any) -> Any:
    """Returns the parameters of a module's `__call__` by name."""
    return inspect.signature(type(module).__call__).parameters


def batch_norm_mask(weight: Array, inputs: Array) -> Array:
    """Returns which examples enter BatchNorm's statistics, (B, 1, ...) bool.

    Raises:
      ValueError: the leading axis of what BatchNorm is given is not that of the examples.
    """
    if inputs.shape[:1] != weight.shape:
        raise ValueError(
            f"BatchNorm is given {inputs.shape} for {weight.shape[0]} examples, so padding cannot be told from examples: "
            "choose a batch size that divides the number of examples, or let __call__ take `weight` (B,), 0 for padding"
        )
    return (weight > 0).reshape(-1, *(1,) * (inputs.ndim - 1))


def refuse_padding(where: str, by_weight: bool = True) -> ValueError:
    """Returns the error for a state that padding would enter; `by_weight`: a module that takes `weight` is not refused."""
    return ValueError(
        f"the last batch is padded, and padding would enter the state of this module ({where}): choose a batch size that "
        f"divides the number of examples{', or let __call__ take `weight` (B,), 0 for padding' if by_weight else ''}"
    )


def refuse_still_dropout(where: list[str]) -> ValueError:
    """Returns the error for dropout of a rate above 0 that is switched off in training mode."""
    return ValueError(
        f"dropout does not run in training: {', '.join(sorted(set(where)))} is switched off there. Let __call__ take `train` or "
        "`deterministic` (Equinox: `inference`) and hand it to dropout, or give it the rate 0"
    )
