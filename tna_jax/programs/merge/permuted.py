"""Tensors whose hidden units are put into another order while a merge reads them, and which models `--match` takes. Needs no JAX."""

import dataclasses

import numpy as np

from tna_jax.hf.model_types import TYPES
from tna_jax.io.errors import UsageError
from tna_jax.io.tensor_headers import Checkpoint, Tensor
from tna_jax.programs.merge.unmergeable import configuration


@dataclasses.dataclass(frozen=True, eq=False)
class Permuted(Tensor):
    """A tensor with the entries of some axes in another order; its dtype and bits stay."""

    source: Tensor
    orders: dict[int, np.ndarray]
    """By axis, which entry comes where: (size,) ints."""

    def read(self) -> np.ndarray:
        """Reads all of it."""
        values = self.source.read()
        for axis, order in self.orders.items():
            values = values.take(order, axis=axis)
        return values


def permuted(tensor: Tensor, orders: dict[int, np.ndarray]) -> Tensor:
    """Returns a tensor with some axes in another order; the same one where no entry moves."""
    moving = {axis: order for axis, order in orders.items() if not np.array_equal(order, np.arange(len(order)))}
    return Permuted(tensor.file, tensor.kind, tensor.shape, tensor.start, tensor, moving) if moving else tensor


def require_matchable(checkpoints: list[Checkpoint]) -> None:
    """Raises UsageError that names every model of a type whose hidden units are not known here."""
    wrong = []
    for checkpoint in checkpoints:
        kind = configuration(checkpoint).get("model_type")
        if kind not in TYPES:
            what = f"a {kind}" if kind is not None else "without a config.json that names its model_type"
            wrong.append(f"{checkpoint.path} is {what}")
    if wrong:
        raise UsageError(f"--match: {'; '.join(wrong)}; model types that can be matched: {', '.join(TYPES)}")
