"""`tna fetch`."""
