"""What is learnt. Put your own network and data here: docs/flower.md shows how."""

from tna_jax.programs.federate.flower_settings import build

__all__ = ["build"]
