"""A corpus as token ids on disk, built once and memory-mapped from then on."""

import inspect
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import numpy as np
import xxhash
from filelock import FileLock
from transformers import PreTrainedTokenizerBase

from ..errors import InputError, one_line
from ..utils.digests import file_digest, value_digest
from .cache_key import CacheKey
from .documents import find_source, iter_documents
from .drafts import draft_folder, publish, remove_drafts
from .encoding import check_eos_token, encoded_chunks
from .files import local_path
from .shards import Shard
from .source_kinds import text_kind
from .tokenizer import tokenizer_content

FORMAT_VERSION = 2
META, TOKENS, STARTS = FILES = ("meta.json", "tokens.bin", "document_starts.bin")
CHUNK_CHARACTERS = 1 << 22
CHUNK_DOCUMENTS = 10_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TokenCache:
    """The token ids of a corpus, memory-mapped read-only; pickling it stores only its path.

    Attributes:
        path: the folder that holds the cache.
        tokens: (num_tokens,) uint16, or uint32 where the vocabulary needs it; each document ends with the eos token.
        document_starts: (num_documents,) int64, where each document starts in `tokens`.
        num_bytes: UTF-8 bytes of the text, and one for each eos token (the divisor of bits per byte).
        vocab_size: `len(tokenizer)`, larger than every token id.
        digest: digest of `tokens` and `document_starts`, the same for the same data wherever it is stored.
    """

    path: Path
    tokens: np.memmap
    document_starts: np.memmap
    num_bytes: int
    vocab_size: int
    digest: str

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def num_documents(self) -> int:
        return len(self.document_starts)

    @classmethod
    def open(cls, path: str | os.PathLike) -> "TokenCache":
        """Open the cache in the folder `path`; all of it is read once to check its digest.

        Raises:
            InputError: if the folder is not a token cache, or one of another format, or is damaged.
        """
        path = Path(path).expanduser()
        cache = cls._map(path)
        if _data_digest(path) != cache.digest:
            raise _damaged(path, "its tokens are not those that were written")
        return cache

    @classmethod
    def _map(cls, path: Path, digest: str | None = None) -> "TokenCache":
        """The cache that its `meta.json` describes; the description is checked, the tokens are not."""
        meta = _read_meta(path)
        if digest not in (None, meta["digest"]):
            raise InputError(f"the token cache {str(path)!r} was replaced after it was opened: open it again")
        try:
            tokens, starts = (
                _map_file(path / name, dtype) for name, dtype in ((TOKENS, meta["dtype"]), (STARTS, np.int64))
            )
        except (OSError, ValueError) as error:
            raise _damaged(path, one_line(error)) from error
        if (len(tokens), len(starts)) != (meta["num_tokens"], meta["num_documents"]):
            raise _damaged(path, "its files are too short or too long")
        return cls(path, tokens, starts, meta["num_bytes"], meta["vocab_size"], meta["digest"])

    def __reduce__(self):
        return TokenCache._map, (self.path, self.digest)  # a data loader's workers need not check it again


def build_token_cache(
    documents: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    path: str | os.PathLike,
    fingerprint: dict | None = None,
    num_proc: int = 1,
    may_be_empty: bool = False,
) -> TokenCache:
    """Encode documents into a token cache, in one pass and in bounded memory.

    The text of a special token inside a document is encoded as plain text; lone surrogates become `?`. The folder
    appears complete or not at all, and replaces an earlier token cache. What killed builds left in the parent folder is
    removed.

    Args:
        documents: the texts.
        tokenizer: one with an eos token, which ends each document.
        path: the folder to write.
        fingerprint: JSON-ready values that say what the cache was made from, kept in its `meta.json`.
        num_proc: processes that encode, for texts of more than a few million characters; the cache is the same for any number.
        may_be_empty: allow a cache without documents.

    Raises:
        InputError: for no documents, no eos token, a token id outside the vocabulary, or a `path` that is something else or
            cannot be written.
    """
    check_eos_token(tokenizer)
    return write_token_cache(
        encoded_chunks(_chunks(documents), tokenizer, num_proc), len(tokenizer), path, fingerprint, may_be_empty
    )


