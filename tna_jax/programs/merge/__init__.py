"""`tna merge`."""
