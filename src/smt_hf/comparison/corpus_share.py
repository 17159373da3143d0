"""A share of a corpus, to compare trainings on little data."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..data import TokenCache
from ..data.cache_key import CacheKey
from ..data.token_cache import FORMAT_VERSION, cached, write_token_cache

CHUNK_DOCUMENTS = 10_000


def share_of(corpus: TokenCache, share: float, cache_dir: str | os.PathLike | None = None) -> TokenCache:
    """A share of a corpus's documents, at least one, spread evenly over it, so that no class or source is left out.

    Args:
        corpus: all documents.
        share: above 0 and at most 1; 1 returns the corpus itself.
        cache_dir: the folder of all token caches.

    Returns:
        A separate token cache, which counts bytes in proportion to the tokens.

    Raises:
        InputError: if it cannot be written.
    """
    if share == 1:
        return corpus
    fingerprint = {"version": FORMAT_VERSION, "corpus": corpus.digest, "share": share}

    def build(path: Path) -> TokenCache:
        return write_token_cache(_chunks(corpus, share), corpus.vocab_size, path, fingerprint)

    return cached(CacheKey(f"share-{share:g}", fingerprint), build, cache_dir)


def _chunks(corpus: TokenCache, share: float) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Yields the documents in chunks for [`write_token_cache`]."""
    total = corpus.num_documents
    number = max(1, round(share * total))
    kept = np.arange(number) * total // number
    ends = np.append(corpus.document_starts[1:], corpus.num_tokens)
    for first in range(0, number, CHUNK_DOCUMENTS):
        chosen = kept[first : first + CHUNK_DOCUMENTS]
        documents = [corpus.tokens[corpus.document_starts[i] : ends[i]] for i in chosen]
        lengths = np.array([len(document) for document in documents])
        num_bytes = round(int(lengths.sum()) * corpus.num_bytes / corpus.num_tokens)
        yield np.concatenate(documents), lengths, num_bytes
