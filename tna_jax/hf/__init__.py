"""Hugging Face model folders: load, save, configurations, tensor names, tokenizers."""
