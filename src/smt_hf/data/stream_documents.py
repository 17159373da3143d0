"""A corpus that is read as a stream: its shards, and the documents of one reader as token ids, pass after pass."""

import os
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
from transformers import PreTrainedTokenizerBase

from ..errors import InputError
from .documents import SEPARATOR, describe, find_source, load_dataset
from .encoding import encode_documents
from .files import file_texts, row_texts

FILE_COLUMN = "text"  # column of the rows that are read from files
DATASET_SHARDS = 64  # most shards that a `Dataset` is cut into
CHUNK_CHARACTERS = 1 << 16  # of the documents that are encoded at once
CHUNK_DOCUMENTS = 1_000


def open_shards(
    source: str | os.PathLike | datasets.Dataset | datasets.IterableDataset | datasets.DatasetDict,
    *,
    split: str = "train",
    text_column: str = "text",
    config_name: str | None = None,
    separator: str = SEPARATOR,
    max_documents: int | None = None,
) -> tuple[datasets.IterableDataset, str]:
    """Open a corpus to read as a stream, from the Hub or from files, without a cache.

    Every file is a shard, whether local or on the Hub; a `Dataset` is cut into shards.

    Args:
        source, split, text_column, config_name, separator: as in [`iter_documents`].
        max_documents: read at most this many rows, an equal share of every shard.

    Returns:
        The dataset, and the name of its column of texts.

    Raises:
        InputError: for a source, split or column that does not exist, and a source without rows.
    """
    found, name = find_source(source, split, config_name), describe(source)
    if isinstance(found, list):
        files = {"files": found, "column": text_column, "separator": separator}
        dataset, text_column = datasets.IterableDataset.from_generator(file_rows, gen_kwargs=files), FILE_COLUMN
    elif isinstance(found, str):
        dataset = load_dataset(found, datasets.load_dataset, found, name=config_name, split=split, streaming=True)
    elif isinstance(found, datasets.Dataset) and len(found):
        dataset = found.with_format(None).to_iterable_dataset(num_shards=min(len(found), DATASET_SHARDS))
    else:
        dataset = found.with_format(None)
    rows = iter(()) if isinstance(dataset, datasets.Dataset) else dataset.iter(batch_size=1)
    first = next(rows, None) if isinstance(found, list) else load_dataset(source, next, rows, None)
    if first is None:
        raise InputError(f"{name} contains no documents: pass a source with text")
    if text_column not in first:
        raise InputError(f"{name} has no column {text_column!r}: set text_column to one of {', '.join(first)}")
    return dataset if max_documents is None else dataset.take(max_documents), text_column


def file_rows(files: list[Path], column: str, separator: str) -> Iterator[dict[str, str | None]]:
    """The texts of files, one after another, as rows."""
    for file in files:
        for text in file_texts(file, column, separator):
            yield {FILE_COLUMN: text}


class DocumentReader:
    """The documents of one of several readers as token ids, without end: every pass has a new order of shards.

    Readers divide the shards among themselves. If there are more readers than shards, several read one shard and each encodes
    its share of the documents. In one pass, a reader gives every document of its share once.

    Args:
        dataset: from [`open_shards`].
        column: column of the texts.
        tokenizer: one with an eos token, which ends each document.
        reader: number of this reader.
        num_readers: number of readers.
        seed: seed of the order of the shards.
    """

    def __init__(
        self,
        dataset: datasets.IterableDataset,
        column: str,
        tokenizer: PreTrainedTokenizerBase,
        reader: int = 0,
        num_readers: int = 1,
        seed: int = 0,
    ):
        self.column = column
        self.tokenizer = tokenizer
        self.reader = reader
        self.num_readers = num_readers
        self.seed = seed
        self._dataset, self._place, self._of = _share(dataset, reader, num_readers)
        self._open({"pass": 0, "turn": 0, "number": 0, "rows": None})
        self._chunk_at = self._at()
        self._chunk, self._given = [], 0

    def next(self) -> np.ndarray:
        """The ids of the next document, its eos token last.

        Raises:
            InputError: for texts that cannot be read, and if the reader finds none in a whole pass.
        """
        if self._given == len(self._chunk):
            self._chunk_at, self._given = self._at(), 0
            self._chunk = self._read_chunk()
        self._given += 1
        return self._chunk[self._given - 1]

    def state(self) -> dict:
        """Where the reader is, JSON-ready: where its chunk of encoded documents begins, and how many of them it has given."""
        return {"chunk": self._chunk_at, "given": self._given}

    def load(self, state: dict) -> None:
        """Continues from a state of the same reader of the same corpus."""
        self._chunk_at, self._given = state["chunk"], state["given"]
        self._open(self._chunk_at)
        self._chunk = self._read_chunk() if self._given else []

    # ---- rows of one shard after another ---------------------------------------------------------------------------

    def _open(self, at: dict) -> None:
        """Opens the shard whose turn it is, after the rows that `at` has seen."""
        self._pass, self._turn, self._number = at["pass"], at["turn"], at["number"]
        num_shards = self._dataset.num_shards
        key = np.random.SeedSequence((self.seed, self._pass, self.reader))
        order = np.random.Generator(np.random.PCG64(key)).permutation(num_shards)
        self._shard = self._dataset.shard(num_shards=num_shards, index=int(order[self._turn]))
        if at["rows"] is not None:
            self._shard.load_state_dict(at["rows"])
        self._rows_at = at["rows"]
        self._rows = self._shard.iter(batch_size=1)  # unlike `iter`, not split again by a data loader's worker

    def _at(self) -> dict:
        return {"pass": self._pass, "turn": self._turn, "number": self._number, "rows": self._rows_at}

    def _next_shard(self) -> None:
        turn, later = (self._turn + 1) % self._dataset.num_shards, self._pass
        self._open({"pass": later + (turn == 0), "turn": turn, "number": 0, "rows": None})

    def _read_chunk(self) -> list[np.ndarray]:
        """The documents of one chunk, which ends with its shard."""
        texts, characters, empty = [], 0, 0
        while not texts:
            for text in self._texts():
                texts.append(text)
                characters += len(text)
                if characters >= CHUNK_CHARACTERS or len(texts) >= CHUNK_DOCUMENTS:
                    self._rows_at = self._shard.state_dict()
                    break
            else:
                self._next_shard()
                empty += 1
                if not texts and empty > self._dataset.num_shards:
                    raise InputError(
                        f"reader {self.reader + 1} of {self.num_readers} finds no document in its share of the text: lower "
                        "num_readers, or use more text"
                    )
        ids, lengths, _ = encode_documents(texts, self.tokenizer)
        return np.split(ids, np.cumsum(lengths)[:-1])

    def _texts(self) -> Iterator[str]:
        """The documents of this reader's share in the rest of the shard."""
        rows = (("a row", {name: values[0] for name, values in row.items()}) for row in self._rows)
        for text in row_texts(rows, self.column, "the text"):
            text = text.strip("\r\n") if text else ""
            if text:
                self._number += 1
                if self._number % self._of == self._place:
                    yield text


def _share(
    dataset: datasets.IterableDataset, reader: int, num_readers: int
) -> tuple[datasets.IterableDataset, int, int]:
    """The shards of a reader, and `(place, of)`: it takes the documents whose number modulo `of` is `place`."""
    num_shards = dataset.num_shards
    if num_readers <= num_shards:
        return dataset.shard(num_shards=num_readers, index=reader), 0, 1
    shard = dataset.shard(num_shards=num_shards, index=reader % num_shards)
    return shard, reader // num_shards, len(range(reader % num_shards, num_readers, num_shards))
