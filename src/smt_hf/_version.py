"""The version, apart from what imports torch."""

__version__ = "0.1.0"
