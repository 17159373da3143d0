"""Reading the images of a data set one by one: from folders, arrays, Hub datasets and `datasets` objects."""

import itertools
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import datasets
import numpy as np

from ..errors import InputError, one_line
from . import source_kinds as kinds
from .documents import SAVED_SPLITS, describe, find_source, load_dataset, split_of
from .files import local_path
from .folders import say_once
from .shards import Shard
from .source_kinds import SourceKind

DIGITS = "digits"  # the 8 x 8 digits that come with scikit-learn
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
SAVED = (SAVED_SPLITS, "state.json")  # what `save_to_disk` writes
EXPECTED = "an .npz, .npy or .parquet file, a folder of these or of images, or a Hub dataset id"
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
        items: makes an iterator over images, or what `read` makes them of, and their labels, `None` where there are none.
        read: the image of an item, so that none is read in vain.
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
        """One of the contiguous parts of the first `max_images` images, or of all.

        Raises:
            InputError: if there are fewer images than parts.
        """
        number = sum(1 for _ in itertools.islice(self.items(), max_images))
        place = shard.part_of_all(number, self.name, "images")

        def items():
            return itertools.islice(self.items(), place.start, place.stop)

        return replace(self, name=f"{shard} of {self.name}", items=items)


def open_images(
    source: str | os.PathLike | datasets.Dataset | datasets.IterableDataset | datasets.DatasetDict,
    *,
    split: str = "train",
    holdout: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    config_name: str | None = None,
    streaming: bool = False,
) -> ImageSource:
    """Return the images of one split of a data set, without reading them yet.

    Args:
        source: one of
            - a folder of images, each in a folder of its class, below folders named after splits if there are any. Where
              folders of classes lie in both `sketch` and `photo`, as Sketchy is distributed, the photos are left aside, and a warning
              says so;
            - an `.npz` file with `x` and `y`, or `x_train`, `y_train`, `x_test`, ..., and `classes`, the names of the classes;
              images are uint8, `(N, H, W)`, `(N, H, W, C)` or, if square, `(N, H x W)`;
            - a folder of `.npy` files, one a class, as QuickDraw's bitmaps are distributed;
            - a `.parquet` file, or a folder of them, with images as `datasets` writes them;
            - the id of a Hub dataset; a `Dataset`, an `IterableDataset`, or a dictionary of them by split;
            - `"digits"`, the 1,797 digits of 8 x 8 pixels that come with scikit-learn.
        split: the split to read.
        holdout: n, for a source without splits: of every n images one is in the split `"validation"`, the others in
            `"train"`. 6 for `"digits"`.
        image_column: the column with the images; by default the one whose feature is `Image`.
        label_column: the column with the labels; by default the one whose feature is `ClassLabel`.
        config_name: the configuration of a Hub dataset that has several.
        streaming: read a Hub dataset while it downloads.

    Raises:
        InputError: for a source, split or column that is not there or holds something else.
    """
    if holdout is not None and holdout < 2:
        raise InputError(f"holdout is {holdout}: give 2 or more, of which one is for validation")
    kind = image_kind(source)
    if holdout is not None and "holdout" not in kind.honours:
        raise InputError(
            f"holdout={holdout} is for sources without splits, and {describe(source)} has its own: leave it out"
        )
    if kind == kinds.DIGIT_IMAGES:
        images, labels, names = _digits()
        return _held_out(_from_arrays(DIGITS, images, labels, names, ["scikit-learn"]), split, holdout or 6)
    path = local_path(source) if isinstance(source, (str, os.PathLike)) else None
    if kind in (kinds.IMAGE_FOLDER, kinds.IMAGE_FOLDERS):
        return _from_folder(path, split, holdout)
    if kind == kinds.CLASS_ARRAYS:
        return _held_out(_from_class_files(path), split, holdout)
    if kind in (kinds.ARRAYS, kinds.SPLIT_ARRAYS):
        return _from_array_file(path, split, holdout)
    found = _dataset(path or source, split, config_name, streaming)
    return _from_dataset(found, path or source, split, image_column, label_column, config_name)


