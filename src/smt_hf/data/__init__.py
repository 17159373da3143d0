"""From text to training windows: tokenizer, documents, token cache, windows; and from images to training rows."""

from .build import DataOptions, ProcessingOptions, TextOptions
from .collation import collate
from .documents import iter_documents, iter_text_file
from .encoding import encode_documents
from .image_opening import open_images
from .image_source import ImageSource
from .images import ImageRows, build_image_cache, cached_images, evenly_spaced_images, image_key, processor_for
from .merging import merge_shards
from .processing import load_processing, load_processor
from .shards import Shard
from .text_stream import TextStream
from .token_cache import TokenCache, build_token_cache, cached_tokens, text_key
from .tokenizer import byte_tokenizer, is_byte_tokenizer, load_tokenizer, without_special_tokens
from .windows import TokenWindows, check_window_length, evenly_spaced_windows

__all__ = [
    "DataOptions",
    "ImageRows",
    "ImageSource",
    "ProcessingOptions",
    "Shard",
    "TextOptions",
    "TextStream",
    "TokenCache",
    "TokenWindows",
    "build_image_cache",
    "build_token_cache",
    "byte_tokenizer",
    "cached_images",
    "cached_tokens",
    "check_window_length",
    "collate",
    "encode_documents",
    "evenly_spaced_images",
    "evenly_spaced_windows",
    "image_key",
    "is_byte_tokenizer",
    "iter_documents",
    "iter_text_file",
    "load_processing",
    "load_processor",
    "load_tokenizer",
    "merge_shards",
    "open_images",
    "processor_for",
    "text_key",
    "without_special_tokens",
]
