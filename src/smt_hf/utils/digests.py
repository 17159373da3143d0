"""Digests of files and values, to detect damage and identify contents. They do not resist forgery."""

import hashlib
import json
from pathlib import Path

import xxhash

READ_BYTES = 1 << 24


def file_digest(path: Path) -> str:
    """The digest of a file's bytes.

    Raises:
        OSError: if it cannot be read.
    """
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def value_digest(value: object) -> str:
    """A digest of JSON-ready values, independent of the order of a mapping's names."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