def image_kind(source) -> SourceKind:
    """What a source of images is.

    Raises:
        InputError: for a file or folder that is not there, or holds no images.
    """
    path = local_path(source) if isinstance(source, (str, os.PathLike)) else None
    if path is None:
        if source == DIGITS:
            return kinds.DIGIT_IMAGES
        if isinstance(source, dict):
            return kinds.GIVEN_IMAGE_SPLITS
        is_id = isinstance(find_source(source, "train", None), str)
        return kinds.HUB_IMAGES if is_id else kinds.GIVEN_IMAGES
    suffixes = {path.suffix.lower()}
    if path.is_dir():
        if any((path / name).exists() for name in SAVED):
            return kinds.SAVED_IMAGE_SPLITS if (path / SAVED_SPLITS).exists() else kinds.SAVED_IMAGES
        files = _files_of(path)
        suffixes = {file.suffix.lower() for file in files}
        if suffixes & set(IMAGES):
            return kinds.IMAGE_FOLDERS if _split_folders(path, files) else kinds.IMAGE_FOLDER
        if ".npy" in suffixes:
            return kinds.CLASS_ARRAYS
    elif path.suffix.lower() == ".npz":
        with _load_array(path) as file:
            return kinds.SPLIT_ARRAYS if _split_arrays(file.files) else kinds.ARRAYS
    elif path.suffix.lower() == ".npy":
        return kinds.ARRAYS
    if ".parquet" not in suffixes:
        raise InputError(f"{str(path)!r} holds no images: give {EXPECTED}")
    return kinds.IMAGE_ROWS


# ---- splits ----------------------------------------------------------------------------------------------------------


def _held_out(source: ImageSource, split: str, holdout: int | None) -> ImageSource:
    """One of the two splits that `holdout` makes of a source that has none."""
    if holdout is None:
        if split != "train":
            raise InputError(
                f"{source.name} has no splits: leave out split, or give holdout to keep a part for validation"
            )
        return source
    if split not in ("train", "validation"):
        raise InputError(f"{source.name} has no split {split!r}: with holdout it has train and validation")
    validation = split == "validation"

    def items():
        number, found = 0, False
        for number, item in enumerate(source.items(), 1):
            block, place = divmod(number - 1, holdout)
            # drawn, for an even step would take the same few of classes that stand in turn
            if (random.Random(block).randrange(holdout) == place) == validation:
                found = True
                yield item
        if not found:
            raise InputError(
                f"holdout={holdout} leaves none of the {number} images of {source.name} for the split {split!r}: lower it, or give "
                "more images"
            )

    return replace(source, identity=[*source.identity, split, holdout], items=items)


def _split_name(word: str) -> str | None:
    """The split that a folder or an array is named after."""
    return next((split for split, names in SPLIT_NAMES.items() if word.lower() in names), None)


def _no_split(name: str, split: str, splits: Iterable[str]) -> InputError:
    return InputError(f"{name} has no split {split!r}: give one of {', '.join(splits)}")


# ---- folders ---------------------------------------------------------------------------------------------------------


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "__")) for part in path.parts)


def _files_of(folder: Path) -> list[Path]:
    """The files in a folder and the folders in it, hidden ones left out."""
    return [file for file in sorted(folder.rglob("*")) if file.is_file() and not _hidden(file.relative_to(folder))]


def _split_folders(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """The folders that hold the images of each split; none, unless all images lie in such."""
    tops = {file.relative_to(folder).parts[0] for file in files if file.suffix.lower() in IMAGES}
    splits = {_split_name(top): top for top in sorted(tops)}
    return {} if None in splits else splits


def _from_folder(folder: Path, split: str, holdout: int | None) -> ImageSource:
    """Images in folders of their classes."""
    name, files = describe(folder), [file for file in _files_of(folder) if file.suffix.lower() in IMAGES]
    splits = _split_folders(folder, files)
    if splits:
        if split not in splits:
            raise _no_split(name, split, splits)
        folder = folder / splits[split]
        files = [file for file in files if file.is_relative_to(folder)]
    parts = [file.relative_to(folder).parts[:-1] for file in files]
    above_classes = {part for path in parts for part in path[:-1]}
    if {"sketch", "photo"} <= above_classes:
        kept = [(file, path) for file, path in zip(files, parts, strict=True) if "sketch" in path[:-1]]
        say_once(
            f"{name} has classes in folders 'sketch' and 'photo', as Sketchy is distributed: the {len(kept):,} images in 'sketch' are read, "
            f"the other {len(files) - len(kept):,} are left aside"
        )
        files, parts = [file for file, _ in kept], [path for _, path in kept]
    class_names = sorted({path[-1] for path in parts if path}) or None
    if class_names and not all(parts):
        lone = next(file for file, path in zip(files, parts, strict=True) if not path)
        raise InputError(f"{str(lone)!r} lies in no folder of a class, as others do: move it into one")
    numbers, places = {}, []
    for path in parts:  # classes in turn, so that a part of the data set has all of them
        label = class_names.index(path[-1]) if class_names else None
        numbers[label] = numbers.get(label, -1) + 1
        places.append((numbers[label], label))
    order = sorted(range(len(files)), key=lambda index: (places[index][0], places[index][1] or 0))
    chosen = [(files[index], places[index][1]) for index in order]
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file, _ in chosen]

    source = ImageSource(name, class_names, [stats], lambda: chosen, read_image)
    return source if splits else _held_out(source, split, holdout)


