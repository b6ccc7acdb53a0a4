"""The streams of a federation under their short names: which key draws what, see `tna_jax.prng`.

A federation has one root key, `jax.random.key(seed)`. Server, clients and simulation draw the same, each by itself: a resumed
run, a client that joins late, a mask that travels as a seed.
"""

from tna_jax.prng import Stream
from tna_jax.prng import stream as stream

INIT = Stream.FEDERATED_INIT
MASK = Stream.FEDERATED_MASK
SAMPLE = Stream.FEDERATED_SAMPLE
ORDER = Stream.FEDERATED_ORDER
FAULTS = Stream.FEDERATED_FAULTS
PARTITION = Stream.FEDERATED_PARTITION
PROXY = Stream.FEDERATED_PROXY
DISTIL = Stream.FEDERATED_DISTIL
