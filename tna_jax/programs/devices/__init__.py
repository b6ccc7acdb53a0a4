"""`tna devices`."""
