"""`tna runs`."""