def read_image(path: Path):
    """The PIL image in a file.

    Raises:
        InputError: if there is none.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            return image
    except Exception as error:  # damaged files raise errors of every kind
        raise InputError(f"{str(path)!r} is no image that can be read ({one_line(error)[:200]})") from error


# ---- arrays ----------------------------------------------------------------------------------------------------------


def _digits() -> tuple[np.ndarray, np.ndarray, list[str]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError(
            f"'digits' come with scikit-learn ({one_line(error)}): pip install 'smt-hf[pixels]'"
        ) from error
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    return images, digits.target, [str(name) for name in digits.target_names]


def _from_array_file(path: Path, split: str, holdout: int | None) -> ImageSource:
    if path.suffix.lower() == ".npy":
        return _held_out(_from_arrays(describe(path), _load_array(path), None, None, _state([path])), split, holdout)
    with _load_array(path) as file:
        keys, splits = file.files, _split_arrays(file.files)
        if "x" not in keys and not splits:
            raise InputError(
                f"{str(path)!r} has the arrays {', '.join(keys) or 'none'}: name the images x, or x_train"
            )
        if splits and split not in splits:
            raise _no_split(describe(path), split, splits)
        x, y = splits.get(split, ("x", "y"))
        with _reading(path):
            names = [str(name) for name in file["classes"]] if "classes" in keys else None
            images, labels = file[x], file[y] if y in keys else None
        source = _from_arrays(describe(path), images, labels, names, [*_state([path]), split])
    return source if splits else _held_out(source, split, holdout)


def _split_arrays(keys: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The names of the images and the labels of each split in an `.npz` file."""
    parts = {key: key.partition("_") for key in keys}
    return {_split_name(rest) or rest: (key, f"y_{rest}") for key, (x, _, rest) in parts.items() if x == "x" and rest}


def _from_class_files(folder: Path) -> ImageSource:
    """`.npy` files, one a class; the classes in turn, so that a part of the data set has all of them."""
    files = [file for file in _files_of(folder) if file.suffix.lower() == ".npy"]
    arrays = [_images_of(describe(file), _load_array(file)) for file in files]
    names = [file.stem.removeprefix("full_numpy_bitmap_") for file in files]

    def items():
        for index in range(max(map(len, arrays))):
            for label, array in enumerate(arrays):
                if index < len(array):
                    yield array[index], label

    return ImageSource(describe(folder), names, _state(files), items)


def _from_arrays(name: str, images, labels, class_names: list[str] | None, identity: list) -> ImageSource:
    """Images and labels in memory."""
    images = _images_of(name, images)
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != (len(images),) or labels.dtype.kind not in "iu" or (labels.size and labels.min() < 0):
            raise InputError(
                f"{name} has labels of shape {labels.shape} and type {labels.dtype}: give a class for each image"
            )
        class_names = class_names or [str(number) for number in range(int(labels.max()) + 1)]
        if labels.max() >= len(class_names):
            raise InputError(
                f"{name} has the label {labels.max()} but {len(class_names)} classes: give all their names"
            )
    else:
        class_names = None

    def items():
        for index, image in enumerate(images):
            yield image, None if labels is None else int(labels[index])

    return ImageSource(name, class_names, identity, items)


