"""`tna resume`."""
