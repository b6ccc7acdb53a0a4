"""The version of the package, alone, so that it is read without importing JAX."""

__version__ = "0.1.0"
