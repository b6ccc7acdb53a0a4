"""Key streams: which key draws what, so that anyone who knows a seed rebuilds any draw by itself, in any order.

Whatever is random is drawn with `stream(seed, WHICH, *indices)`: the seed's key, into which the stream's number and then each
index are folded. Nothing is handed on from one draw to the next. There are two families of streams, each with numbers of its own:

- `RUN_*`: one seed of a run (`tna train`, `tna lmc`, `tna soup`, ...). One index, 0 where it is left out.
- `FEDERATED_*`: one federation. The indices are the round, then the client, as far as the draw depends on them.

The numbers are part of the format of runs: they never change, and a new stream takes a new number.
"""

import enum

import jax

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


def stream(root: jax.Array | int, which: Stream, *indices: int | jax.Array) -> jax.Array:
    """Returns the key for one purpose: the number of `which`, then each of `indices`, folded into the root key.

    Args:
      root: a key, or the seed that `jax.random.key` makes it from.
      which: what is drawn.
      indices: see `Stream`; ints, which may be traced.

    >>> key = stream(0, Stream.RUN_MASK)
    >>> bool(key == stream(jax.random.key(0), Stream.RUN_MASK, 0))
    True
    """
    if which >= RUN and not indices:
        indices = (0,)
    key = root if isinstance(root, jax.Array) else jax.random.key(root)
    key = jax.random.fold_in(key, which.number)
    for index in indices:
        key = jax.random.fold_in(key, index)
    return key
