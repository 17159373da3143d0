"""From documents to token ids, as training reads them."""

import itertools
from collections.abc import Sequence

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
            f"the tokenizer {tokenizer.name_or_path!r} gives the id {largest} but has only {vocab_size} tokens: use one "
            "whose ids are below its length"
        )
    return ids, lengths, sum(map(len, texts)) + len(texts)


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
