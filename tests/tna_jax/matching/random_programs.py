"""Random small networks: every number draws one, of the operations that move, cut, join and repeat axes."""

import random
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

SIZES = (2, 3, 4, 6)
BATCH = 3
MOVES: dict[str, Callable[..., Any]] = {}
"""By name: (draws, the values so far, one of them, the parameters) -> a new value, or None where it does not go."""


def move(function: Callable[..., Any]) -> Callable[..., Any]:
    """Puts a move into the table."""
    MOVES[function.__name__] = function
    return function


def parameters(seed: int) -> dict[str, np.ndarray]:
    """Returns (m, n) matrices, two for each pair of sizes, and (n,) vectors; a program takes a few of them."""
    draws = np.random.default_rng(seed)
    matrices = {
        f"{c}{m}x{n}": draws.normal(size=(m, n)) / np.sqrt(m) for m in (*SIZES, 8, 12) for n in SIZES for c in "ab"
    }
    return matrices | {f"{c}{n}": draws.uniform(0.5, 1.5, n) for n in (*SIZES, 8, 12) for c in "ab"}


def program(seed: int) -> Callable[[Any, Any], tuple[Any, ...]]:
    """Returns the network of this number: (parameters, inputs (B, n) or (B, m, n)) -> one output, or two."""

    @jax.numpy_rank_promotion("allow")
    @jax.numpy_dtype_promotion("standard")
    def network(params: dict[str, Any], x: Any) -> tuple[Any, ...]:
        draws = random.Random(seed)
        values = [dense(draws, [x], x, params)]
        for _ in range(draws.randint(4, 11)):
            value = draws.choice(values[-4:])
            new = MOVES[draws.choice(sorted(MOVES))](draws, values, value, params)
            if new is not None and new.size <= 4000 and new.ndim >= 2:
                values.append(new if new.ndim < 5 else new.reshape(BATCH, -1, new.shape[-1]))
        last = values[-1] if draws.random() < 0.5 else values[-1].reshape(BATCH, -1)
        out = (
            (jnp.tanh(last) * fixed_numbers(last.shape[-1])).sum(-1) if last.ndim == 2 else _output(draws, last, params)
        )
        return (out,) if draws.random() < 0.7 else (out, values[len(values) // 2].reshape(BATCH, -1).sum(-1))

    return network


def inputs(seed: int) -> np.ndarray:
    """Returns the inputs of the network of this number."""
    draws, values = random.Random(-seed), np.random.default_rng(seed)
    return values.normal(
        size=(BATCH, draws.choice(SIZES)) if draws.random() < 0.5 else (BATCH, *draws.choices(SIZES, k=2))
    )


def fixed_numbers(size: int) -> Any:
    """Returns (size,) different numbers."""
    return np.sin(1 + np.arange(size) ** 1.5)


def _output(draws, value, params):
    return jnp.tanh(value) @ params[f"a{value.shape[-1]}x2"] if value.shape[-1] in SIZES else jnp.tanh(value)


def _axis(draws, value):
    return draws.randint(1, value.ndim - 1)


@move
def dense(draws, values, value, params):
    names = [name for name, leaf in params.items() if leaf.ndim == 2 and leaf.shape[0] == value.shape[-1]]
    name = draws.choice(names) if names else None
    if name is None:
        return None
    product = value @ params[name]
    return product + params[f"{draws.choice('ab')}{product.shape[-1]}"] if draws.random() < 0.6 else product


MOVES["dense_again"] = MOVES["dense_too"] = dense


@move
def transposed(draws, values, value, params):
    names = [name for name, leaf in params.items() if leaf.ndim == 2 and leaf.shape[1] == value.shape[-1]]
    return value @ params[draws.choice(names)].T if names else None


@move
def activation(draws, values, value, params):
    return draws.choice([jnp.tanh, lambda x: jnp.maximum(x, 0), lambda x: lax.logistic(x) * x])(value)


@move
def sums(draws, values, value, params):
    others = [v for v in values if v.shape == value.shape and v is not value]
    other = draws.choice(others) if others else None
    return None if other is None else value + other if draws.random() < 0.6 else value * jnp.tanh(other)


MOVES["sums_again"] = sums


@move
def merged(draws, values, value, params):
    if value.ndim < 3:
        return None
    i = draws.randint(1, value.ndim - 2)
    return value.reshape(*value.shape[:i], -1, *value.shape[i + 2 :])


@move
def cut(draws, values, value, params):
    i = _axis(draws, value)
    sizes = [n for n in range(2, value.shape[i]) if value.shape[i] % n == 0]
    return value.reshape(*value.shape[:i], draws.choice(sizes), -1, *value.shape[i + 1 :]) if sizes else None


@move
def turned(draws, values, value, params):
    order = list(range(1, value.ndim))
    draws.shuffle(order)
    return value.transpose(0, *order)


@move
def end_to_end(draws, values, value, params):
    i = _axis(draws, value)
    fitting = [v for v in values if v.ndim == value.ndim and all(
        m == n for k, (m, n) in enumerate(zip(v.shape, value.shape, strict=True)) if k != i)]  # fmt: skip
    return lax.concatenate([value, draws.choice(fitting)], i)


@move
def beside_constants(draws, values, value, params):
    i, count, number = _axis(draws, value), draws.randint(1, 3), draws.choice([0.0, 1.0])
    shape = [count if k == i else n for k, n in enumerate(value.shape)]
    parts = [jnp.full(shape, number), value]
    draws.shuffle(parts)
    return lax.concatenate(parts, i)


@move
def stretch(draws, values, value, params):
    i = _axis(draws, value)
    start = draws.randint(0, value.shape[i] - 1)
    return lax.slice_in_dim(value, start, draws.randint(start + 1, value.shape[i]), axis=i)


@move
def every_second(draws, values, value, params):
    i = _axis(draws, value)
    return lax.slice_in_dim(value, draws.randint(0, 1) if value.shape[i] > 1 else 0, value.shape[i], 2, i)


@move
def flipped(draws, values, value, params):
    return lax.rev(value, (_axis(draws, value),))


@move
def rolled(draws, values, value, params):
    return jnp.roll(value, draws.randint(1, 2), _axis(draws, value))


@move
def padded(draws, values, value, params):
    i = _axis(draws, value)
    widths = [(draws.randint(0, 2), draws.randint(0, 2)) if k == i else (0, 0) for k in range(value.ndim)]
    return jnp.pad(value, widths, mode=draws.choice(["constant", "constant", "edge", "mean", "maximum", "linear_ramp"]))


@move
def spread_out(draws, values, value, params):
    i = _axis(draws, value)
    return lax.pad(
        value,
        np.asarray(0.0),
        [(0, draws.randint(-1, 1), draws.randint(0, 1)) if k == i else (0, 0, 0) for k in range(value.ndim)],
    )


@move
def reduced(draws, values, value, params):
    if value.ndim < 3:
        return None
    return draws.choice([jnp.sum, jnp.max, jnp.mean])(value, axis=_axis(draws, value), keepdims=draws.random() < 0.3)


@move
def summed_up(draws, values, value, params):
    return draws.choice([lax.cumsum, lax.cummax])(value, axis=_axis(draws, value), reverse=draws.random() < 0.3)


@move
def softmax(draws, values, value, params):
    exponentials = jnp.exp(jnp.tanh(value))
    return exponentials / exponentials.sum(_axis(draws, value), keepdims=True)


@move
def normalized(draws, values, value, params):
    axes = draws.choice([(-1,), tuple(range(1, value.ndim))])
    centered = value - value.mean(axes, keepdims=True)
    return centered / jnp.sqrt((centered**2).mean(axes, keepdims=True) + 0.1)


@move
def constants(draws, values, value, params):
    i = _axis(draws, value)
    n = value.shape[i]
    numbers = draws.choice(
        [fixed_numbers(n), np.full(n, 2.0), np.where(np.arange(n) < n // 2, 1.0, 0.5), np.arange(n) % 2 + 1.0]
    )
    return value * numbers.reshape([n if k == i else 1 for k in range(value.ndim)])


@move
def tiled(draws, values, value, params):
    i = _axis(draws, value)
    return draws.choice([
        lambda: jnp.tile(value, [2 if k == i else 1 for k in range(value.ndim)]),
        lambda: jnp.repeat(value, 2, axis=i),
    ])()  # fmt: skip


@move
def stacked(draws, values, value, params):
    others = [v for v in values if v.shape == value.shape]
    return jnp.stack([value, draws.choice(others)], draws.randint(1, value.ndim))


@move
def halves(draws, values, value, params):
    i = _axis(draws, value)
    if value.shape[i] % 2:
        return None
    first, second = jnp.split(value, 2, i)
    return first * jnp.tanh(second)


@move
def outer(draws, values, value, params):
    others = [v for v in values if v.ndim == 2]
    return value[:, :, None] * draws.choice(others)[:, None, :] if others and value.ndim == 2 else None


@move
def attended(draws, values, value, params):
    others = [v for v in values if v.ndim == 3 and v.shape[-1] == value.shape[-1]]
    return lax.batch_matmul(value, draws.choice(others).transpose(0, 2, 1)) if others and value.ndim == 3 else None


@move
def largest(draws, values, value, params):
    n = value.shape[-1]
    where = value.argmax(-1)
    if f"a{n}x3" in params and draws.random() < 0.5:
        return params[f"a{n}x3"][where]
    return value * jax.nn.one_hot(where, n, dtype=value.dtype)


@move
def looked_up(draws, values, value, params):
    i = _axis(draws, value)
    return jnp.take(value, np.asarray([draws.randrange(value.shape[i]) for _ in range(draws.choice(SIZES))]), axis=i)


@move
def on_diagonal(draws, values, value, params):
    n = value.shape[-1]
    if value.ndim == 3 and value.shape[1] == n and draws.random() < 0.7:
        return draws.choice([lambda: value * jnp.eye(n), lambda: jnp.diagonal(value, axis1=1, axis2=2)])()
    return value * jnp.tril(jnp.ones((n, n)))[0]


@move
def in_order(draws, values, value, params):
    i = _axis(draws, value)
    return draws.choice([
        lambda: lax.sort(value, dimension=i),
        lambda: lax.top_k(value, min(2, value.shape[-1]))[0],
        lambda: jnp.take_along_axis(value, jnp.argsort(value, axis=i), axis=i),
    ])()  # fmt: skip


@move
def written(draws, values, value, params):
    i = _axis(draws, value)
    others = [v for v in values if v.ndim == value.ndim and all(
        m == n if k != i else m <= n for k, (m, n) in enumerate(zip(v.shape, value.shape, strict=True)))]  # fmt: skip
    return lax.dynamic_update_slice(value, draws.choice(others), [np.int32(k == i) for k in range(value.ndim)])


@move
def recurrent(draws, values, value, params):
    n = value.shape[-1]
    if value.ndim != 3 or f"a{n}x{n}" not in params:
        return None

    def step(held, x):
        held = jnp.tanh(held @ params[f"a{n}x{n}"] + x)
        return held, held * 2

    last, every = lax.scan(step, jnp.zeros((BATCH, n)), value.swapaxes(0, 1), reverse=draws.random() < 0.3)
    return every.swapaxes(0, 1) if draws.random() < 0.6 else last


@move
def repeated(draws, values, value, params):
    n = value.shape[-1]
    turn = draws.choice([lambda h: h, lambda h: jnp.flip(h, -1), lambda h: h + params[f"b{n}"]])
    if f"b{n}x{n}" not in params:
        return None
    return lax.fori_loop(0, 2, lambda i, h: turn(jnp.tanh(h @ params[f"b{n}x{n}"])), value)


@move
def mapped(draws, values, value, params):
    rows = value.swapaxes(0, 1)
    return lax.map(lambda row: jnp.tanh(row) - row.mean(-1, keepdims=True), rows).swapaxes(0, 1)


@move
def branched(draws, values, value, params):
    other = draws.choice(
        [lambda x: x * 2, lambda x: lax.rev(x, (x.ndim - 1,)), lambda x: x * fixed_numbers(x.shape[-1])]
    )
    return lax.cond((value**3).sum() > 0.01, jnp.tanh, other, value)  # the sum itself may be 0 but for rounding
