"""Modules of Linen, NNX and Equinox as networks of this library, and back.

    model = tna_jax.from_nnx(lambda rngs: Net(64, 10, rngs=rngs))       # or from_nnx(module)
    params, state = jax.vmap(model.init)(jax.random.split(jax.random.key(0), 2))
    ...                                                                # train, walk, match, fuse with model.network
    module = model.to_module(fused, fused_state)

Importing this package imports none of the frameworks but Linen; Equinox need not be installed.
"""

from tna_jax.frameworks.conversion import Model
from tna_jax.frameworks.equinox_modules import from_equinox
from tna_jax.frameworks.linen_modules import from_linen
from tna_jax.frameworks.nnx_modules import from_nnx

__all__ = ["Model", "from_equinox", "from_linen", "from_nnx"]
