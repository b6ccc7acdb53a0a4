"""Run folders: lock, configuration, metrics, checkpoints."""
