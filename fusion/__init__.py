"""The programs that connect, fuse and federate trained models."""
