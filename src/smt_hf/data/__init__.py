"""From text to training windows: tokenizer, documents, token cache, windows."""

from smt_hf.data.documents import iter_documents
from smt_hf.data.token_cache import TokenCache, build_token_cache, cached_tokens
from smt_hf.data.tokenizer import byte_tokenizer, is_byte_tokenizer, load_tokenizer
from smt_hf.data.windows import TokenWindows, evenly_spaced_windows

__all__ = [
    "TokenCache",
    "TokenWindows",
    "build_token_cache",
    "byte_tokenizer",
    "cached_tokens",
    "evenly_spaced_windows",
    "is_byte_tokenizer",
    "iter_documents",
    "load_tokenizer",
]
