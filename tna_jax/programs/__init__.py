"""The `tna` command: one folder for each program, and the rooms that they share."""
