"""`tna barrier`."""
