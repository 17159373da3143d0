"""The byte tokenizer, and loading any other tokenizer by name."""

import json
import os

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from ..errors import InputError

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"
NO_MAX_LENGTH = int(1e30)  # what transformers writes for "no limit": a recurrent model has none


def byte_tokenizer(model_max_length: int = NO_MAX_LENGTH) -> PreTrainedTokenizerFast:
    """Return the tokenizer whose ids 0..255 are the UTF-8 bytes of the text.

    `<|endoftext|>` is 256 (eos and bos) and `<|pad|>` is 257, so `len(tokenizer)` is 258; padding is on the left.
    Decoding is exact; bytes that are not valid UTF-8 decode to U+FFFD. A text that spells a special token becomes
    that token's id unless it is encoded with `split_special_tokens=True`.

    Args:
        model_max_length: the length past which the tokenizer warns; none by default.
    """
    vocab = {character: byte for byte, character in bytes_to_unicode().items()}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=PAD,
        padding_side="left",
        model_max_length=model_max_length,
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(name_or_path: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of that name: `"byte"` for `byte_tokenizer()`, else a folder or a Hub id.

    Raises:
        InputError: it cannot be found or loaded, or it has no eos token to end documents with.
    """
    if name_or_path == "byte":
        return byte_tokenizer()
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    except (OSError, ValueError, ImportError) as error:
        if os.path.isdir(name_or_path):
            mend = "save one there with tokenizer.save_pretrained"
        else:
            mend = 'no such folder here; pass "byte", a folder or the id of a reachable Hub model'
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"cannot load a tokenizer from {name_or_path!r}: {mend} ({reason})") from error
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"the tokenizer {name_or_path!r} has no eos token to end documents with: set its eos_token and save it"
        )
    return tokenizer


def is_byte_tokenizer(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer encodes as `byte_tokenizer()` does, judged by its content (a reloaded copy counts)."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or tokenizer.eos_token != END_OF_TEXT:
        return False
    return len(tokenizer) == 258 and tokenizer_content(tokenizer) == tokenizer_content(byte_tokenizer())


def tokenizer_content(tokenizer: PreTrainedTokenizerBase) -> dict:
    """Return, as JSON-ready values, what decides the ids that a tokenizer gives to a text without special tokens."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return {"class": type(tokenizer).__name__, "vocab": tokenizer.get_vocab()}
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    return {key: backend[key] for key in ("added_tokens", "normalizer", "pre_tokenizer", "model", "decoder")}
