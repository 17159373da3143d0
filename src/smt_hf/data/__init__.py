"""From text to training windows: tokenizer, documents, token cache, windows; and from images to training rows."""

from .build import DataOptions, ImageOptions, TextOptions
from .collation import collate
from .documents import iter_documents, iter_text_file
from .encoding import encode_documents
from .image_sources import ImageSource, open_images
from .images import ImageRows, build_image_cache, cached_images, processor_for
from .processing import load_processing, load_processor
from .text_stream import TextStream
from .token_cache import TokenCache, build_token_cache, cached_tokens
from .tokenizer import byte_tokenizer, is_byte_tokenizer, load_tokenizer, without_special_tokens
from .windows import TokenWindows, evenly_spaced_windows

__all__ = [
    "DataOptions",
    "ImageOptions",
    "ImageRows",
    "ImageSource",
    "TextOptions",
    "TextStream",
    "TokenCache",
    "TokenWindows",
    "build_image_cache",
    "build_token_cache",
    "byte_tokenizer",
    "cached_images",
    "cached_tokens",
    "collate",
    "encode_documents",
    "evenly_spaced_windows",
    "is_byte_tokenizer",
    "iter_documents",
    "iter_text_file",
    "load_processing",
    "load_processor",
    "load_tokenizer",
    "open_images",
    "processor_for",
    "without_special_tokens",
]
