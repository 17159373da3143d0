"""Reading the documents of a corpus one by one: from files, folders, Hub datasets and `datasets` objects."""

import functools
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import datasets

from ..errors import InputError, one_line
from .files import EXPECTED, FORMATS, OPENERS, READ_ROWS, TEXT, file_texts, local_path, row_texts
from .folders import folder_files
from .shards import Shard

SPLITS = (datasets.DatasetDict, datasets.IterableDatasetDict)
DATASETS = (datasets.Dataset, datasets.IterableDataset)
SEPARATOR = "<|endoftext|>"
SAVED_SPLITS = "dataset_dict.json"  # what `save_to_disk` writes for several splits
SAVES = (SAVED_SPLITS,), ("state.json", "dataset_info.json")


def iter_documents(
    source: str | os.PathLike | datasets.Dataset | datasets.IterableDataset | datasets.DatasetDict,
    *,
    split: str = "train",
    text_column: str = "text",
    config_name: str | None = None,
    streaming: bool = False,
    separator: str = SEPARATOR,
    max_documents: int | None = None,
    shard: Shard | None = None,
) -> Iterator[str]:
    """Return an iterator over the documents of a corpus, in order, without holding the corpus in memory.

    Newlines at either end of a document are stripped, and empty and null documents are dropped; everything else is read
    as it is or refused. Only a `.json` file that is not JSON lines is held in memory.

    Args:
        source: one of
            - a `.txt`, `.jsonl`, `.json` (an array or lines) or `.parquet` file; all but the last may be compressed
              (`.gz`, `.bz2`, `.xz`, `.zst`);
            - a folder of these, see [`folder_files`], or one written by `save_to_disk`;
            - the id of a Hub dataset;
            - a `Dataset`, an `IterableDataset`, or a dictionary of them by split.
        split: the split of a folder, a Hub dataset or a dictionary; a file or a `Dataset` is read whole.
        text_column: the column that holds the text (all but `.txt`), the only one that is read.
        config_name: the configuration of a folder or Hub dataset that has several.
        streaming: read a Hub dataset while it downloads instead of downloading it first.
        separator: the text between the documents of a `.txt` file; a file without it is one document.
        max_documents: stop after this many documents.
        shard: read only this part; the parts one after another are the whole corpus. If there are at least as many files, or
            rows of a `Dataset`, as shards, and no `max_documents`, a part is made of whole files or rows, and the others are
            not read. Otherwise the documents are counted first, then read again up to the end of the part.

    Raises:
        InputError: at the call, for a source, split or column that does not exist, a Hub that cannot be reached, and
            a source without documents, or with fewer documents than shards; on iteration, for contents that cannot be read, naming
            the file and the row.
    """
    if not separator:
        raise InputError("separator is empty: pass the text between documents, or leave it out")
    if max_documents is not None and (not isinstance(max_documents, int) or max_documents < 1):
        raise InputError(
            f"max_documents is {max_documents}: pass a whole number of 1 or more, or leave it out for all"
        )
    found = find_source(source, split, config_name)
    if isinstance(found, str):
        found = load_dataset(found, datasets.load_dataset, found, name=config_name, split=split, streaming=streaming)
    texts = functools.partial(_texts, text_column=text_column, separator=separator, source=source)
    if shard is None:
        return itertools.islice(_documents(texts(found), source), max_documents)
    if max_documents is None and (pieces := _num_pieces(found)) >= shard.num_shards:
        place = shard.part(pieces)
        if isinstance(found, list):
            return _without_empty(texts(found[place]))
        part = found.shard(num_shards=shard.num_shards, index=shard.index, contiguous=True)
        return _without_empty(texts(part, first_row=place.start + 1 if isinstance(found, datasets.Dataset) else 1))
    number = sum(1 for _ in itertools.islice(_without_empty(texts(found)), max_documents))
    place = shard.part_of_all(number, describe(source), "documents")
    return itertools.islice(_without_empty(texts(found)), place.start, place.stop)


def _num_pieces(found: list[Path] | datasets.Dataset | datasets.IterableDataset) -> int:
    """The number of files or rows of a source that can be read without the others."""
    return found.num_shards if isinstance(found, datasets.IterableDataset) else len(found)


def iter_text_file(path: str | os.PathLike, *, text_column: str = "text", separator: str = SEPARATOR) -> Iterator[str]:
    """Return an iterator over the documents of one file, read as in [`iter_documents`]; a file of any other name is text.

    Raises:
        InputError: at the call, for a file that does not exist or contains no documents; on iteration, for contents that
            cannot be read.
    """
    file = local_path(path)
    if file is None or file.is_dir():
        raise InputError(f"there is no file {str(path)!r}: check the path")
    return _documents(file_texts(file, text_column, separator, default=TEXT), path)


