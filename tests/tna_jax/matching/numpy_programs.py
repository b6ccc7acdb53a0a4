"""Runs a jaxpr by NumPy in float64, operation by operation: nothing is compiled, so thousands of small programs take minutes."""

from typing import Any

import numpy as np
from scipy.special import erf, expit

from tna_jax.matching import jaxprs

UNARY = {
    "tanh": np.tanh, "exp": np.exp, "log": np.log, "neg": np.negative, "abs": np.abs, "sign": np.sign, "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x), "square": np.square, "logistic": expit, "erf": erf, "not": np.logical_not,
    "erfc": lambda x: 1 - erf(x), "floor": np.floor, "is_finite": np.isfinite, "conj": np.conj, "log1p": np.log1p, "log2": np.log2, "one_minus_square": lambda x: 1 - x * x, "name": np.copy, "sharding_constraint": np.copy, "copy": np.copy, "stop_gradient": np.copy,
    "sin": np.sin, "cos": np.cos, "real": np.real,
}  # fmt: skip
BINARY = {
    "add": np.add, "add_any": np.add, "sub": np.subtract, "mul": np.multiply, "max": np.maximum, "min": np.minimum,
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "pow": np.power, "and": np.bitwise_and, "or": np.bitwise_or, "rem": np.fmod,
}  # fmt: skip
RARE: set[str] = set()
"""The names of the operations that were left to JAX."""
REDUCTIONS = {
    "reduce_sum": np.sum,
    "reduce_max": np.max,
    "reduce_min": np.min,
    "reduce_prod": np.prod,
    "reduce_or": np.any,
}


def run(closed: Any, *arguments: Any) -> list[np.ndarray]:
    """Returns the outputs of a closed jaxpr."""
    values = [np.asarray(leaf) for leaf in arguments]
    return jaxprs.eval_jaxpr_with(closed.jaxpr, list(closed.consts), values, _operation, np.asarray)


def _operation(equation: Any, x: list[Any]) -> list[Any]:
    name, p = equation.primitive.name, equation.params
    shape = equation.outvars[0].aval.shape if equation.outvars else ()
    if name in UNARY:
        return [UNARY[name](x[0])]
    if name in BINARY:
        return [BINARY[name](*x)]
    if name in REDUCTIONS:
        return [REDUCTIONS[name](x[0], axis=tuple(p["axes"]))]
    if name in _OTHERS:
        result = _OTHERS[name](x, p, shape)
        return result if isinstance(result, list) else [result]
    if name in _LOOPS:
        return _LOOPS[name](x, p)
    RARE.add(name)
    outputs = equation.primitive.bind(*map(np.asarray, x), **p)  # rare ones are JAX's
    return [np.asarray(y) for y in (outputs if equation.primitive.multiple_results else [outputs])]


def _slice(x, p, shape):
    strides = p["strides"] or (1,) * len(shape)
    return x[0][tuple(map(slice, p["start_indices"], p["limit_indices"], strides))]


def _pad(x, p, shape):
    ends = [(max(low, 0), max(high, 0), gap) for low, high, gap in p["padding_config"]]
    sizes = [low + high + n + max(n - 1, 0) * gap for n, (low, high, gap) in zip(x[0].shape, ends, strict=True)]
    result = np.full(sizes, x[1], x[0].dtype)
    places = zip(x[0].shape, ends, strict=True)
    result[tuple(slice(low, low + (n - 1) * (gap + 1) + 1 if n else low, gap + 1) for n, (low, _, gap) in places)] = x[
        0
    ]
    cuts = [(max(-low, 0), max(-high, 0)) for low, high, _ in p["padding_config"]]
    return result[tuple(slice(low, n - high) for n, (low, high) in zip(sizes, cuts, strict=True))]


def _broadcast(x, p, shape):
    spread = [1] * len(shape)
    for axis, at in enumerate(p["broadcast_dimensions"]):
        spread[at] = x[0].shape[axis]
    return np.broadcast_to(x[0].reshape(spread), shape)


def _dot(x, p, shape):
    (s, t), (b, c) = p["dimension_numbers"]
    left, right = list(range(x[0].ndim)), [100 + i for i in range(x[1].ndim)]
    for i, j in (*zip(s, t, strict=True), *zip(b, c, strict=True)):
        right[j] = left[i]
    out = [left[i] for i in b] + [a for i, a in enumerate(left) if i not in (*s, *b)]
    out += [a for i, a in enumerate(right) if i not in (*t, *c)]
    letters = {a: chr(97 + i) for i, a in enumerate(dict.fromkeys(left + right))}
    words = ["".join(letters[a] for a in axes) for axes in (left, right, out)]
    return np.einsum(f"{words[0]},{words[1]}->{words[2]}", *x)


def _iota(x, p, shape):
    at = p["dimension"]
    return np.broadcast_to(np.arange(shape[at]).reshape([-1 if i == at else 1 for i in range(len(shape))]), shape)


def _sort(x, p, shape):
    at, keys = p["dimension"], x[: p["num_keys"]]
    order = np.argsort(keys[0], axis=at, kind="stable")
    assert len(keys) == 1
    return [np.take_along_axis(operand, order, at) for operand in x]


