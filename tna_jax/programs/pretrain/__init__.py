"""`tna pretrain`."""
