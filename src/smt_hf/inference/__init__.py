"""One engine for everything that writes: rows of memories stepped together. Pure Python and torch; no server in it."""

from .backends import Backend, TorchBackend

__all__ = ["Backend", "TorchBackend"]
