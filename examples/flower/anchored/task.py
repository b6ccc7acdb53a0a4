"""What is learnt. Put your own network and data here: docs/flower.md shows how."""

from fusion.flower.settings import build

__all__ = ["build"]