def write_token_cache(
    chunks: Iterable[tuple[np.ndarray, np.ndarray, int]],
    vocab_size: int,
    path: str | os.PathLike,
    fingerprint: dict | None = None,
    may_be_empty: bool = False,
) -> TokenCache:
    """Write documents that are already token ids to a token cache; the rest is as in [`build_token_cache`].

    Args:
        chunks: chunks of documents: their ids one after another, the length of each, and their number of bytes.
        vocab_size: larger than every token id.
        path: the folder to write.
        fingerprint: JSON-ready values that say what the cache was made from, kept in its `meta.json`.
        may_be_empty: allow a cache without documents.

    Raises:
        InputError: for no documents, or a `path` that is something else or cannot be written.
    """
    path = Path(path).expanduser()
    with ExitStack() as stack:
        with _writing(path):
            if not _may_replace(path):
                raise InputError(f"{str(path)!r} exists and is not a token cache: choose another folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_drafts(path.parent, FILES)
            folder = stack.enter_context(draft_folder(path))
        meta = _write_tokens(chunks, vocab_size, folder, path)
        if not (meta["num_documents"] or may_be_empty):
            raise InputError(f"there are no documents to write to {str(path)!r}: pass at least one")
        with _writing(path):
            meta |= {"digest": _data_digest(folder), "fingerprint": fingerprint or {}}
            (folder / META).write_text(_meta_text(meta), encoding="utf-8")
            cache = replace(TokenCache._map(folder), path=path)
            publish(folder, path)
    return cache


def cached_tokens(
    source: str | os.PathLike | datasets.Dataset | datasets.DatasetDict,
    tokenizer: PreTrainedTokenizerBase,
    cache_dir: str | os.PathLike | None = None,
    num_proc: int = 1,
    shard: Shard | None = None,
    **options,
) -> TokenCache:
    """Return the token cache of a corpus, built on the first call and reused while nothing it depends on changes.

    It depends on the source (for a local one, its path and the size and time of each file; for a `Dataset`, its fingerprint;
    for a Hub dataset, only its id), the tokenizer's content and the options. Processes that call this at the same time build
    the cache only once. An existing cache is only read, so it may be on a read-only disk; a damaged one is built again.

    Args:
        source: as in `iter_documents`, except an `IterableDataset`.
        tokenizer: one with an eos token.
        cache_dir: the folder of all caches; `$SMT_HF_CACHE`, else `$HF_HOME/smt_hf`, else `~/.cache/smt_hf`.
        num_proc: as in [`build_token_cache`].
        shard: build the cache of this part only, for [`merge_shards`]; as in `iter_documents`.
        options: the other options of `iter_documents`.

    Raises:
        InputError: as `iter_documents` and `build_token_cache` do.
    """
    key = text_key(source, tokenizer, **options).of(shard)

    def build(path: Path) -> TokenCache:
        documents = iter_documents(source, shard=shard, **options)
        return build_token_cache(documents, tokenizer, path, key.fingerprint, num_proc, shard is not None)

    return cached(key, build, cache_dir)


def text_key(source, tokenizer: PreTrainedTokenizerBase, **options) -> CacheKey:
    """What the token cache of a corpus depends on; arguments and errors are those of [`cached_tokens`]."""
    signature = inspect.signature(iter_documents)
    given = signature.bind(source, **options)
    given.apply_defaults()
    named = {name: value for name, value in given.kwargs.items() if name not in ("streaming", "shard")}
    read_with = text_kind(source, named["split"], named["config_name"]).honours
    for name in named.keys() - read_with - {"max_documents"}:  # the cache is the same whatever its value
        named[name] = signature.parameters[name].default
    fingerprint = {
        "version": FORMAT_VERSION,
        "source": _source_state(source, named["split"], named["config_name"]),
        "tokenizer": value_digest([tokenizer_content(tokenizer), tokenizer.eos_token_id, len(tokenizer)]),
        "options": named,
    }
    return CacheKey(str(source) if isinstance(source, (str, os.PathLike)) else type(source).__name__, fingerprint)


def cached(
    key: CacheKey, build: Callable[[Path], TokenCache], cache_dir: str | os.PathLike | None = None
) -> TokenCache:
    """The token cache of a key, built by the first process that asks for it.

    Args:
        key: what the cache holds.
        build: writes the cache at a path.
        cache_dir: the folder of all caches, as in [`cached_tokens`].

    Raises:
        InputError: if it cannot be written, or as `build` does.
    """
    path = key.path(cache_dir)
    if (cache := _open_if_whole(path)) is not None:
        return cache
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{path}.lock").acquire()
    with lock:
        if (cache := _open_if_whole(path)) is not None:  # another process has built it in the meantime
            return cache
        return build(path)


def _open_if_whole(path: Path) -> TokenCache | None:
    try:
        return TokenCache.open(path)
    except InputError as error:
        if os.path.lexists(path):
            logger.warning("%s; rebuilding it", error)
        return None


def _source_state(source, split: str, config_name: str | None) -> list:
    """JSON-ready values that identify a source, and change when it does."""
    found = find_source(source, split, config_name)
    if isinstance(found, str):
        return [found]
    if not isinstance(source, (str, os.PathLike)):
        if isinstance(found, datasets.IterableDataset):
            raise InputError(
                "an IterableDataset cannot be identified: pass a Dataset or files, or choose a name of your own and write "
                "a cache with build_token_cache(iter_documents(dataset), tokenizer, path)"
            )
        return [found._fingerprint]
    path = local_path(source)
    files = found if isinstance(found, list) else sorted(file for file in path.rglob("*") if file.is_file())
    states = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return [str(path.resolve()), states]


def _write_tokens(chunks: Iterable, vocab_size: int, folder: Path, path: Path) -> dict:
    """Writes the tokens of documents; returns what `meta.json` says about them."""
    dtype = np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)
    num_tokens = num_documents = num_bytes = 0
    with (folder / TOKENS).open("wb") as token_file, (folder / STARTS).open("wb") as start_file:
        for ids, lengths, chunk_bytes in chunks:
            with _writing(path):
                ids.astype(dtype, copy=False).tofile(token_file)
                (num_tokens + np.cumsum(lengths) - lengths).tofile(start_file)
            num_tokens += len(ids)
            num_documents += len(lengths)
            num_bytes += chunk_bytes
    return {
        "version": FORMAT_VERSION,
        "dtype": dtype.name,
        "num_tokens": num_tokens,
        "num_documents": num_documents,
        "num_bytes": num_bytes,
        "vocab_size": vocab_size,
    }


