"""`tna report`."""
