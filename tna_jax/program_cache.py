"""Compiled programs, found again by what they were made of: also where that is an object that has changed since.

`functools.lru_cache` and static arguments of `jax.jit` find a program by hash and equality. A method of an object (`net.apply`), or an
object that is called, stays equal to itself when the object changes: the program of before would run. Here an argument is what it
holds when it is looked up (`contents`). What a function reads elsewhere, in variables around it or in globals, is not looked at,
but for the functions of optax: optimizers and schedules made of equal numbers are equal.
"""

import dataclasses
import enum
import functools
import hashlib
import sys
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Generic, TypeVar

import flax.linen as nn
import jax
import numpy as np

from tna_jax import trees

Value = TypeVar("Value")
PLAIN = (
    type(None), bool, int, str, bytes, enum.Enum, type, np.dtype, np.generic, types.FunctionType,
    types.BuiltinFunctionType, types.ModuleType,
)  # fmt: skip
"""What stays what it is."""


class Same:
    """An object by its identity, kept alive."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value


class Static(Generic[Value]):
    """A value as a static argument of `jax.jit`, equal to another where their contents were equal when they were made."""

    def __init__(self, value: Value) -> None:
        self.value = value
        self.key = contents(value)
        self.hash = hash(self.key)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and self.key == other.key


def contents(value: Any) -> Hashable:
    """Returns what a value is made of: equal for two values, or one value at two times, that give the same program."""
    return _contents(value, {})


def _contents(value: Any, above: dict[int, int]) -> Hashable:
    if isinstance(value, (float, complex, np.inexact)):
        return type(value), repr(value)  # 0.0 and -0.0 are two, NaN is one
    optimizer = isinstance(value, types.FunctionType) and _made_by_optax(value)
    if isinstance(value, PLAIN) and not optimizer:
        return type(value), value
    if id(value) in above:  # an object that holds itself
        return "above", above[id(value)]
    inside = {**above, id(value): len(above)}

    def every(values: Any) -> tuple[Hashable, ...]:
        return tuple(_contents(part, inside) for part in values)

    if optimizer:  # two `optax.sgd(0.1)` are one
        return (
            types.FunctionType,
            value.__code__,
            every((value.__defaults__, value.__kwdefaults__, *_as_first_seen(value))),
        )
    if isinstance(value, types.MethodType):
        return types.MethodType, value.__func__, _contents(value.__self__, inside)
    if isinstance(value, functools.partial):
        return functools.partial, every((value.func, value.args, value.keywords))
    if isinstance(value, np.ndarray) and value.dtype != object:
        digest = hashlib.blake2b(np.ascontiguousarray(value)).digest()
        return np.ndarray, value.shape, value.dtype.str, digest
    if isinstance(value, (tuple, list)):
        return type(value), every(value)
    if isinstance(value, Mapping):
        return type(value), every(value.keys()), every(value.values())
    if isinstance(value, (set, frozenset)):
        return type(value), frozenset(every(value))
    state = _state(value)
    if state is None:
        return (type(value), value) if isinstance(value, Hashable) else Same(value)
    by_value = dataclasses.is_dataclass(value) and type(value).__hash__ is not object.__hash__
    return type(value), None if by_value else Same(value), tuple(state), every(state.values())


def _made_by_optax(function: types.FunctionType) -> bool:
    return (function.__module__ or "").startswith("optax.") and "<locals>" in function.__qualname__


NUMBERS = (int, float)
FIRST_SEEN: weakref.WeakKeyDictionary[Any, list[int | float | None]] = weakref.WeakKeyDictionary()
"""The numbers around functions of optax, when they were looked at for the first time; None for what is no number."""


def _as_first_seen(function: Any) -> list[Any]:
    """`_closed_over`, of equal numbers the one that was there first: optax's schedules make floats of their ints when they first run."""
    values = _closed_over(function)
    first = FIRST_SEEN.setdefault(function, [value if type(value) in NUMBERS else None for value in values])
    return [
        old if type(old) in NUMBERS and type(new) in NUMBERS and old == new else new
        for old, new in zip(first, values, strict=True)
    ]


def _closed_over(function: Any) -> list[Any]:
    """Returns the values of the variables around a function; the variable itself where it has none yet."""
    values = []
    for cell in function.__closure__ or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:
            values.append(Same(cell))
    return values


def _state(value: Any) -> dict[str, Any] | None:
    """What an object holds by name; `None` for what stays what it is, or is none of the user's: arrays, compiled functions."""
    cls = type(value)
    nnx = sys.modules.get("flax.nnx")
    if nnx is not None and isinstance(value, nnx.Variable):
        return {"value": value.get_value()}
    if nnx is not None and isinstance(value, nnx.Pytree):
        return dict(vars(value))
    if isinstance(value, jax.Array) or cls.__module__.split(".")[0] in ("jax", "jaxlib", "flax"):
        return None
    fields = [field.name for field in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else []
    held = {name: getattr(value, name) for name in fields if hasattr(value, name)}
    if isinstance(value, nn.Module) or (fields and cls.__dataclass_params__.frozen):
        return held
    slots = [name for base in cls.__mro__ for name in _names(getattr(base, "__slots__", ()))]
    held |= {
        name: getattr(value, name) for name in slots if hasattr(value, name) and name not in ("__weakref__", "__dict__")
    }
    return held | getattr(value, "__dict__", {}) if held or hasattr(value, "__dict__") else None


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def static_jit(function: Callable[..., Any], *others: int) -> Callable[..., Any]:
    """Returns `function` compiled for each value of its first argument, and of those at the places `others`: by `contents`."""
    places = (0, *others)

    def unpacked(*args: Any) -> Any:
        return function(*(arg.value if i in places else arg for i, arg in enumerate(args)))

    program = jax.jit(functools.wraps(function)(unpacked), static_argnums=places)

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        return program(*(Static(arg) if i in places else arg for i, arg in enumerate(args)))

    return run


def by_contents(maxsize: int = 32) -> Callable[[Callable[..., Value]], Callable[..., Value]]:
    """As `functools.lru_cache(maxsize)` for functions of positional arguments, by `contents` instead of hash and equality."""

    def wrap(function: Callable[..., Value]) -> Callable[..., Value]:
        kept: OrderedDict[Hashable, Value] = OrderedDict()

        @functools.wraps(function)
        def cached(*args: Any) -> Value:
            key = contents(args)
            program = kept.pop(key, None) or function(*args)
            kept[key] = program
            while len(kept) > maxsize:
                kept.popitem(last=False)
            return program

        cached.cache_clear = kept.clear  # type: ignore[attr-defined]
        return cached

    return wrap


def output_shapes(function: Callable[..., Any], *args: Any) -> Any:
    """Computes `jax.eval_shape(function, *args)` of arrays or shapes, tracing it once for equal contents and shapes."""
    leaves, structure = jax.tree.flatten(args)
    shapes = tuple(trees.shape_of(x) for x in leaves)
    return _output_shapes(function, structure, shapes)


@by_contents(128)
def _output_shapes(function: Callable[..., Any], structure: Any, shapes: tuple[Any, ...]) -> Any:
    return jax.eval_shape(function, *jax.tree.unflatten(structure, shapes))
