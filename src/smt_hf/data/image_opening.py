"""Opening any source of images: folders, arrays, Hub datasets and `datasets` objects."""

import os

import datasets

from ..errors import InputError
from . import source_kinds as kinds
from .documents import SAVED_SPLITS, describe, find_source
from .files import local_path
from .image_arrays import DIGITS, from_array_file, from_class_files, from_digits, load_array, split_arrays
from .image_datasets import SAVED, find_dataset, from_dataset
from .image_folders import IMAGES, files_of, from_folder, split_folders
from .image_source import ImageSource
from .source_kinds import SourceKind

EXPECTED = "an .npz, .npy or .parquet file, a folder of these or of images, or a Hub dataset id"


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
    """Return the images of one split of a dataset, without reading them yet.

    Args:
        source: one of
            - a folder of images, with one subfolder per class, inside folders named after splits if there are any. If there are
              class folders in both `sketch` and `photo`, as Sketchy is distributed, the photos are ignored with a warning;
            - an `.npz` file with `x` and `y`, or `x_train`, `y_train`, `x_test`, ..., and `classes`, the names of the classes;
              images are uint8, `(N, H, W)`, `(N, H, W, C)` or, if square, `(N, H x W)`;
            - a folder of `.npy` files, one per class, as QuickDraw's bitmaps are distributed;
            - a `.parquet` file, or a folder of them, with images as `datasets` writes them;
            - the id of a Hub dataset; a `Dataset`, an `IterableDataset`, or a dictionary of them by split;
            - `"digits"`, the 1,797 digits of 8 x 8 pixels that come with scikit-learn.
        split: the split to read.
        holdout: n, for a source without splits: one of every n images is in the split `"validation"`, the others are in
            `"train"`. 6 by default for `"digits"`.
        image_column: the column with the images; by default the one whose feature is `Image`.
        label_column: the column with the labels; by default the one whose feature is `ClassLabel`.
        config_name: the configuration of a Hub dataset that has several.
        streaming: read a Hub dataset while it downloads.

    Raises:
        InputError: for a source, split or column that does not exist or holds something else.
    """
    if holdout is not None and holdout < 2:
        raise InputError(f"holdout is {holdout}: pass 2 or more, since one in every holdout images is for validation")
    kind = image_kind(source)
    if holdout is not None and "holdout" not in kind.honours:
        raise InputError(
            f"holdout={holdout} is for sources without splits, but {describe(source)} has its own: leave it out"
        )
    if kind == kinds.DIGIT_IMAGES:
        return from_digits(split, holdout)
    path = local_path(source) if isinstance(source, (str, os.PathLike)) else None
    if kind in (kinds.IMAGE_FOLDER, kinds.IMAGE_FOLDERS):
        return from_folder(path, split, holdout)
    if kind == kinds.CLASS_ARRAYS:
        return from_class_files(path, split, holdout)
    if kind in (kinds.ARRAYS, kinds.SPLIT_ARRAYS):
        return from_array_file(path, split, holdout)
    found = find_dataset(path or source, split, config_name, streaming)
    return from_dataset(found, path or source, split, image_column, label_column, config_name)


def image_kind(source) -> SourceKind:
    """The kind of a source of images.

    Raises:
        InputError: for a file or folder that does not exist, or holds no images.
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
        files = files_of(path)
        suffixes = {file.suffix.lower() for file in files}
        if suffixes & set(IMAGES):
            return kinds.IMAGE_FOLDERS if split_folders(path, files) else kinds.IMAGE_FOLDER
        if ".npy" in suffixes:
            return kinds.CLASS_ARRAYS
    elif path.suffix.lower() == ".npz":
        with load_array(path) as file:
            return kinds.SPLIT_ARRAYS if split_arrays(file.files) else kinds.ARRAYS
    elif path.suffix.lower() == ".npy":
        return kinds.ARRAYS
    if ".parquet" not in suffixes:
        raise InputError(f"{str(path)!r} contains no images: pass {EXPECTED}")
    return kinds.IMAGE_ROWS
