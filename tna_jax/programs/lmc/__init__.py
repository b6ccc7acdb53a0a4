"""`tna lmc`."""
