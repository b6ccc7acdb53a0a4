"""The seed rule of a federation: which key draws what, so that server, clients and simulation draw the same, each by itself.

A federation has one root key, `jax.random.key(seed)`. Whatever is random in round r, of client k, is drawn with
`stream(root, WHICH, r, k)`: nothing is handed on from one draw to the next, so that any party that knows the seed rebuilds any
draw of any round, in any order (a resumed run, a client that joins late, a mask that travels as a seed).
"""

import jax

INIT, MASK, SAMPLE, ORDER, FAULTS, PARTITION, PROXY, DISTIL = range(8)
"""What is drawn: initial parameters; the mask of round r; the participants of round r; the data order of client k in round r;
drop-outs and stragglers of round r; the partition; the server's proxy data; the order of distillation in round r."""


def stream(root: jax.Array, which: int, *indices: int | jax.Array) -> jax.Array:
    """The key for one purpose: `which`, then each of `indices`, folded into the root key (ints may be traced)."""
    key = jax.random.fold_in(root, which)
    for index in indices:
        key = jax.random.fold_in(key, index)
    return key
