"""Operations of which nothing is known but that they are functions: the axes of everything that they take are fixed."""

from typing import TYPE_CHECKING, Any

from tna_jax.matching.axes import Fixed
from tna_jax.matching.operations.table import Outputs, operation
from tna_jax.matching.values import AxisInfo, uniform

if TYPE_CHECKING:
    from tna_jax.matching.tracing import AxisPropagation


@operation("pure_callback", "io_callback", "ffi_call", "custom_linear_solve", "linear_solve", "shard_map", "all_gather", "all_to_all",
           "ppermute", "psum", "psum_invariant", "pmax", "pmin", "reduce_scatter", "axis_index", "random_bits", "random_seed",
           "random_split", "random_fold_in", "random_gamma", "random_wrap", "random_unwrap", "random_clone", "rng_bit_generator",
           "rng_uniform", "threefry2x32", "platform_index", "pallas_call",
           family="Foreign code, random numbers, communication", law="all axes are fixed")  # fmt: skip
def opaque(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> Outputs:
    """Returns fixed axes."""
    return walk.fixed(equation, inputs)


@operation("empty", "empty2", "zeros_like", family="Operations that change no number", law="equal entries")
def empty(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> Outputs:
    """Returns axes of equal entries."""
    return [
        uniform(variable.aval.shape)
        if hasattr(variable.aval, "dtype")
        else AxisInfo(tuple(map(Fixed, variable.aval.shape)))
        for variable in equation.outvars
    ]
