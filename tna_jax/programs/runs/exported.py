"""What an exported model's file says of it."""

ABOUT = "tna_jax"
"""Name of the metadata that describes a model, a JSON object: format, config, model, mask, checkpoint, network."""
