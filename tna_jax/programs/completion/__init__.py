"""`tna completion`."""
