"""What the members of an ensemble have in common: network, optimizer, batch size, objective."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core.primitives import convert_element_type_p
from jaxtyping import Array

from tna_jax import networks, optimizers, transform
from tna_jax.ensemble.dtypes import as_types, at_least_float32
from tna_jax.ensemble.papa import Papa
from tna_jax.masks import Mask, Params
from tna_jax.masks.freezing import without_frozen
from tna_jax.networks import Network
from tna_jax.objectives import CLASSIFICATION, Objective
from tna_jax.placement import Placement
from tna_jax.trees import PathFilter

Hyper = dict[str, jax.Array]
"""A member's hyper-parameters, scalars by name."""


Batch = tuple[Any, Any, jax.Array]
"""Inputs (B, ...), labels or other targets, and the weight of each, 0 for padding."""


_TAKER = "Trainer(network, optimizer, batch_size)"


@dataclasses.dataclass(frozen=True)
class Trainer:
    """What all members of an ensemble have in common.

    Attributes:
      network: a function (params, inputs) -> outputs, or a `Stateful` one. Inputs are scaled there: it is given the stored
        ones (say uint8 images) as they are. They are any pytree, as targets are.
      optimizer: an optax transformation (or `optax.MultiSteps`), or a function from a member's `Hyper` to one, for hyper-parameters that differ
        between members: `lambda hyper: optax.sgd(hyper["learning_rate"])`. It is run under `anchored`, and
        given the batch's loss as `value`, `grad` and `value_fn` where it wants them (L-BFGS, line searches, Polyak steps). Gradients of
        complex parameters reach it conjugated, so that a step along minus the gradient descends.
      batch_size: examples per step. The last batch of an epoch is smaller if need be (padded under a mask).
      placement: `auto`, `map`, `vmap` or `loop`.
      augment: (key, inputs (B, ...)) -> inputs of the same shape, run on each batch before the network (see
        `tna_jax.augment`); a member's keys follow from its data order.
      prepare: (key, hyper, batch) -> batch, run after `augment`: for what depends on a member's hyper-parameters, or makes
        labels of its own (see `tna_jax.finetuning`, `tna_jax.masked_lm`). Inputs may become any pytree that the network takes,
        labels and weight (B, ...) of one shape.
      loss: (outputs, targets, hyper) -> losses of the shape of the objective's, what is minimized where that depends on a
        member's hyper-parameters; default: the objective's loss. Metrics stay the objective's.
      objective: the loss and the metrics, see `tna_jax.objectives`; default: classification.
      accumulate: parts that a batch is cut into, whose gradients are summed, in float32, before the step: the same step in less
        memory, up to rounding. Must divide the batch size; not for networks with a state.
      papa: `Papa(every, rate)`, which pulls the members towards their average while they train; None: they train apart.
      freeze: leaves that are fixed as a whole, whatever the masks say of them: a regular expression of their path, or a predicate. The same
        numbers as a mask that is `False` on them, but they cost no gradient and no optimizer state; what lies below the lowest
        trained layer has no backward pass at all. None: none.
    """

    network: Network
    optimizer: optax.GradientTransformation | optax.MultiSteps | Callable[[Hyper], optax.GradientTransformation]
    batch_size: int
    placement: Placement = "auto"
    augment: Callable[[jax.Array, Any], Any] | None = None
    prepare: Callable[[jax.Array, Hyper, Batch], Batch] | None = None
    loss: Callable[[Any, Any, Hyper], jax.Array] | None = None
    accumulate: int = 1
    objective: Objective = CLASSIFICATION
    papa: Papa | None = None
    freeze: PathFilter | None = None

    def __post_init__(self) -> None:
        if self.accumulate < 1 or self.batch_size % self.accumulate:
            raise ValueError(f"a batch of {self.batch_size} cannot be cut into {self.accumulate} equal parts")
        if self.accumulate > 1 and isinstance(self.network, networks.Stateful):
            raise ValueError(
                "gradients cannot be accumulated for a network with a state: its statistics need the batch"
            )

        if name := optimizers.uncalled(self.optimizer):
            raise TypeError(
                f"Trainer takes an optimizer, and {name} makes one: call it, {name}(...); or lambda hyper: "
                f'{name}(hyper["learning_rate"]), for one that differs between members'
            )
        if not callable(self.optimizer):
            optimizers.as_transformation(self.optimizer, _TAKER)

    def anchored_optimizer(self, hyper: Hyper) -> optax.GradientTransformationExtraArgs:
        """The optimizer of a member, masked first and last; its mask is passed at update.

        Hyper-parameters act as numbers of Python do: they leave the types of half-precision parameters as they are.
        """
        optimizer: Any = self.optimizer
        if not optimizers.is_transformation(optimizer):
            optimizer = optimizers.as_transformation(optimizer(jax.tree.map(_as_number, hyper)), _TAKER)
        return transform.anchored(optimizer)

    def init_optimizer(self, params: Params, mask: Mask, hyper: Hyper) -> Any:
        """Returns the optimizer state of a member (no leading axis) before its first step; traced.

        Of half-precision parameters its types are those it has after a step: what the optimizer makes float32 is so from the start.
        """
        optimizer = self.anchored_optimizer(hyper)
        params = without_frozen(params, self.freeze)
        state = optimizer.init(params)
        if not any(at_least_float32(p.dtype) != p.dtype for p in jax.tree.leaves(params)):
            return state
        for _ in range(2):  # one part's type may follow from another's
            after = jax.eval_shape(
                lambda s: optimizer.update(
                    params, s, params, mask=mask, **extra_arguments(_zero_loss, params, jnp.float32(0))
                )[1],
                state,
            )
            state = as_types(state, after)
        return state


def _as_number(value: Any) -> Any:
    """A floating-point array of a weak type, that of Python's numbers: it does not promote what it is multiplied by."""
    value = jnp.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return value
    return convert_element_type_p.bind(value, new_dtype=value.dtype, weak_type=True, sharding=None)


def extra_arguments(loss: Callable[[Params], Array], gradients: Params, value: Any) -> dict[str, Any]:
    """What optimizers may ask for at an update beside the gradients: the loss here, and as a function of the parameters."""
    return {"value": value, "grad": gradients, "value_fn": loss}


def _zero_loss(params: Params) -> Array:
    return sum((jnp.sum(p).astype(jnp.float32) * np.float32(0) for p in jax.tree.leaves(params)), jnp.float32(0))
