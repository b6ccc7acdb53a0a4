"""The method of a merge, on tensors of files: which options it has, and how a tensor is merged by it."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tna_jax.io.errors import UsageError
from tna_jax.io.tensor_headers import Tensor
from tna_jax.merging import tensors
from tna_jax.merging.method import Method, Scope
from tna_jax.merging.methods import METHODS
from tna_jax.programs.merge.plan import Output, Plan
from tna_jax.programs.merge.streaming import Whole

SAMPLE = 1 << 20
"""Entries of a tensor from which facts of whole models are gathered at a time."""


def check(name: str, models: int, base: bool, options: dict[str, Any]) -> tuple[Method, dict[str, Any]]:
    """Returns a method and its options, defaults filled in.

    Raises:
      UsageError: too few models, no base, an option that it does not have, or a value out of its range.
    """
    try:
        return METHODS[name], METHODS[name].check(models, base, options)
    except ValueError as error:
        hint = "; name it with --base" if not base and METHODS[name].needs_base else ""
        raise UsageError(f"--method {name}: {error}{hint}") from error


def of(method: Method, options: dict[str, Any], scope: Scope, plan: Plan) -> Whole | None:
    """Returns the function that merges a whole tensor; None for averages, which are merged in pieces.

    Facts of whole models (`scope`) are gathered here, in a pass over all of them.
    """
    if method.name == "average":
        return None
    facts = _facts(method, options, plan) if scope == "model" and method.surveys else None

    def merge(output: Output) -> np.ndarray:
        models = [_held(output, source) for source in output.sources]
        base = None if output.base is None else _held(output, output.base)
        merged = tensors.merge_tensor(
            method, models, base if method.needs_base else None, method.shares(output.weights, len(models)), options,
            output.drawn_as or output.name,
            facts=facts, refuse_overflow=False,
        )  # fmt: skip
        return merged.astype(output.dtype)

    return merge


def _held(output: Output, source: Tensor) -> np.ndarray:
    """Returns a tensor in the dtype in which a method takes it: its own, or float32 where the output has another one."""
    values = source.read()
    alike = all(other.kind == output.kind for other in (*output.sources, *([output.base] if output.base else [])))
    if alike:
        return values
    return values.astype(np.float64 if output.kind == "F64" or source.kind == "F64" else np.float32)


def _facts(method: Method, options: dict[str, Any], plan: Plan) -> Any:
    merged = [output for output in plan.outputs if not output.copied and output.sources[0].floating and output.size]

    def pieces() -> Iterator[np.ndarray]:
        for output in merged:
            models = [_held(output, source).reshape(-1) for source in output.sources]
            base = _held(output, output.base).reshape(-1) if output.base is not None else None
            for first in range(0, output.size, SAMPLE):
                cut = slice(first, first + SAMPLE)
                yield tensors.vectors_of(method, [m[cut] for m in models], None if base is None else base[cut])

    return tensors.gather_facts(method, pieces, options)


def memory(method: Method, plan: Plan) -> int:
    """Predicts the bytes that merging takes beside the program itself: a few copies a model of the largest tensor."""
    if method.name == "average":
        return 64 << 20
    largest = max((output.size * len(output.sources) for output in plan.outputs if not output.copied), default=0)
    return (64 << 20) + largest * 4 * 4
