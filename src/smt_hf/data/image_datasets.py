"""Images in the rows of a dataset: on the Hub, saved, in `.parquet` files, or given as an object of `datasets`."""

from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np

from ..errors import InputError
from .documents import SAVED_SPLITS, describe, find_source, load_dataset, split_of
from .image_source import ImageSource

SAVED = (SAVED_SPLITS, "state.json")  # what `save_to_disk` writes


def find_dataset(source, split: str, config_name: str | None, streaming: bool):
    """The `Dataset` or `IterableDataset` that a source stands for."""
    if isinstance(source, Path) and source.exists():
        if source.is_file() or not any((source / name).exists() for name in SAVED):
            place = {"data_files": str(source)} if source.is_file() else {"data_dir": str(source)}
            return split_of(load_dataset(source, datasets.load_dataset, "parquet", **place), split, source)
    found = find_source(source, split, config_name)
    if isinstance(found, str):
        found = load_dataset(found, datasets.load_dataset, found, name=config_name, split=split, streaming=streaming)
    return found


def from_dataset(
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
    """The first column with this type of feature."""
    return next((column for column, feature in features.items() if isinstance(feature, kind)), None)


def _names_of(dataset, feature, column: str, name: str) -> list[str]:
    """The names of the classes in a column, in the order of their labels."""
    if isinstance(feature, datasets.ClassLabel):
        return list(feature.names)
    if not isinstance(dataset, datasets.Dataset):
        raise InputError(f"column {column!r} of {name} does not name its classes: cast it to a ClassLabel")
    values = sorted(value for value in dataset.unique(column) if value is not None)
    if values and all(isinstance(value, str) for value in values):
        return values
    if values and all(isinstance(value, int) and value >= 0 for value in values):
        return [str(number) for number in range(values[-1] + 1)]
    raise InputError(
        f"column {column!r} of {name} contains no classes: set label_column to a column of whole numbers or names"
    )
