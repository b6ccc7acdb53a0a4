"""Files: safetensors, the format of a run, JSON written whole or not at all."""
