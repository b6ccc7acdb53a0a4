"""`tna fuse`."""
