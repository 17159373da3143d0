"""Windows of a corpus that is too large for any disk: read, encoded, packed and shuffled on the way to the training."""

import copy
import os
from collections.abc import Iterator

import datasets
import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ..errors import InputError
from ..utils.digests import value_digest
from .documents import SEPARATOR, find_source
from .encoding import check_eos_token
from .stream_documents import DocumentReader, open_shards
from .stream_packing import RunningRows, Shuffled, Windows
from .tokenizer import tokenizer_content


class TextStream(torch.utils.data.IterableDataset):
    """A stream of windows without end, from a corpus that is never held in memory or on disk.

    Several readers divide its shards among themselves (see [`DocumentReader`]). Each packs its documents one after another
    into windows and gives them out in the order of a shuffled buffer. What a training reads depends on the readers, not on the
    processes and workers that run them. The items are those of [`TokenWindows`]: `{"input_ids", "documents"}`, both
    `(window_length,)`. Iterated by itself, the stream has one reader.

    Args:
        source: as in [`open_shards`]: files, a folder, a Hub dataset, a `Dataset` or an `IterableDataset`.
        tokenizer: one with an eos token.
        window_length: tokens of a window.
        seed: seed of the orders, 0 or more.
        num_readers: readers in a training: a multiple of its processes times their workers, and a divisor of the rows of a step.
        shuffle_buffer_size: windows (documents, for running text) that each reader shuffles; 1 for no shuffling.
        **options: `split`, `text_column`, `config_name`, `separator` and `max_documents` of [`open_shards`].

    Raises:
        InputError: as [`open_shards`] does, and for numbers out of range.
    """

    def __init__(
        self,
        source: str | os.PathLike | datasets.Dataset | datasets.IterableDataset | datasets.DatasetDict,
        tokenizer: PreTrainedTokenizerBase,
        window_length: int,
        *,
        seed: int = 0,
        num_readers: int = 1,
        shuffle_buffer_size: int = 1024,
        **options,
    ):
        check_eos_token(tokenizer)
        least = {"window_length": 1, "seed": 0, "num_readers": 1, "shuffle_buffer_size": 1}
        for name, value in zip(least, (window_length, seed, num_readers, shuffle_buffer_size), strict=True):
            if value < least[name]:
                raise InputError(f"{name} is {value}: pass {least[name]} or more")
        self.dataset, self.column = open_shards(source, **options)
        self.tokenizer = tokenizer
        self.window_length = window_length
        self.seed = seed
        self.num_readers = num_readers
        self.shuffle_buffer_size = shuffle_buffer_size
        self.running = False
        self._source = _identity(source, self.dataset, tokenizer, options)

    def as_running_text(self, segment_length: int) -> "TextStream":
        """The same corpus for BPTT with carried memory: rows continue where they stopped, see [`RunningRows`]."""
        stream = copy.copy(self)
        stream.running, stream.window_length = True, segment_length
        return stream

    def identity(self) -> dict:
        """Identifies this stream, for a resumed training to compare."""
        names = ("window_length", "seed", "num_readers", "shuffle_buffer_size", "running")
        return {"kind": "TextStream", **self._source, **{name: getattr(self, name) for name in names}}

    def reader(self, number: int, num_rows: int) -> "RowReader":
        """One of the readers.

        Args:
            number: in `range(num_readers)`.
            num_rows: rows that it gives to every step.
        """
        return RowReader(self, number, num_rows)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        alone = copy.copy(self)
        alone.num_readers = 1
        reader = RowReader(alone, 0, 1)
        while True:
            yield {name: values[0] for name, values in reader.next().items()}


class RowReader:
    """The rows that one reader gives to every optimiser step, as tensors `(num_rows, ...)`; it can continue from a state."""

    def __init__(self, stream: TextStream, number: int, num_rows: int):
        documents = DocumentReader(
            stream.dataset, stream.column, stream.tokenizer, number, stream.num_readers, stream.seed
        )
        self.running, self.num_rows = stream.running, num_rows
        size, key = stream.shuffle_buffer_size, (stream.seed, number, 1)
        if stream.running:
            shuffled = Shuffled(documents, size, key) if size > 1 else documents
            self.stage = RunningRows(shuffled, num_rows, stream.window_length)
        else:
            windows = Windows(documents, stream.window_length)
            self.stage = Shuffled(windows, size, key) if size > 1 else windows

    def next(self) -> dict[str, torch.Tensor]:
        if self.running:
            columns = self.stage.next()
        else:
            columns = map(np.stack, zip(*(self.stage.next() for _ in range(self.num_rows)), strict=True))
        names = ("input_ids", "documents", "continued")
        return {name: torch.from_numpy(column) for name, column in zip(names, columns, strict=False)}

    def state(self) -> dict:
        return self.stage.state()

    def load(self, state: dict) -> None:
        self.stage.load(state)


def _identity(source, dataset: datasets.IterableDataset, tokenizer, options: dict) -> dict:
    """What is read, as JSON-ready values: files by name and size, a Hub dataset by its id, a `Dataset` by its fingerprint, an
    `IterableDataset` by its number of shards."""
    named = {
        "split": "train",
        "config_name": None,
        "text_column": "text",
        "separator": SEPARATOR,
        "max_documents": None,
    }
    named |= options
    found = find_source(source, named["split"], named["config_name"])
    if isinstance(found, list):
        found = [[file.name, file.stat().st_size] for file in found]
    elif not isinstance(found, str):
        found = getattr(found, "_fingerprint", None)
    vocabulary = [tokenizer_content(tokenizer), tokenizer.eos_token_id, len(tokenizer)]
    return {"text": value_digest([found, dataset.num_shards, named]), "tokenizer": value_digest(vocabulary)}
