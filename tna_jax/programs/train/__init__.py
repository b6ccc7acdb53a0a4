"""`tna train`."""
