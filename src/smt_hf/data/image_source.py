"""The images and labels of a dataset, one by one, and the splits that it is divided into."""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from ..errors import InputError
from .shards import Shard

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True)
class ImageSource:
    """Images and their labels, to be read any number of times.

    Attributes:
        name: for messages.
        class_names: the classes, in the order of their labels; `None` where images have none.
        identity: JSON-ready values that change when the images do.
        items: makes an iterator over `(item, label)` pairs; the label is `None` if images have none.
        read: makes the image of an item, so that only images that are needed are read.
    """

    name: str
    class_names: list[str] | None
    identity: list
    items: Callable[[], Iterable[tuple]]
    read: Callable = field(default=lambda image: image)

    def __iter__(self) -> Iterator[tuple]:
        for item, label in self.items():
            yield self.read(item), label

    def part(self, shard: Shard, max_images: int | None = None) -> "ImageSource":
        """One contiguous part of the first `max_images` images, or of all.

        Raises:
            InputError: if there are fewer images than parts.
        """
        number = sum(1 for _ in itertools.islice(self.items(), max_images))
        place = shard.part_of_all(number, self.name, "images")

        def items():
            return itertools.islice(self.items(), place.start, place.stop)

        return replace(self, name=f"{shard} of {self.name}", items=items)


def held_out(source: ImageSource, split: str, holdout: int | None) -> ImageSource:
    """One of the two splits that `holdout` makes of a source without splits."""
    if holdout is None:
        if split != "train":
            raise InputError(
                f"{source.name} has no splits: leave out split, or pass holdout to keep some images for validation"
            )
        return source
    if split not in ("train", "validation"):
        raise InputError(f"{source.name} has no split {split!r}: with holdout, choose train or validation")
    validation = split == "validation"

    def items():
        number, found = 0, False
        for number, item in enumerate(source.items(), 1):
            block, place = divmod(number - 1, holdout)
            # at random, because an even step would always take the same few of classes that take turns
            if (random.Random(block).randrange(holdout) == place) == validation:
                found = True
                yield item
        if not found:
            raise InputError(
                f"holdout={holdout} leaves none of the {number} images of {source.name} for the split {split!r}: lower it, or use "
                "more images"
            )

    return replace(source, identity=[*source.identity, split, holdout], items=items)


def split_name(word: str) -> str | None:
    """The split that a folder or an array is named after."""
    return next((split for split, names in SPLIT_NAMES.items() if word.lower() in names), None)


def no_split(name: str, split: str, splits: Iterable[str]) -> InputError:
    return InputError(f"{name} has no split {split!r}: choose one of {', '.join(splits)}")
