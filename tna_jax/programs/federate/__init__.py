"""`tna federate`."""
