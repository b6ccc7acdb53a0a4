"""`tna export`."""
