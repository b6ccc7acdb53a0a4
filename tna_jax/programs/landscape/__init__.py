"""`tna landscape`."""
