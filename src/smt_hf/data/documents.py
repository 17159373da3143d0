"""Reading the documents of a corpus one by one: text, JSON and Parquet files, folders, Hub datasets."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import datasets
from datasets.packaged_modules.text.text import TextConfig

from ..errors import InputError

DATASETS_LOADERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}
EXTENSIONS = (".txt", *DATASETS_LOADERS)
READ_CHARACTERS = 1 << 20
READ_ROWS = 1000


def iter_documents(
    source: str,
    *,
    split: str = "train",
    text_column: str = "text",
    config_name: str | None = None,
    streaming: bool = False,
    separator: str = "<|endoftext|>",
    max_documents: int | None = None,
) -> Iterator[str]:
    """Return an iterator over the documents of a corpus, in order, without holding the corpus in memory.

    Newlines at either end of a document are stripped, and empty documents are dropped.

    Args:
        source: a `.txt`, `.jsonl`, `.json` or `.parquet` file, a folder of these or one written by `save_to_disk`,
            or the id of a Hub dataset.
        split: the split of a folder or a Hub dataset; a single file has no splits and is read whole.
        text_column: the column that holds the text (all but `.txt`).
        config_name: the configuration of the dataset, where it has several.
        streaming: read a Hub dataset while it downloads instead of downloading it first.
        separator: what stands between the documents of a `.txt` file; a file without it is one document.
        max_documents: stop after this many documents.

    Raises:
        InputError: at the call, for a source, split or column that is not there or a Hub that cannot be reached;
            on iteration, for contents that cannot be read or hold no document.
    """
    if not separator:
        raise InputError("separator is empty: give the text that stands between documents, or leave it out")
    if max_documents is not None and max_documents < 1:
        raise InputError(f"max_documents is {max_documents}: give 1 or more, or None for all")
    path = Path(source).expanduser()
    if path.is_file():
        if path.suffix == ".txt":
            texts = _text_documents(path, separator)
        elif path.suffix in DATASETS_LOADERS:
            if not path.stat().st_size:
                raise InputError(f"{source!r} is empty: give a file that holds documents")
            loader, files = DATASETS_LOADERS[path.suffix], {"train": str(path)}
            dataset = _load(source, datasets.load_dataset, loader, data_files=files, split="train", streaming=True)
            texts = _column(dataset, text_column, source)
        else:
            raise InputError(f"{source!r} has the extension {path.suffix!r}: give one of {', '.join(EXTENSIONS)}")
    elif path.is_dir() and ((path / "dataset_dict.json").exists() or (path / "state.json").exists()):
        texts = _column(_saved_split(path, split, source), text_column, source)
    elif path.is_dir() and (text_files := _text_files(path, split, config_name, source)):
        texts = itertools.chain.from_iterable(_text_documents(Path(file), separator) for file in text_files)
    elif not path.is_dir() and (path.suffix in EXTENSIONS or path.is_absolute() or source.count("/") > 1):
        raise InputError(
            f"there is no file or folder {source!r} here: mend the path (a Hub dataset id is 'owner/name')"
        )
    else:
        options = {"name": config_name, "split": split, "streaming": streaming}
        texts = _column(_load(source, datasets.load_dataset, str(path), **options), text_column, source)
    return _documents(texts, source, max_documents)


def _documents(texts: Iterable[str | None], source: str, max_documents: int | None) -> Iterator[str]:
    stripped = (text.strip("\r\n") for text in texts if text)
    documents = itertools.islice(filter(None, stripped), max_documents)
    first = next(documents, None)
    if first is None:
        raise InputError(f"{source!r} holds no documents: every text in it is empty")
    yield first
    yield from documents


def _text_documents(path: Path, separator: str) -> Iterator[str]:
    """Split a text file at the separator, reading a piece at a time."""
    pieces, tail = [], ""  # of the document being read: what is done with, and what may hold half a separator
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            while text := file.read(READ_CHARACTERS):
                *ended, rest = (tail + text).split(separator)
                for last_piece in ended:
                    yield "".join([*pieces, last_piece])
                    pieces = []
                cut = max(len(rest) - len(separator) + 1, 0)
                pieces.append(rest[:cut])
                tail = rest[cut:]
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise InputError(
            f"{str(path)!r} is not UTF-8 (byte {byte:#04x}): convert it, for example with iconv"
        ) from error
    yield "".join([*pieces, tail])


def _text_files(path: Path, split: str, config_name: str | None, source: str) -> list[str]:
    """The `.txt` files of a folder's split, as `datasets` assigns files to splits; none if it holds another format."""
    config = _load(source, datasets.load_dataset_builder, str(path), name=config_name).config
    if not isinstance(config, TextConfig) or not config.data_files:
        return []
    return list(_split_of(config.data_files, split, source))


def _saved_split(path: Path, split: str, source: str) -> datasets.Dataset:
    saved = _load(source, datasets.load_from_disk, str(path))
    return _split_of(saved, split, source) if isinstance(saved, dict) else saved  # else one split, saved by itself


def _split_of(splits: dict, split: str, source: str):
    if split not in splits:
        raise InputError(f"{source!r} has no split {split!r}: give one of {', '.join(map(str, splits))}")
    return splits[split]


def _load(source: str, load: Callable, *arguments, **options):
    try:
        return load(*arguments, **options)
    except (OSError, ValueError, datasets.exceptions.DatasetGenerationError) as error:
        raise _load_error(source, error) from error


def _load_error(source: str, error: Exception) -> InputError:
    reason = " ".join(str(error.__cause__ or error).split())[:300]
    if isinstance(error, ConnectionError):
        mend = "the Hub cannot be reached; go online or give a local file or folder"
    elif Path(source).expanduser().exists():
        mend = "check its contents, split and config_name"
    else:
        mend = "check its id, split and config_name, or give the path of a local file or folder"
    return InputError(f"cannot load {source!r}: {mend} ({reason})")


def _column(dataset: datasets.Dataset | datasets.IterableDataset, text_column: str, source: str) -> Iterator[str]:
    """The texts of a column; the column is checked at the call."""
    names = dataset.column_names or list(_load(source, next, iter(dataset), {}))
    if names and text_column not in names:
        raise InputError(f"{source!r} has no column {text_column!r}: set text_column to one of {', '.join(names)}")
    batches = dataset.select_columns([text_column]).iter(batch_size=READ_ROWS) if names else iter(())
    rows = iter(lambda: _load(source, next, batches, None), None)
    return itertools.chain.from_iterable(_strings(row[text_column], text_column, source) for row in rows)


def _strings(texts: list, text_column: str, source: str) -> list[str]:
    for text in texts:
        if text is not None and not isinstance(text, str):
            kind = type(text).__name__
            raise InputError(f"{source!r} holds {kind} in column {text_column!r}: give a column of strings")
    return texts
