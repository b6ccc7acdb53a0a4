"""What a merging method is: a function of one tensor, what it must know beforehand, and its options with their ranges.

The core of a method takes one tensor of all models, or a piece of one, as NumPy arrays, and no file, key or tree:

    core(base, vectors, weights, context, **options) -> merged

    base     (...) float32, or None for a method without one
    vectors  (M, ...) float32: task vectors `model - base`, or the models themselves for a method without a base
    weights  (M,) in the dtype of `vectors`, divided by their sum where the method is `normalized`
    context  the tensor's name, the facts of its surveys, and where a piece begins
    merged   (...) float32, the merged model (not the merged task vector)

float64 in gives float64 out. Cores do not change their arguments, and two calls give the same bytes. Casting back, copying
what is equal in all models, masks and the check of values are in `tna_jax.merging.tensors`, once for all methods.

Some methods need facts of a whole tensor (a trimming threshold, cosines) or of whole models. They are gathered first, in one
or two rounds, by `surveys`: each gives an array for a piece, arrays of pieces are added, and the sum is turned into facts. So
facts of a tensor and of a model (`scope`) come from the same functions, and files can be streamed: once for each survey, once
for the merge.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Options = Mapping[str, Any]
Scope = Literal["tensor", "model"]
"""Over what facts are gathered: each tensor by itself, or all tensors of a model together."""


@dataclasses.dataclass(frozen=True)
class Context:
    """Where a core's arrays come from."""

    name: str = ""
    """Of the tensor: its path in a tree (`Dense_0/kernel`) or its name in a file. Random draws depend on it."""
    facts: Any = None
    """What the last survey concluded; `None` for methods without surveys."""
    start: int = 0
    """Index of the first entry in the flattened tensor, where it is merged in pieces."""


@runtime_checkable
class Core(Protocol):
    """Merges one tensor, see the module's docstring."""

    def __call__(
        self, base: Array | None, vectors: Array, weights: Array, context: Context, /, **options: Any
    ) -> Array: ...


@dataclasses.dataclass(frozen=True)
class Survey:
    """One round of gathering facts."""

    measure: Callable[[Array, Any, Options], Array]
    """(vectors (M, ...), facts of the round before or None, options) -> an array; those of all pieces are added."""
    conclude: Callable[[Array, Any, Options], Any]
    """(sum of the arrays, facts of the round before or None, options) -> facts."""


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a method: a number in a range, or one of some words."""

    name: str
    default: float | int | str
    meaning: str
    low: float = -np.inf
    high: float = np.inf
    above: bool = False
    """Whether `low` itself is outside."""
    choices: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        """The allowed values in words: `in (0, 1]`, `one of sum, count`."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        left, right = "(" if self.above or self.low == -np.inf else "[", ")" if self.high == np.inf else "]"
        return f"{'a whole number ' if type(self.default) is int else ''}in {left}{self.low:g}, {self.high:g}{right}"

    def check(self, value: Any) -> float | int | str:
        """Returns the value, numbers as the default's type.

        Raises:
          ValueError: it is not allowed; the error says what is.
        """
        if self.choices:
            if value in self.choices:
                return str(value)
        else:
            try:  # a whole number as it is: float loses the last digits of large seeds
                number = int(value) if type(self.default) is int and str(value).lstrip("-").isdigit() else float(value)
            except (TypeError, ValueError):
                number = np.nan
            inside = self.low < number if self.above else self.low <= number
            whole = type(self.default) is not int or isinstance(number, int) or number.is_integer()
            if inside and whole and number <= self.high and math.isfinite(number):
                return type(self.default)(number)
        raise ValueError(f"{self.name} must be {self.allowed}, got {value!r} ({self.meaning})")


@dataclasses.dataclass(frozen=True)
class Method:
    """A merging method by name."""

    name: str
    summary: str
    """In one line."""
    source: str
    """Paper, as arXiv number, or author and year."""
    core: Core
    needs_base: bool
    normalized: bool
    """Whether weights are shares, divided by their sum; else they are factors, 1 for each model by default."""
    extrapolates: bool = True
    """Whether a weight may be negative, for a point beyond the models."""
    min_models: int = 1
    max_models: int | None = None
    options: tuple[Option, ...] = ()
    surveys: tuple[Survey, ...] = ()
    in_pieces: bool = True
    """Whether, once its facts are known, a tensor may be merged in pieces of its flattened entries, with the same result."""
    problem: Callable[[Options], str | None] = lambda options: None
    """What is wrong with the options together, in words, or `None`."""

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """Over what its facts can be gathered; none for a method without surveys."""
        return ("tensor", "model") if self.surveys else ()

    def check(self, models: int, base: bool, options: Options) -> dict[str, Any]:
        """Returns all options, defaults filled in.

        Raises:
          ValueError: too few or too many models, no base where one is needed, an unknown option, or a value that is not
            allowed.
        """
        if models < self.min_models or (self.max_models is not None and models > self.max_models):
            most = "" if self.min_models == self.max_models else f" to {self.max_models}"
            needed = f"{self.min_models}{' or more' if self.max_models is None else most}"
            raise ValueError(f"{self.name} merges {needed} models, got {models}")
        if self.needs_base and not base:
            raise ValueError(f"{self.name} needs the base, the model from which the others were fine-tuned")
        known = {option.name: option for option in self.options}
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise ValueError(
                f"{self.name} has no option {', '.join(unknown)}; it has {', '.join(known) if known else 'none'}"
            )
        checked = {name: option.check(options.get(name, option.default)) for name, option in known.items()}
        if (problem := self.problem(checked)) is not None:
            raise ValueError(f"{self.name}: {problem}")
        return checked

    def shares(self, weights: Any, models: int) -> Array:
        """Returns the weights as the core takes them, (M,) float64: equal by default, divided by their sum where `normalized`.

        Raises:
          ValueError: another number of weights than models, weights that are not finite, shares whose sum is 0, or a negative weight
            of a method that stays between the models.
        """
        array = np.ones(models) if weights is None else np.asarray(weights, np.float64)
        if array.shape != (models,):
            raise ValueError(f"expected one weight for each of the {models} models, got the shape {array.shape}")
        if not np.isfinite(array).all() or (self.normalized and array.sum() == 0):
            nonzero = ", and their sum not 0" if self.normalized else ""
            raise ValueError(f"the weights must be finite{nonzero}; got {array.tolist()}")
        if not self.extrapolates and (array < 0).any():
            raise ValueError(
                f"{self.name} stays between the models: its weights must not be negative (t in [0, 1]), got {array.tolist()}; "
                "average and task_arithmetic go beyond them"
            )
        return array / array.sum() if self.normalized else array


STRENGTH = Option("strength", 1.0, "factor of the merged task vector")
