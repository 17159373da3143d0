"""Images in a folder, with one subfolder per class."""

import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError, one_line
from .documents import describe
from .folders import say_once
from .image_source import ImageSource, held_out, no_split, split_name

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")


def files_of(folder: Path) -> list[Path]:
    """The files in a folder and its subfolders, without hidden ones."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _hidden(name)]
        found += [os.path.join(place, name) for name in names if not _hidden(name)]
    return sorted(Path(file) for file in found if os.path.isfile(file))


def _hidden(name: str) -> bool:
    return name.startswith((".", "__"))


def split_folders(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """The folder that holds the images of each split; empty unless all images are in such folders."""
    tops = {file.relative_to(folder).parts[0] for file in files if file.suffix.lower() in IMAGES}
    splits = {split_name(top): top for top in sorted(tops)}
    return {} if None in splits else splits


def from_folder(folder: Path, split: str, holdout: int | None) -> ImageSource:
    """Opens a folder of images that has one subfolder per class."""
    name, files = describe(folder), [file for file in files_of(folder) if file.suffix.lower() in IMAGES]
    splits = split_folders(folder, files)
    if splits:
        if split not in splits:
            raise no_split(name, split, splits)
        folder = folder / splits[split]
        files = [file for file in files if file.is_relative_to(folder)]
    parts = [file.relative_to(folder).parts[:-1] for file in files]
    above_classes = {part for path in parts for part in path[:-1]}
    if {"sketch", "photo"} <= above_classes:
        kept = [(file, path) for file, path in zip(files, parts, strict=True) if "sketch" in path[:-1]]
        say_once(
            f"{name} has classes in folders 'sketch' and 'photo', as Sketchy is distributed: the {len(kept):,} images in 'sketch' are read, "
            f"the other {len(files) - len(kept):,} are skipped"
        )
        files, parts = [file for file, _ in kept], [path for _, path in kept]
    class_names = sorted({path[-1] for path in parts if path}) or None
    if class_names and not all(parts):
        lone = next(file for file, path in zip(files, parts, strict=True) if not path)
        raise InputError(f"{str(lone)!r} is in no class folder, but other images are: move it into one")
    numbers, places = {}, []
    for path in parts:  # classes take turns, so that a part of the dataset has all of them
        label = class_names.index(path[-1]) if class_names else None
        numbers[label] = numbers.get(label, -1) + 1
        places.append((numbers[label], label))
    order = sorted(range(len(files)), key=lambda index: (places[index][0], places[index][1] or 0))
    chosen = [(files[index], places[index][1]) for index in order]
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file, _ in chosen]

    source = ImageSource(name, class_names, [stats], lambda: chosen, read_image)
    return source if splits else held_out(source, split, holdout)


def read_image(path: Path):
    """Reads the PIL image in a file.

    Raises:
        InputError: if the file holds none.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            return image
    except Exception as error:  # damaged files raise errors of every kind
        raise InputError(f"{str(path)!r} is not a readable image ({one_line(error)[:200]})") from error
