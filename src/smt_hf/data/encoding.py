"""From documents to token ids, as training reads them."""

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from transformers import PreTrainedTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ..errors import InputError
from .tokenizer import is_byte_tokenizer


def encode_documents(
    documents: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the token ids of documents, each with its eos token at the end.

    No other special token is added, and the text of one inside a document is encoded as plain text. Lone surrogates,
    which UTF-8 cannot encode, become `?`.

    Returns:
        The ids of all documents `(num_tokens,)`, the number of tokens of each `(num_documents,)` int64, and the number
        of bytes: UTF-8 bytes of the text, and one for each eos token.

    Raises:
        InputError: for a tokenizer without an eos token, or one that produces an id beyond its length.
    """
    check_eos_token(tokenizer)
    texts = [document.encode("utf-8", "replace") for document in documents]
    ids, lengths = (_encode_bytes if is_byte_tokenizer(tokenizer) else _encode)(texts, tokenizer)
    vocab_size = len(tokenizer)
    if len(ids) and (largest := int(ids.max())) >= vocab_size:
        raise InputError(
            f"the tokenizer {tokenizer.name_or_path!r} returns the id {largest} but has only {vocab_size} tokens: use one "
            "whose ids are below its length"
        )
    return ids, lengths, sum(map(len, texts)) + len(texts)


def encoded_chunks(
    chunks: Iterable[Sequence[str]], tokenizer: PreTrainedTokenizerBase, num_proc: int
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Encodes lists of documents one by one, in order, as [`encode_documents`] does.

    Args:
        chunks: the lists; `2 * num_proc` of them are held at a time.
        tokenizer: one with an eos token.
        num_proc: number of processes. This one encodes if it is 1, if there is a single chunk, and for the byte tokenizer.
    """
    chunks = iter(chunks)
    first = list(itertools.islice(chunks, 2))
    if num_proc == 1 or len(first) < 2 or is_byte_tokenizer(tokenizer):  # bytes are copied faster than they are sent
        yield from (encode_documents(chunk, tokenizer) for chunk in itertools.chain(first, chunks))
        return
    with ProcessPoolExecutor(num_proc, initializer=_keep_tokenizer, initargs=(tokenizer,)) as pool:
        waiting = deque()
        try:
            for chunk in itertools.chain(first, chunks):
                waiting.append(pool.submit(_encode_with_kept, chunk))
                if len(waiting) == 2 * num_proc:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


_kept: dict[str, PreTrainedTokenizerBase] = {}  # in a process of the pool: its tokenizer


def _keep_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    _kept["tokenizer"] = tokenizer


def _encode_with_kept(documents: Sequence[str]) -> tuple[np.ndarray, np.ndarray, int]:
    return encode_documents(documents, _kept["tokenizer"])


def num_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_eos_token(tokenizer: PreTrainedTokenizerBase) -> None:
    """Checks that a tokenizer can end documents.

    Raises:
        InputError: naming the tokenizer.
    """
    if tokenizer.eos_token_id is None:
        raise InputError(f"the tokenizer {tokenizer.name_or_path!r} has no eos token: set tokenizer.eos_token")


def _encode_bytes(texts: list[bytes], tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, np.ndarray]:
    """The ids (all documents, each with its eos) and the lengths, (num_texts,) int64, for the byte tokenizer."""
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)) + 1
    ids = np.frombuffer(b"\0".join([*texts, b""]), dtype=np.uint8).astype(np.uint16)
    ids[np.cumsum(lengths) - 1] = tokenizer.eos_token_id
    return ids, lengths


def _encode(texts: list[bytes], tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, np.ndarray]:
    """The same for any tokenizer."""
    splits = isinstance(
        tokenizer, (PreTrainedTokenizer, PreTrainedTokenizerFast)
    )  # Mistral's own class lacks this option
    options = {"split_special_tokens": True} if splits else {}
    strings = [text.decode("utf-8") for text in texts]
    ids = tokenizer(strings, add_special_tokens=False, return_attention_mask=False, verbose=False, **options)[
        "input_ids"
    ]
    for document in ids:
        document.append(tokenizer.eos_token_id)
    lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
    return np.fromiter(itertools.chain.from_iterable(ids), dtype=np.int64, count=lengths.sum()), lengths
