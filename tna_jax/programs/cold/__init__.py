"""`tna cold`."""
