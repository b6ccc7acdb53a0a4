"""Experiments that connect, fuse and federate networks. Not installed: `python -m fusion` in a checkout lists and runs them."""
