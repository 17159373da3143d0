"""A corpus as token ids on disk, built once and memory-mapped from then on."""

import hashlib
import itertools
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from transformers import PreTrainedTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ..errors import InputError
from .documents import iter_documents
from .tokenizer import is_byte_tokenizer, tokenizer_content

FORMAT_VERSION = 1
CHUNK_CHARACTERS = 1 << 22
CHUNK_DOCUMENTS = 10_000


@dataclass(frozen=True, eq=False)
class TokenCache:
    """The token ids of a corpus, memory-mapped read-only; pickling it stores only its path.

    Attributes:
        path: the folder that holds the cache.
        tokens: (num_tokens,) uint16, or uint32 where the vocabulary needs it; each document ends with the eos token.
        document_starts: (num_documents,) int64, where each document starts in `tokens`.
        num_bytes: UTF-8 bytes of the text, and one for each eos token (the divisor of bits per byte).
        vocab_size: `len(tokenizer)`, above every token id.
    """

    path: Path
    tokens: np.memmap
    document_starts: np.memmap
    num_bytes: int
    vocab_size: int

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def num_documents(self) -> int:
        return len(self.document_starts)

    @classmethod
    def open(cls, path: str | os.PathLike) -> "TokenCache":
        """Open the cache in the folder `path`.

        Raises:
            InputError: the folder is not a token cache, or is a damaged one.
        """
        path = Path(path)
        try:
            meta = json.loads((path / "meta.json").read_text())
            tokens = np.memmap(path / "tokens.bin", dtype=meta["dtype"], mode="r")
            starts = np.memmap(path / "document_starts.bin", dtype=np.int64, mode="r")
            lengths = (meta["version"], meta["num_tokens"], meta["num_documents"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{str(path)!r} is not a token cache: build it with build_token_cache") from error
        if lengths != (FORMAT_VERSION, len(tokens), len(starts)):
            raise InputError(f"the token cache {str(path)!r} is damaged or of another version: delete the folder")
        return cls(path, tokens, starts, meta["num_bytes"], meta["vocab_size"])

    def __reduce__(self):
        return TokenCache.open, (self.path,)


def build_token_cache(
    documents: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    path: str | os.PathLike,
    fingerprint: dict | None = None,
) -> TokenCache:
    """Encode documents into a token cache, in one pass and in bounded memory.

    The text of a special token inside a document is encoded as plain text; lone surrogates become `?`. The folder
    appears complete or not at all, and replaces a token cache that was there.

    Args:
        documents: the texts.
        tokenizer: one with an eos token, which ends each document.
        path: the folder to write.
        fingerprint: JSON-ready values that say what the cache was made from, kept in its `meta.json`.

    Raises:
        InputError: no documents, no eos token, a token id outside the vocabulary, or a `path` that is something else.
    """
    path = Path(path)
    if tokenizer.eos_token_id is None:
        raise InputError(f"the tokenizer {tokenizer.name_or_path!r} has no eos token: set tokenizer.eos_token")
    if path.exists() and not (path / "meta.json").exists() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(f"{str(path)!r} exists and is not a token cache: give another folder")
    vocab_size = len(tokenizer)
    dtype = np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)
    encode = _encode_bytes if is_byte_tokenizer(tokenizer) else _encode
    num_tokens = num_documents = num_bytes = 0
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    draft.mkdir(parents=True)
    try:
        with (draft / "tokens.bin").open("wb") as token_file, (draft / "document_starts.bin").open("wb") as start_file:
            for chunk in _chunks(documents):
                texts = [document.encode("utf-8", "replace") for document in chunk]
                ids, lengths = encode(texts, tokenizer)
                if (largest := int(ids.max())) >= vocab_size:
                    raise InputError(
                        f"the tokenizer {tokenizer.name_or_path!r} gives the id {largest} but has only {vocab_size} "
                        "tokens: use one whose ids are below its length"
                    )
                ids.astype(dtype, copy=False).tofile(token_file)
                (num_tokens + np.cumsum(lengths) - lengths).tofile(start_file)
                num_tokens += len(ids)
                num_documents += len(texts)
                num_bytes += sum(map(len, texts)) + len(texts)
        if not num_documents:
            raise InputError(f"there are no documents to write to {str(path)!r}: give at least one")
        meta = {
            "version": FORMAT_VERSION,
            "dtype": dtype.name,
            "num_tokens": num_tokens,
            "num_documents": num_documents,
            "num_bytes": num_bytes,
            "vocab_size": vocab_size,
            "fingerprint": fingerprint or {},
        }
        (draft / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")
        if path.exists():
            old = draft.with_name(draft.name + ".old")
            path.rename(old)
            draft.rename(path)
            shutil.rmtree(old)
        else:
            draft.rename(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return TokenCache.open(path)


def cached_tokens(
    source: str, tokenizer: PreTrainedTokenizerBase, cache_dir: str | os.PathLike | None = None, **options
) -> TokenCache:
    """Return the token cache of a corpus, built on the first call and reused while nothing it depends on changes.

    Those are the source (for a local one its path and the size and time of each file; a Hub dataset by its id alone),
    the tokenizer's content and the options. Processes that call this at once build the cache only once.

    Args:
        source: as in `iter_documents`.
        tokenizer: one with an eos token.
        cache_dir: the folder of all caches; `$SMT_HF_CACHE`, else `$HF_HOME/smt_hf`, else `~/.cache/smt_hf`.
        options: those of `iter_documents`.

    Raises:
        InputError: as `iter_documents` and `build_token_cache` do.
    """
    fingerprint = {
        "version": FORMAT_VERSION,
        "source": _source_state(source),
        "tokenizer": _digest([tokenizer_content(tokenizer), tokenizer.eos_token_id, len(tokenizer)]),
        "options": {name: value for name, value in options.items() if name != "streaming"},
    }
    name = re.sub(r"[^\w.]+", "_", source)[-40:]
    path = Path(cache_dir or default_cache_dir()).expanduser() / f"{name}-{_digest(fingerprint)[:16]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        try:
            return TokenCache.open(path)
        except InputError:
            return build_token_cache(iter_documents(source, **options), tokenizer, path, fingerprint)


def default_cache_dir() -> Path:
    """`$SMT_HF_CACHE`, else `$HF_HOME/smt_hf`, else `~/.cache/smt_hf`."""
    hugging_face_home = os.environ.get("HF_HOME") or "~/.cache"
    return Path(os.environ.get("SMT_HF_CACHE") or Path(hugging_face_home) / "smt_hf").expanduser()


def _source_state(source: str) -> list:
    path = Path(source).expanduser()
    if not path.exists():
        return [source]
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    states = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return [str(path.resolve()), states]


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


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


def _encode_bytes(texts: list[bytes], tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, np.ndarray]:
    """The ids (all documents, each with its eos) and the lengths, (num_texts,) int64, for the byte tokenizer."""
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)) + 1
    ids = np.frombuffer(b"\0".join([*texts, b""]), dtype=np.uint8).astype(np.uint16)
    ids[np.cumsum(lengths) - 1] = tokenizer.eos_token_id
    return ids, lengths


def _encode(texts: list[bytes], tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, np.ndarray]:
    """The same for any tokenizer."""
    splits = isinstance(tokenizer, (PreTrainedTokenizer, PreTrainedTokenizerFast))  # Mistral's own has no such option
    options = {"split_special_tokens": True} if splits else {}
    strings = [text.decode("utf-8") for text in texts]
    ids = tokenizer(strings, add_special_tokens=False, return_attention_mask=False, verbose=False, **options)[
        "input_ids"
    ]
    for document in ids:
        document.append(tokenizer.eos_token_id)
    lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
    return np.fromiter(itertools.chain.from_iterable(ids), dtype=np.int64, count=lengths.sum()), lengths
