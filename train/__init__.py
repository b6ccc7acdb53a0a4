"""Experiments that train networks, and launch recipes. Not installed: `python -m train` in a checkout lists and runs them."""