def _texts(
    found: list[Path] | datasets.Dataset | datasets.IterableDataset, text_column, separator, source, first_row: int = 1
) -> Iterator[str | None]:
    """The texts of files or rows; those of a dataset are counted from `first_row` in messages."""
    if isinstance(found, DATASETS):
        return _column(found, text_column, source, first_row)
    return itertools.chain.from_iterable(file_texts(file, text_column, separator) for file in found)


def _documents(texts: Iterable[str | None], source) -> Iterator[str]:
    """The documents among texts; the first is read at the call, to make sure that there is one."""
    documents = _without_empty(texts)
    first = next(documents, None)
    if first is None:
        raise InputError(f"{describe(source)} contains no documents: every text in it is empty")
    return itertools.chain([first], documents)


def _without_empty(texts: Iterable[str | None]) -> Iterator[str]:
    """The texts without newlines at either end; empty and null ones are dropped."""
    return filter(None, (text.strip("\r\n") for text in texts if text))


def find_source(source, split: str, config_name: str | None) -> list[Path] | datasets.Dataset | str:
    """What a source stands for: the files to read, in order, a dataset, or the id of one on the Hub.

    Raises:
        InputError: as `iter_documents` does at the call.
    """
    if isinstance(source, SPLITS):
        return split_of(source, split, source)
    if isinstance(source, DATASETS):
        return source
    if not isinstance(source, (str, os.PathLike)) or not str(source):
        raise InputError(f"{source!r} is not a data source: pass a path, the id of a Hub dataset, or a Dataset")
    path = local_path(source)
    if path is None:
        if isinstance(source, os.PathLike) or _is_path(source):
            raise InputError(
                f"there is no file or folder {str(source)!r}: check the path (a Hub dataset id is 'owner/name')"
            )
        return source
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{str(source)!r} is neither a file nor a folder: pass {EXPECTED}, or a folder of these")
    if any(all((path / name).exists() for name in names) for names in SAVES):
        saved = load_dataset(source, datasets.load_from_disk, str(path))
        return split_of(saved, split, source) if isinstance(saved, dict) else saved  # else one split, saved by itself
    return folder_files(path, split, config_name)


def _is_path(name: str) -> bool:
    """Whether a name that is not a file or folder was meant to be one."""
    return (
        name.startswith(("/", ".", "~"))
        or name.endswith(("/", *FORMATS, *filter(None, OPENERS)))
        or os.path.isabs(name)
        or name.count("/") > 1
    )


def describe(source) -> str:
    """How error messages name a source: its name in quotes, or its type."""
    return repr(str(source)) if isinstance(source, (str, os.PathLike)) else f"the given {type(source).__name__}"


def split_of(splits: dict, split: str, source):
    """One of several splits; raises as [`iter_documents`] does for one that does not exist."""
    if split not in splits:
        raise InputError(f"{describe(source)} has no split {split!r}: choose one of {', '.join(map(str, splits))}")
    return splits[split]


def load_dataset(source, load, *arguments, **options):
    """Calls a function of `datasets`, and turns an error of any type into an [`InputError`] of one line."""
    try:
        return load(*arguments, **options)
    except Exception as error:
        reason = one_line(error.__cause__ or error)[:300]
        if isinstance(error, ConnectionError):
            remedy = "the Hub cannot be reached; go online or pass a local file or folder"
        elif not isinstance(source, str) or local_path(source) is not None:
            remedy = "check its contents, split and config_name"
        else:
            remedy = "check its id, split and config_name, or pass the path of a local file or folder"
        raise InputError(f"cannot load {describe(source)}: {remedy} ({reason})") from error


def _column(
    dataset: datasets.Dataset | datasets.IterableDataset, text_column: str, source, first_row: int
) -> Iterator[str | None]:
    """The texts of a column; the column is checked at the call."""
    dataset, name = dataset.with_format(None), describe(source)
    names = dataset.column_names or list(load_dataset(source, next, iter(dataset), {}))
    if names and text_column not in names:
        raise InputError(f"{name} has no column {text_column!r}: set text_column to one of {', '.join(names)}")
    batches = dataset.select_columns([text_column]).iter(batch_size=READ_ROWS) if names else iter(())
    loaded = iter(lambda: load_dataset(source, next, batches, None), None)
    texts = itertools.chain.from_iterable(batch[text_column] for batch in loaded)
    rows = ((f"row {number}", {text_column: text}) for number, text in enumerate(texts, first_row))
    return row_texts(rows, text_column, name)
