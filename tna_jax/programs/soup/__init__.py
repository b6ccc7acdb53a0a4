"""`tna soup`."""
