"""From images to training rows: one image, one document, one row."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError, one_line
from ..models.image_processing_smt import SmtImageProcessor
from .cache_key import CacheKey
from .image_opening import open_images
from .image_source import ImageSource
from .shards import Shard
from .token_cache import FORMAT_VERSION, TokenCache, cached, write_token_cache

CHUNK_IMAGES = 4096


class ImageRows(torch.utils.data.Dataset):
    """The images of a token cache, one per row: an item is `{"input_ids": (T,) int64}`.

    Args:
        cache: from [`cached_images`]; all its documents have the same length T. It is read, never copied.

    Raises:
        InputError: for a cache whose documents differ in length, such as one of text.
    """

    def __init__(self, cache: TokenCache):
        self.window_length, rest = divmod(cache.num_tokens, cache.num_documents)
        if rest or (np.diff(cache.document_starts) != self.window_length).any():
            raise InputError(
                f"{str(cache.path)!r} contains documents of different lengths, not images: use TokenWindows"
            )
        self.cache = cache

    def identity(self) -> dict:
        """Identifies these images, for a resumed training to compare."""
        return {"kind": "ImageRows", "tokens": self.cache.digest}

    def __len__(self) -> int:
        return self.cache.num_documents

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        start = range(len(self))[index] * self.window_length
        tokens = self.cache.tokens[start : start + self.window_length]
        return {"input_ids": torch.from_numpy(tokens.astype(np.int64))}


def evenly_spaced_images(rows: ImageRows, num_images: int) -> torch.Tensor:
    """Images spread evenly over a dataset, `(num_images, T)` int64; all if there are no more."""
    num_images = min(num_images, len(rows))
    return torch.stack([rows[index * len(rows) // num_images]["input_ids"] for index in range(num_images)])


def processor_for(source: ImageSource, conditional: bool = True, **options) -> SmtImageProcessor:
    """Return a processor for a dataset, with its classes.

    Args:
        source: from [`open_images`].
        conditional: whether to add class tokens; the images must then have labels.
        options: options of [`SmtImageProcessor`], except the classes.

    Raises:
        InputError: for options that cannot work, or images without labels.
    """
    if conditional and source.class_names is None:
        raise InputError(f"{source.name} has no classes: set label_column, or train without classes")
    names = source.class_names if conditional else None
    try:
        return SmtImageProcessor(**options, num_classes=len(names or ()), class_names=names)
    except ValueError as error:
        raise InputError(one_line(error)) from error


def cached_images(
    source: ImageSource | str | os.PathLike,
    processor: SmtImageProcessor,
    cache_dir: str | os.PathLike | None = None,
    max_images: int | None = None,
    shard: Shard | None = None,
    **options,
) -> TokenCache:
    """Return the token cache of a dataset of images, built on the first call and reused while nothing it depends on changes.

    Every image is a document of T ids, `processor.sequence_length`; the cache counts one byte per pixel.

    Args:
        source: from [`open_images`], or anything that it opens.
        processor: turns images into ids.
        cache_dir: the folder of all caches, as for text.
        max_images: read at most this many.
        shard: build the cache of this part only, for [`merge_shards`].
        options: options of [`open_images`].

    Raises:
        InputError: as [`open_images`] does; for an image or a label that the processor refuses, naming its place; for classes
            that are not the processor's.
    """
    if not isinstance(source, ImageSource):
        source = open_images(source, **options)
    key = image_key(source, processor, max_images).of(shard)

    def build(path: Path) -> TokenCache:
        if shard is None:
            return build_image_cache(source, processor, path, max_images, key.fingerprint)
        return build_image_cache(source.part(shard, max_images), processor, path, None, key.fingerprint)

    return cached(key, build, cache_dir)


def image_key(source: ImageSource, processor: SmtImageProcessor, max_images: int | None = None) -> CacheKey:
    """What the token cache of images depends on; arguments and errors are those of [`cached_images`]."""
    if max_images is not None and max_images < 1:
        raise InputError(f"max_images is {max_images}: pass 1 or more, or leave it out for all")
    check_classes(source, processor)
    if None in source.identity:
        raise InputError(
            "an IterableDataset cannot be identified: pass a Dataset or files, or choose a name of your own and write "
            "a cache with build_image_cache"
        )
    fingerprint = {
        "version": FORMAT_VERSION,
        "source": source.identity,
        "processor": processor.to_dict(),
        "max_images": max_images,
    }
    return CacheKey(source.name.strip("'"), fingerprint)


def build_image_cache(
    images: Iterable[tuple],
    processor: SmtImageProcessor,
    path: str | os.PathLike,
    max_images: int | None = None,
    fingerprint: dict | None = None,
) -> TokenCache:
    """Encode images into a token cache in the folder `path`, in one pass and in bounded memory.

    Args:
        images: pairs `(image, label)`, such as an [`ImageSource`].
        processor: turns images into ids.
        path: the folder to write.
        max_images: read at most this many.
        fingerprint: JSON-ready values that say what the cache was made from.

    Raises:
        InputError: as [`cached_images`] does, or if the folder cannot be written.
    """
    chunks = _encoded(images, processor, max_images)
    return write_token_cache(chunks, processor.vocab_size, path, fingerprint)


def check_classes(source: ImageSource, processor: SmtImageProcessor) -> None:
    """Checks that the images have the classes of a class-conditional processor.

    Raises:
        InputError: naming both.
    """
    if processor.num_classes == 0:
        return
    names = source.class_names
    if names is None:
        raise InputError(
            f"{source.name} has no classes, but the student has {processor.num_classes}: set label_column"
        )
    if processor.class_names not in (None, names) or len(names) != processor.num_classes:
        raise InputError(
            f"{source.name} has the classes {_shown(names)}, but the student has {_shown(processor.class_names or [])} "
            f"({len(names)} and {processor.num_classes}): use images of the same classes"
        )


def _shown(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _encoded(images, processor: SmtImageProcessor, max_images: int | None) -> Iterator[tuple]:
    """Chunks of images as [`write_token_cache`] takes them."""
    name, rows = getattr(images, "name", "the data set"), []
    for number, (image, label) in enumerate(images):
        if number == max_images:
            break
        try:
            class_ids = processor.class_ids(label if processor.num_classes else None)
            rows.append(np.concatenate([class_ids, processor.pixel_ids(image)]))
        except ValueError as error:
            raise InputError(f"{name}, image {number}: {one_line(error)}") from error
        if len(rows) == CHUNK_IMAGES:
            yield _chunk(rows, processor)
            rows = []
    if rows:
        yield _chunk(rows, processor)


def _chunk(rows: list[np.ndarray], processor: SmtImageProcessor) -> tuple[np.ndarray, np.ndarray, int]:
    lengths = np.full(len(rows), processor.sequence_length, dtype=np.int64)
    return np.concatenate(rows), lengths, len(rows) * processor.num_pixels
