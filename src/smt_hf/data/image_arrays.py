"""Images in numpy arrays: `.npz` and `.npy` files, and the digits of scikit-learn."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..errors import InputError, one_line
from .documents import describe
from .image_folders import files_of
from .image_source import ImageSource, held_out, no_split, split_name

DIGITS = "digits"  # the 8 x 8 digits that come with scikit-learn


def from_digits(split: str, holdout: int | None) -> ImageSource:
    """The 1,797 digits of 8 x 8 pixels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError(
            f"'digits' come with scikit-learn ({one_line(error)}): pip install 'smt-hf[pixels]'"
        ) from error
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    names = [str(name) for name in digits.target_names]
    return held_out(_from_arrays(DIGITS, images, digits.target, names, ["scikit-learn"]), split, holdout or 6)


def from_array_file(path: Path, split: str, holdout: int | None) -> ImageSource:
    if path.suffix.lower() == ".npy":
        return held_out(_from_arrays(describe(path), load_array(path), None, None, _state([path])), split, holdout)
    with load_array(path) as file:
        keys, splits = file.files, split_arrays(file.files)
        if "x" not in keys and not splits:
            raise InputError(
                f"{str(path)!r} has the arrays {', '.join(keys) or 'none'}: name the images x, or x_train"
            )
        if splits and split not in splits:
            raise no_split(describe(path), split, splits)
        x, y = splits.get(split, ("x", "y"))
        with _reading(path):
            names = [str(name) for name in file["classes"]] if "classes" in keys else None
            images, labels = file[x], file[y] if y in keys else None
        source = _from_arrays(describe(path), images, labels, names, [*_state([path]), split])
    return source if splits else held_out(source, split, holdout)


def split_arrays(keys: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The names of the images and the labels of each split in an `.npz` file."""
    parts = {key: key.partition("_") for key in keys}
    return {split_name(rest) or rest: (key, f"y_{rest}") for key, (x, _, rest) in parts.items() if x == "x" and rest}


def from_class_files(folder: Path, split: str, holdout: int | None) -> ImageSource:
    """Images in `.npy` files, one per class; classes take turns, so that a part of the dataset has all of them."""
    files = [file for file in files_of(folder) if file.suffix.lower() == ".npy"]
    arrays = [_images_of(describe(file), load_array(file)) for file in files]
    names = [file.stem.removeprefix("full_numpy_bitmap_") for file in files]

    def items():
        for index in range(max(map(len, arrays))):
            for label, array in enumerate(arrays):
                if index < len(array):
                    yield array[index], label

    return held_out(ImageSource(describe(folder), names, _state(files), items), split, holdout)


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
                f"{name} has the label {labels.max()} but only {len(class_names)} class names: name every class"
            )
    else:
        class_names = None

    def items():
        for index, image in enumerate(images):
            yield image, None if labels is None else int(labels[index])

    return ImageSource(name, class_names, identity, items)


def _images_of(name: str, array: np.ndarray) -> np.ndarray:
    """An array of images; flat images are made square.

    Raises:
        InputError: for another shape or type.
    """
    if array.ndim == 2 and array.dtype == np.uint8 and (side := int(np.sqrt(array.shape[1]))) ** 2 == array.shape[1]:
        array = array.reshape(-1, side, side)
    if array.ndim not in (3, 4) or array.dtype != np.uint8 or not array.size:
        raise InputError(
            f"{name} contains an array of shape {array.shape} and type {array.dtype}: images must be uint8, (N, H, W)"
        )
    return array


def load_array(path: Path):
    with _reading(path):
        return np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix.lower() == ".npy" else None)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns an error in reading arrays into an [`InputError`] of one line."""
    try:
        yield
    except Exception as error:  # damaged files raise errors of every kind
        reason = one_line(error)[:200]
        if "pickle" in reason or "Python objects" in reason:  # numpy would advise running the code in the file
            reason = "it contains something other than arrays of numbers or text"
        raise InputError(f"{str(path)!r} cannot be read ({reason}): check that it is complete") from error


def _state(files: Sequence[Path]) -> list:
    return [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
