"""`tna import`."""
