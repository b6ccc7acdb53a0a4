"""Key streams: which key draws what, so that anyone who knows a seed rebuilds any draw by itself, in any order.

Whatever is random is drawn with `stream(seed, WHICH, *indices)`: the seed's key, into which the stream's number and then each
index are folded. Nothing is handed on from one draw to the next. There are two families of streams, each with numbers of its own:

- `RUN_*`: one seed of a run (`tna train`, `tna lmc`, `tna soup`, ...). One index, 0 where it is left out.
- `FEDERATED_*`: one federation. The indices are the round, then the client, as far as the draw depends on them.

The numbers are part of the format of runs: they never change, and a new stream takes a new number.

Bits do not depend on switches of the process: keys are those of `THREEFRY` whatever `jax_default_prng_impl` says, and what promises its
bits is drawn under `same_bits`, whatever `jax_threefry_partitionable` says.
"""

import enum
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

RUN = 256
"""Added to the numbers of the run family, which keeps the members of two families apart."""


class Stream(enum.IntEnum):
    """What is drawn. `number` is folded into the key; `RUN + number` is the value of the run family's members."""

    RUN_INIT = RUN + 0
    """Initial parameters; index: which of the seed's initial values (0 is the one whose anchors all models share)."""
    RUN_ORDER = RUN + 1
    """The order in which a model sees the data; index: which of the seed's orders."""
    RUN_MASK = RUN + 2
    """The mask, the same key for every ratio: the masks of a seed are nested."""
    RUN_ANCHORS = RUN + 3
    """Values of anchors that are drawn anew."""
    RUN_TEST = RUN + 4
    """Masked tokens of the test batches of pretraining."""
    RUN_SHIFT = RUN + 5
    """Corruptions of a soup's test images; index: the kind of corruption."""
    RUN_SCORE = RUN + 6
    """Examples on which a task of ColD fusion is scored; index: the task."""
    RUN_DATA = RUN + 7
    """Examples of a contributor in ColD fusion; index: iteration x tasks + task."""
    RUN_CURVE = RUN + 8
    """Order of the data and positions of a curve between two models; the numbers of both are folded in."""

    FEDERATED_INIT = 0
    """Initial parameters."""
    FEDERATED_MASK = 1
    """The mask of a round."""
    FEDERATED_SAMPLE = 2
    """The participants of a round."""
    FEDERATED_ORDER = 3
    """The data order of a client in a round."""
    FEDERATED_FAULTS = 4
    """Drop-outs and stragglers of a round."""
    FEDERATED_PARTITION = 5
    """Which client holds which examples."""
    FEDERATED_PROXY = 6
    """The server's proxy data."""
    FEDERATED_DISTIL = 7
    """The order of distillation in a round."""

    @property
    def number(self) -> int:
        """What is folded into the key."""
        return self.value % RUN


LAST_SEED = 2**32 - 1
"""The largest seed: without `jax_enable_x64` JAX drops what is above 32 bits, and 2^32 would draw what 0 draws."""

THREEFRY = "threefry2x32"
"""JAX's own generator, by its name: its bits are the same on every device and under every transformation."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


def root_key(seed: int) -> jax.Array:
    """Returns the key of a seed: `jax.random.key(seed)`, of `THREEFRY` whatever the default is.

    Raises:
      ValueError: the seed is not in 0 to `LAST_SEED`: its key would be that of another seed.
    """
    if not 0 <= seed <= LAST_SEED:
        raise ValueError(f"a seed lies in 0 to {LAST_SEED}, got {seed}")
    return jax.random.key(seed, impl=THREEFRY)


def threefry(key: jax.Array) -> jax.Array:
    """Returns a key of any generator as a typed key of `THREEFRY`, which is returned as it is.

    Its first two words are the key: `rbg` derives its keys as threefry does, twice side by side, so that a seed's draws are the
    same under either.
    """
    if not hasattr(key, "dtype"):
        raise TypeError(f"a key is needed, jax.random.key(seed), got {key!r}")
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.dtype != jnp.uint32 or key.ndim < 1 or key.shape[-1] not in (2, 4):
            raise TypeError(
                f"a key is needed, jax.random.key(seed) or the (2,) uint32 of jax.random.PRNGKey(seed); got {key.dtype} {key.shape}"
            )
        words = key
    elif str(jax.random.key_impl(key)) == THREEFRY:
        return key
    else:
        words = jax.random.key_data(key)
    wrapped: jax.Array = jax.random.wrap_key_data(words[..., :2], impl=THREEFRY)
    return wrapped


def words(key: jax.Array) -> list[int]:
    """Returns the two words of a key, see `threefry`: a seed of NumPy's generators."""
    data = np.asarray(jax.random.key_data(threefry(key)))
    if data.ndim != 1:
        raise TypeError(
            f"one key is needed, got keys of the shape {data.shape[:-1]}: give one of them, or jax.vmap over them"
        )
    return [int(word) for word in data]


def same_bits(function: _Function) -> _Function:
    """Returns `function` so that what it draws does not depend on the switch `jax_threefry_partitionable`: as with JAX's default."""

    @functools.wraps(function)
    def draw(*args: Any, **options: Any) -> Any:
        with jax.threefry_partitionable(True):
            return function(*args, **options)

    return draw  # type: ignore[return-value]


def stream(root: jax.Array | int, which: Stream, *indices: int | jax.Array) -> jax.Array:
    """Returns the key for one purpose: the number of `which`, then each of `indices`, folded into the root key.

    Args:
      root: a key of any generator, see `threefry`, or a seed.
      which: what is drawn.
      indices: see `Stream`; ints, which may be traced.

    >>> key = stream(0, Stream.RUN_MASK)
    >>> bool(key == stream(jax.random.key(0), Stream.RUN_MASK, 0))
    True
    """
    if which >= RUN and not indices:
        indices = (0,)
    key = threefry(root) if isinstance(root, jax.Array) else root_key(root)
    key = jax.random.fold_in(key, which.number)
    for index in indices:
        if isinstance(index, (float, np.floating)):
            raise TypeError(
                f"what is drawn is told apart by whole numbers, got {index!r}: JAX would cut it to {int(index)}"
            )
        key = jax.random.fold_in(key, index)
    return key
