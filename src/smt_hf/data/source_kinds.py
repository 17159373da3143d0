"""The kinds of sources, and the options for reading that each of them honours: this is decided only here."""

import os
from dataclasses import dataclass

from .documents import SAVED_SPLITS, find_source
from .files import TEXT, file_format, local_path


@dataclass(frozen=True)
class SourceKind:
    """A kind of source.

    Attributes:
        name: for messages.
        honours: the options that affect how it is read. Other options change nothing.
    """

    name: str
    honours: frozenset[str]


def _kind(name: str, *honours: str) -> SourceKind:
    return SourceKind(name, frozenset(honours))


_COLUMNS = ("image_column", "label_column")

# ---- text ----
TEXT_FILE = _kind("a text file", "separator")
ROW_FILE = _kind("a file of rows", "text_column")
OTHER_FILE = _kind("a file", "separator", "text_column")  # of unknown format, which is refused when it is read
SAVED_TEXT = _kind("one split of a dataset, saved on its own", "text_column")
SAVED_TEXTS = _kind("a saved dataset", "split", "text_column")
HUB_TEXT = _kind("a Hub dataset", "split", "config_name", "text_column", "streaming")
GIVEN_TEXT = _kind("a Dataset", "text_column")
GIVEN_TEXTS = _kind("a dictionary of datasets", "split", "text_column")

# ---- images ----
DIGIT_IMAGES = _kind("images that come with scikit-learn", "split", "holdout")
IMAGE_FOLDER = _kind("a folder of images without splits", "split", "holdout")
IMAGE_FOLDERS = _kind("a folder of images with splits", "split")
CLASS_ARRAYS = _kind("a folder of arrays, one per class", "split", "holdout")
ARRAYS = _kind("a file of arrays without splits", "split", "holdout")
SPLIT_ARRAYS = _kind("a file of arrays with splits", "split")
IMAGE_ROWS = _kind("images in .parquet files", "split", *_COLUMNS)
SAVED_IMAGES = _kind("one split of a dataset, saved on its own", *_COLUMNS)
SAVED_IMAGE_SPLITS = _kind("a saved dataset", "split", *_COLUMNS)
HUB_IMAGES = _kind("a Hub dataset", "split", "config_name", "streaming", *_COLUMNS)
GIVEN_IMAGES = _kind("a Dataset", *_COLUMNS)
GIVEN_IMAGE_SPLITS = _kind("a dictionary of datasets", "split", *_COLUMNS)


def text_kind(source, split: str, config_name: str | None) -> SourceKind:
    """The kind of a source of text; raises as [`find_source`] does."""
    found = find_source(source, split, config_name)
    if isinstance(found, str):
        return HUB_TEXT
    if not isinstance(source, (str, os.PathLike)):
        return GIVEN_TEXTS if isinstance(source, dict) else GIVEN_TEXT
    path = local_path(source)
    if not isinstance(found, list):
        return SAVED_TEXTS if (path / SAVED_SPLITS).exists() else SAVED_TEXT
    formats = [file_format(file) for file in found]
    kinds = {OTHER_FILE if each is None else TEXT_FILE if each[0] == TEXT else ROW_FILE for each in formats}
    if path.is_file():
        return kinds.pop()
    return _kind("a folder of text", "split", "config_name", *(name for kind in kinds for name in kind.honours))
