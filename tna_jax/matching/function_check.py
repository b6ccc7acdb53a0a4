"""Whether two sets of parameters are the same function: their outputs, leaf by leaf, on the inputs that a network was traced with."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import sharding, trees
from tna_jax.masks import Params
from tna_jax.networks import Inputs, State

if TYPE_CHECKING:
    from tna_jax.matching.permutations import PermutationSpec

TOLERANCES = {"float64": 1e-9, "float32": 1e-4, "float16": 2e-2, "bfloat16": 6e-2}
"""What the order of sums may change, by the narrowest float of a program, as a share of the largest output."""
NARROWER = 0.3
"""The same for floats of 8 bits and less."""


def precision() -> AbstractContextManager[None]:
    """Returns the context in which networks are traced and run: products in float32, not what an accelerator takes for fast."""
    context: AbstractContextManager[None] = jax.default_matmul_precision("float32")
    return context


def compiled(run: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function as a program that runs twice and is then done with: on a CPU it is compiled without optimizing it."""
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
    program: Callable[..., Any] = jax.jit(run, compiler_options=options)
    return program


def narrowest_tolerance(closed: Any) -> float:
    """Returns what `TOLERANCES` says of the narrowest float that a closed jaxpr, or one that it calls, computes with."""
    types = {dtype for dtype in _dtypes(closed.jaxpr) if jnp.issubdtype(dtype, jnp.inexact)}
    reals = {
        np.finfo(dtype).dtype.name if jnp.issubdtype(dtype, jnp.complexfloating) else dtype.name for dtype in types
    }
    return max((TOLERANCES.get(name, NARROWER) for name in reals), default=TOLERANCES["float32"])


def _dtypes(jaxpr: Any) -> set[Any]:
    found = {v.aval.dtype for v in [*jaxpr.invars, *jaxpr.constvars] if hasattr(v.aval, "dtype")}
    for equation in jaxpr.eqns:
        found |= {v.aval.dtype for v in equation.outvars if hasattr(v.aval, "dtype")}
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                found |= _dtypes(inner)
    return found


def _drawn(leaf: Any, number: int) -> Any:
    """An input of which only the shape was given: normally distributed, or the numbers 0 and 1, which every vocabulary has."""
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.split(jax.random.key(0), leaf.shape)
    draws = np.random.default_rng(number)
    if jnp.issubdtype(leaf.dtype, jnp.inexact):
        return draws.normal(size=leaf.shape).astype(leaf.dtype)
    return draws.integers(2, size=leaf.shape).astype(leaf.dtype)


def _gap(old: np.ndarray, new: np.ndarray) -> float:
    """The largest difference over the largest entry; of integers and truth values, the share of those that differ."""
    if not old.size:
        return 0.0
    if not jnp.issubdtype(old.dtype, jnp.inexact):
        return float((old != new).mean())
    wide = np.complex128 if jnp.issubdtype(old.dtype, jnp.complexfloating) else np.float64
    old, new = old.astype(wide), new.astype(wide)
    with np.errstate(invalid="ignore"):
        difference = np.where(old == new, 0, np.abs(new - old))  # infinite entries are no difference
    finite = np.abs(old)[np.isfinite(old)]
    return float(difference.max() / max(finite.max(initial=0), np.finfo(np.float32).tiny))


@sharding.outside_meshes
def function_gaps(
    spec: "PermutationSpec",
    before: Params,
    after: Params,
    states: tuple[State, State] = ((), ()),
    inputs: Inputs | None = None,
) -> dict[str, float]:
    """Computes how far two networks' outputs are apart, for each leaf of the outputs by its name.

    Of floats and complex numbers the largest difference over the largest entry of the leaf; of integers and truth values the
    share of entries that differ. NaN where a network gives NaN.

    Args:
      spec: of the network.
      before, after: parameters.
      states: their states.
      inputs: pytree like the inputs that were traced; default: those (drawn at random where only shapes were given).
    """
    x = spec.inputs if inputs is None else inputs
    leaves, structure = jax.tree.flatten(x)
    x = jax.tree.unflatten(structure, [_drawn(leaf, i) for i, leaf in enumerate(leaves)])
    with precision():
        old, new = (
            {trees.name(path): np.asarray(leaf) for path, leaf in trees.named_leaves(spec.evaluate(p, s, x))}
            for p, s in zip((before, after), states, strict=True)
        )
    return {name: _gap(leaf, new[name]) for name, leaf in old.items()}


def function_gap(
    spec: "PermutationSpec",
    before: Params,
    after: Params,
    states: tuple[State, State] = ((), ()),
    inputs: Inputs | None = None,
) -> float:
    """Computes how far two networks' outputs are apart: the largest of `function_gaps`. Arguments as there."""
    return float(np.max([0.0, *function_gaps(spec, before, after, states, inputs).values()]))


def check_function(
    spec: "PermutationSpec",
    before: Params,
    after: Params,
    states: tuple[State, State] = ((), ()),
    inputs: Inputs | None = None,
    tolerance: float | None = None,
) -> None:
    """Raises ValueError unless both networks compute the same, as `function_gaps` measures it; networks that give NaN fail.

    Args:
      spec, before, after, states, inputs: as there.
      tolerance: what the gap of each output may be; default: that of the narrowest float of the program (`TOLERANCES`).
    """
    allowed = spec.tolerance if tolerance is None else tolerance
    gaps = function_gaps(spec, before, after, states, inputs)
    wrong = [f"{f'{name}: ' if name else ''}{gap:.2g}" for name, gap in gaps.items() if not gap <= allowed]
    if wrong and all(np.isnan(gap) for gap in gaps.values() if not gap <= allowed):
        raise ValueError(
            f"outputs are NaN, before or after ({', '.join(wrong)}), so that it cannot be checked whether the permuted network is the same "
            "function. Look at its inputs and at the size of its weights, or leave the check out: check=False"
        )
    if wrong:
        raise ValueError(
            f"the permuted network is another function: its outputs differ by more than {allowed:.2g} of the largest one "
            f"({', '.join(wrong)}). Where sums are long or numbers narrow, rounding may do so: give tolerance="
        )
