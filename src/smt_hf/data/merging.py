"""Merging the token caches of all shards of a corpus, each built on its own machine, into one cache."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from filelock import FileLock

from ..errors import InputError
from ..utils.differences import differences
from .cache_key import CacheKey
from .shards import Shard
from .token_cache import TokenCache, cached, read_fingerprint, write_token_cache

CHUNK_DOCUMENTS = 10_000


def merge_shards(key: CacheKey, num_shards: int, cache_dir: str | os.PathLike | None = None) -> TokenCache:
    """Return the token cache of a corpus whose shards are built: byte for byte the one that a single machine builds.

    The cache appears complete or not at all; then the shards are removed. An existing cache is returned as it is. Every
    shard is checked before anything is written, and memory stays constant.

    Args:
        key: key of the corpus, from [`text_key`] or [`image_key`], with the options that its shards were built with.
        num_shards: number of shards of the corpus.
        cache_dir: the folder of all caches, including the shards; as in [`cached_tokens`].

    Raises:
        InputError: for shards that are missing, damaged, or made of something else, and if the cache cannot be written.
    """
    keys = [key.of(Shard(num_shards, index)) for index in range(num_shards)]

    def build(path: Path) -> TokenCache:
        shards = open_shards(keys, cache_dir)
        return write_token_cache(_chunks(shards), shards[0].vocab_size, path, key.fingerprint)

    cache = cached(key, build, cache_dir)
    for each in keys:
        _remove(each.path(cache_dir))
    return cache


def open_shards(keys: list[CacheKey], cache_dir: str | os.PathLike | None) -> list[TokenCache]:
    """The caches of all shards of a corpus, in order; raises as [`merge_shards`] does."""
    missing = [key for key in keys if not os.path.lexists(key.path(cache_dir))]
    if missing:
        numbers, folder = ", ".join(str(key.shard.index) for key in missing), str(keys[0].path(cache_dir).parent)
        raise InputError(
            f"some of the {len(keys)} shards of {keys[0].source!r} are not in {folder!r}: build shard {numbers} with the same data, "
            f"tokenizer and options{_others(missing, cache_dir)}"
        )
    shards = []
    for key in keys:
        path = key.path(cache_dir)
        shards.append(TokenCache.open(path))
        if different := _difference(path, key):
            raise InputError(f"{str(path)!r} was made with {different}: build {key.shard} again")
    return shards


def _others(missing: list[CacheKey], cache_dir) -> str:
    """What there is in place of missing shards, for the message."""
    found = []
    for key in missing:
        path = key.path(cache_dir)
        found += [(other, key) for other in sorted(path.parent.glob(f"{key.stem}-*{key.shard.suffix}"))]
    for other, key in found:
        if different := _difference(other, key):
            return f" (there is {other.name!r}, made with {different})"
    whole = missing[0].path(cache_dir).name.removesuffix(missing[0].shard.suffix)
    counts = {int(other.name[-5:]) for other in path.parent.glob(f"{whole}-?????-of-?????")}
    counts -= {missing[0].shard.num_shards}
    return f" (there are shards of num_shards={', '.join(map(str, sorted(counts)))})" if counts else ""


def _difference(path: Path, key: CacheKey) -> str | None:
    """The settings of a shard that differ from those of the key; `None` if all agree."""
    try:
        fingerprint = read_fingerprint(path)
    except InputError:
        return None  # not a token cache, or damaged
    words = []
    expected = json.loads(json.dumps(key.fingerprint))  # turns tuples into lists, as in the file
    for name, (old, new) in differences(fingerprint, expected).items():
        top, _, option = name.partition(".")
        if top in ("source", "tokenizer", "processor"):
            words.append(f"a different {top}")
        else:
            words.append(f"{option or top}={old!r} instead of {new!r}")
    return ", ".join(dict.fromkeys(words)) or None


def _chunks(shards: list[TokenCache]) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """The documents of all shards as [`write_token_cache`] takes them; tokens stay mapped."""
    for shard in shards:
        num_bytes = shard.num_bytes
        for first in range(0, shard.num_documents, CHUNK_DOCUMENTS):
            edges = np.asarray(shard.document_starts[first : first + CHUNK_DOCUMENTS + 1])
            if first + CHUNK_DOCUMENTS >= shard.num_documents:
                edges = np.append(edges, shard.num_tokens)
            yield shard.tokens[edges[0] : edges[-1]], np.diff(edges), num_bytes
            num_bytes = 0  # those of the whole shard are counted with its first chunk


def _remove(path: Path) -> None:
    """Removes a shard and its lock."""
    if os.path.lexists(path):
        with FileLock(lock := f"{path}.lock"):
            shutil.rmtree(path, ignore_errors=True)
            Path(lock).unlink(missing_ok=True)