def _top_k(x, p, shape):
    order = np.argsort(-x[0], axis=-1, kind="stable")[..., : p["k"]]
    return [np.take_along_axis(x[0], order, -1), order]


def _cumulative(function):
    def run(x, p, shape):
        result = function(np.flip(x[0], p["axis"]) if p["reverse"] else x[0], axis=p["axis"])
        return np.flip(result, p["axis"]) if p["reverse"] else result

    return run


def _window(x, p, axes):
    """A start of a dynamic slice, moved so that the window is inside."""
    return [int(np.clip(start, 0, n - size)) for start, n, size in axes]


def _dynamic_slice(x, p, shape):
    starts = _window(x, p, zip(x[1:], x[0].shape, shape, strict=True))
    return x[0][tuple(slice(start, start + size) for start, size in zip(starts, shape, strict=True))]


def _dynamic_update_slice(x, p, shape):
    result = x[0].copy()
    starts = _window(x, p, zip(x[2:], shape, x[1].shape, strict=True))
    result[tuple(slice(start, start + size) for start, size in zip(starts, x[1].shape, strict=True))] = x[1]
    return result


def _gather(x, p, shape):
    operand, indices = x
    n, sizes = p["dimension_numbers"], p["slice_sizes"]
    batch_axes = [i for i in range(len(shape)) if i not in n.offset_dims]
    result = np.zeros(shape, operand.dtype)
    for at in np.ndindex(*indices.shape[:-1]):
        starts = [0] * operand.ndim
        for d, start in zip(n.start_index_map, indices[at], strict=True):
            starts[d] = int(np.clip(start, 0, operand.shape[d] - sizes[d]))
        for d, i in zip(n.operand_batching_dims, n.start_indices_batching_dims, strict=True):
            starts[d] = at[i]
        block = operand[tuple(slice(s, s + size) for s, size in zip(starts, sizes, strict=True))]
        place: list[Any] = [slice(None)] * len(shape)
        for i, axis in enumerate(batch_axes):
            place[axis] = at[i]
        result[tuple(place)] = block.squeeze((*n.collapsed_slice_dims, *n.operand_batching_dims))
    return result


_OTHERS: dict[str, Any] = {
    "argmax": lambda x, p, s: x[0].argmax(p["axes"][0]),
    "argmin": lambda x, p, s: x[0].argmin(p["axes"][0]),
    "broadcast_in_dim": _broadcast,
    "clamp": lambda x, p, s: np.clip(x[1], x[0], x[2]),
    "concatenate": lambda x, p, s: np.concatenate(x, p["dimension"]),
    "convert_element_type": lambda x, p, s: x[0].astype(p["new_dtype"]),
    "cummax": _cumulative(np.maximum.accumulate),
    "cumsum": _cumulative(np.cumsum),
    "div": lambda x, p, s: np.divide(*x) if x[0].dtype.kind == "f" else x[0] // x[1],
    "dot_general": _dot,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "integer_pow": lambda x, p, s: x[0] ** p["y"],
    "iota": _iota,
    "pad": _pad,
    "platform_index": lambda x, p, s: np.asarray(len(p["platforms"]) - 1),
    "reshape": lambda x, p, s: x[0].reshape(s),
    "rev": lambda x, p, s: np.flip(x[0], p["dimensions"]),
    "select_n": lambda x, p, s: np.where(x[0], x[2], x[1]) if len(x) == 3 else np.choose(x[0], x[1:]),
    "slice": _slice,
    "sort": _sort,
    "split": lambda x, p, s: np.split(x[0], np.cumsum(p["sizes"])[:-1], p["axis"]),
    "squeeze": lambda x, p, s: x[0].squeeze(tuple(p["dimensions"])),
    "tile": lambda x, p, s: np.tile(x[0], p["reps"]),
    "stack": lambda x, p, s: np.stack(x, p["axis"]),
    "top_k": _top_k,
    "transpose": lambda x, p, s: x[0].transpose(p["permutation"]),
}


def _scan(x, p):
    if "num_consts" in p:
        consts, carried = p["num_consts"], p["num_carry"]
    else:
        consts, carried, _ = map(len, p["ft_in"].unpack())
    held, stacked = list(x[consts : consts + carried]), x[consts + carried :]
    order = range(p["length"])
    rows = []
    for step in reversed(order) if p["reverse"] else order:
        outputs = run(p["jaxpr"], *x[:consts], *held, *(leaf[step] for leaf in stacked))
        held = outputs[:carried]
        rows.append(outputs[carried:])
    rows = rows[::-1] if p["reverse"] else rows
    return [*held, *(np.stack(column) for column in zip(*rows, strict=True))]


def _while(x, p):
    first = p["cond_nconsts"]
    second = first + p["body_nconsts"]
    held = list(x[second:])
    while run(p["cond_jaxpr"], *x[:first], *held)[0]:
        held = run(p["body_jaxpr"], *x[first:second], *held)
    return held


def _cond(x, p):
    branch = int(np.clip(int(x[0]), 0, len(p["branches"]) - 1))
    return run(p["branches"][branch], *x[1:])


_LOOPS: dict[str, Any] = {"scan": _scan, "while": _while, "cond": _cond}