def _images_of(name: str, array: np.ndarray) -> np.ndarray:
    """An array of images, those of one dimension made square.

    Raises:
        InputError: for another shape or type.
    """
    if array.ndim == 2 and array.dtype == np.uint8 and (side := int(np.sqrt(array.shape[1]))) ** 2 == array.shape[1]:
        array = array.reshape(-1, side, side)
    if array.ndim not in (3, 4) or array.dtype != np.uint8 or not array.size:
        raise InputError(
            f"{name} holds an array of shape {array.shape} and type {array.dtype}: give images as uint8, (N, H, W)"
        )
    return array


def _load_array(path: Path):
    with _reading(path):
        return np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix.lower() == ".npy" else None)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Says in one line what keeps arrays from being read."""
    try:
        yield
    except Exception as error:  # damaged files raise errors of every kind
        reason = one_line(error)[:200]
        if "pickle" in reason or "Python objects" in reason:  # numpy's advice is to run what lies in it
            reason = "it holds something else than arrays of numbers or text"
        raise InputError(f"{str(path)!r} cannot be read ({reason}): check that it is whole") from error


def _state(files: Sequence[Path]) -> list:
    return [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]


# ---- datasets ----------------------------------------------------------------------------------------------------------


def _dataset(source, split: str, config_name: str | None, streaming: bool):
    """The `Dataset` or `IterableDataset` that a source is."""
    if isinstance(source, Path) and source.exists():
        if source.is_file() or not any((source / name).exists() for name in SAVED):
            place = {"data_files": str(source)} if source.is_file() else {"data_dir": str(source)}
            return split_of(load_dataset(source, datasets.load_dataset, "parquet", **place), split, source)
    found = find_source(source, split, config_name)
    if isinstance(found, str):
        found = load_dataset(found, datasets.load_dataset, found, name=config_name, split=split, streaming=streaming)
    return found


def _from_dataset(
    dataset, source, split: str, image_column: str | None, label_column: str | None, config_name: str | None
) -> ImageSource:
    name, chosen = describe(source), (image_column, label_column, config_name)
    features = dataset.features or {}
    known = ", ".join(features or dataset.column_names or ())
    for kind, given in (("image_column", image_column), ("label_column", label_column)):
        if given is not None and features and given not in features:
            raise InputError(f"{name} has no column {given!r}: set {kind} to one of {known}")
    image_column = image_column or _column_of(features, datasets.Image)
    label_column = label_column or _column_of(features, datasets.ClassLabel)
    if image_column is None:
        raise InputError(f"{name} has no column of images: set image_column to one of {known or 'its columns'}")
    class_names = None
    if label_column is not None:
        class_names = _names_of(dataset, features.get(label_column), label_column, name)
    identity = [str(source), split] if isinstance(source, str) else [getattr(dataset, "_fingerprint", None)]
    if any(chosen):
        identity.append(chosen)

    wanted = dataset.with_format(None).select_columns([column for column in (image_column, label_column) if column])
    feature = features.get(image_column)
    encoded = isinstance(dataset, datasets.Dataset) and isinstance(feature, datasets.Image) and feature.decode
    if encoded:
        wanted = wanted.cast_column(image_column, replace(feature, decode=False))

    def items():
        rows = iter(wanted)
        while (row := load_dataset(source, next, rows, None)) is not None:
            image, label = row[image_column], row.get(label_column)
            if isinstance(image, list):
                image = np.asarray(image, dtype=np.uint8)
            if isinstance(label, str):
                label = class_names.index(label)
            yield image, label

    def read(image):
        return load_dataset(source, feature.decode_example, image) if encoded and image is not None else image

    return ImageSource(name, class_names, identity, items, read)


def _column_of(features: dict, kind: type) -> str | None:
    """The first column of a kind of feature."""
    return next((column for column, feature in features.items() if isinstance(feature, kind)), None)


def _names_of(dataset, feature, column: str, name: str) -> list[str]:
    """The names of the classes in a column, in the order of their labels."""
    if isinstance(feature, datasets.ClassLabel):
        return list(feature.names)
    if not isinstance(dataset, datasets.Dataset):
        raise InputError(f"column {column!r} of {name} does not say its classes: cast it to a ClassLabel")
    values = sorted(value for value in dataset.unique(column) if value is not None)
    if values and all(isinstance(value, str) for value in values):
        return values
    if values and all(isinstance(value, int) and value >= 0 for value in values):
        return [str(number) for number in range(values[-1] + 1)]
    raise InputError(
        f"column {column!r} of {name} holds no classes: set label_column to one of whole numbers or names"
    )
