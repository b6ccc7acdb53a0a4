"""Code of the user's own that an option or a run names: found, hashed, trusted or refused, and only then run. Needs no JAX."""

from tna_jax.programs.user_code.references import Source, find, is_reference
from tna_jax.programs.user_code.resolve import UserFunction, resolve

__all__ = ["Source", "UserFunction", "find", "is_reference", "resolve"]