def _chunks(documents: Iterable[str]) -> Iterator[list[str]]:
    chunk, characters = [], 0
    for document in documents:
        chunk.append(document)
        characters += len(document)
        if characters >= CHUNK_CHARACTERS or len(chunk) >= CHUNK_DOCUMENTS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


# ---- what is on disk -----------------------------------------------------------------------------------------------


def read_fingerprint(path: Path) -> dict:
    """What the token cache at a path was made from.

    Raises:
        InputError: if there is none, or its `meta.json` is damaged or of another format.
    """
    return _read_meta(path)["fingerprint"]


def _read_meta(path: Path) -> dict:
    try:
        text = (path / META).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{str(path)!r} is not a token cache: build it with build_token_cache") from error
    except (OSError, ValueError) as error:
        raise _damaged(path, one_line(error)) from error
    try:
        meta = json.loads(text)
        version = meta["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, f"its {META} is not valid") from error
    if version != FORMAT_VERSION:
        raise InputError(
            f"the token cache {str(path)!r} is of format {version}, not {FORMAT_VERSION}: build it again, or delete it"
        )
    if text != _meta_text(meta):
        raise _damaged(path, f"its {META} is not the one that was written")
    return meta


def _map_file(path: Path, dtype) -> np.ndarray:
    """The array in a file, memory-mapped unless it is empty, which no file can be."""
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.empty(0, dtype=dtype)


def _meta_text(meta: dict) -> str:
    """The exact text of `meta.json`: its last entry is a digest of all others."""
    meta = {name: value for name, value in meta.items() if name != "meta_digest"}
    return json.dumps({**meta, "meta_digest": xxhash.xxh3_128_hexdigest(json.dumps(meta).encode())}, indent=2) + "\n"


def _data_digest(path: Path) -> str:
    try:
        digests = [file_digest(path / name) for name in (TOKENS, STARTS)]
    except OSError as error:
        raise _damaged(path, error.strerror or one_line(error)) from error
    return xxhash.xxh3_128_hexdigest(" ".join(digests).encode())


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(f"the token cache {str(path)!r} is damaged ({reason}): delete the folder, or build it again")


def _may_replace(path: Path) -> bool:
    """Whether there is nothing at a path, or a token cache, even a damaged one."""
    try:
        names = set(os.listdir(path))
    except FileNotFoundError:
        return True
    except NotADirectoryError:  # a file, or a path below one, where writing will fail
        return not os.path.lexists(path)
    return META in names or names <= set(FILES)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns an error in writing a cache into an [`InputError`] of one line."""
    try:
        yield
    except (OSError, NotImplementedError) as error:  # the latter where a file system has no locks
        reason = getattr(error, "strerror", None) or one_line(error)
        raise InputError(
            f"cannot write the token cache {str(path)!r}: {reason}: free some space, or choose another folder with cache_dir "
            "or SMT_HF_CACHE"
        ) from error
