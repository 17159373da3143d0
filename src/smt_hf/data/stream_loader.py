"""The batches of a [`TextStream`] for a training: divided among processes and workers, and resumed exactly."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate.utils import gather_object
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ..errors import InputError
from .text_stream import TextStream

STREAM_FILE = "text_stream.json"
STATE_EVERY = 64  # steps between two states of the readers; a resumed training reads at most that many again


class ReaderSteps(IterableDataset):
    """The rows of some readers for every optimiser step and, every `STATE_EVERY` steps, the states of the readers before them.

    Args:
        stream: the corpus.
        readers: the numbers of a process's readers, of which a worker takes an equal share.
        num_rows: rows of one reader in a step.
        states: states of these readers to continue from.
        skipped: number of steps to skip from there.
    """

    def __init__(self, stream: TextStream, readers: range, num_rows: int, states: list | None, skipped: int):
        self.stream, self.readers, self.num_rows = stream, readers, num_rows
        self.states, self.skipped = states, skipped

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], list | None]]:
        worker = get_worker_info()
        number, of = (0, 1) if worker is None else (worker.id, worker.num_workers)
        share = len(self.readers) // of
        places = range(number * share, (number + 1) * share)
        readers = [self.stream.reader(self.readers[place], self.num_rows) for place in places]
        if self.states is not None:
            for place, reader in zip(places, readers, strict=True):
                reader.load(self.states[place])
        step = 0
        while True:
            states = None
            if (step - self.skipped) % STATE_EVERY == 0 and step >= self.skipped:
                states = [reader.state() for reader in readers]
            rows = [reader.next() for reader in readers]
            if step >= self.skipped:
                yield {name: torch.cat([each[name] for each in rows]) for name in rows[0]}, states
            step += 1


class StreamBatches(IterableDataset):
    """The micro-batches of one process, without end.

    The rows of a step are those of reader 0, then of reader 1, and so on. The processes take equal parts of them; each
    part is cut into the accumulated micro-batches.

    Args:
        stream: the corpus.
        batch_size: rows of a micro-batch in one process.
        num_batches: micro-batches of a step in one process.
        process: number of this process.
        num_processes: number of processes.
        num_workers: workers of each process; 0 reads in the process itself.
        **loading: further options of the `DataLoader` that runs the workers.

    Raises:
        InputError: if readers cannot be divided equally among processes and workers, or the rows of a step among readers.
    """

    def __init__(
        self,
        stream: TextStream,
        batch_size: int,
        num_batches: int = 1,
        process: int = 0,
        num_processes: int = 1,
        num_workers: int = 0,
        **loading,
    ):
        self.stream, self.batch_size, self.num_batches = stream, batch_size, num_batches
        self.num_workers, self.loading = num_workers, loading
        rows, at_once = batch_size * num_batches * num_processes, num_processes * max(num_workers, 1)
        if stream.num_readers % at_once:
            raise InputError(
                f"num_readers={stream.num_readers} is not a multiple of the {at_once} processes and workers that read: pass "
                f"num_readers={at_once}, or lower dataloader_num_workers"
            )
        if rows % stream.num_readers:
            raise InputError(
                f"num_readers={stream.num_readers} does not divide the {rows} rows of a step: choose another number, or another "
                "batch size"
            )
        share = stream.num_readers // num_processes
        self.readers = range(process * share, (process + 1) * share)
        self.num_rows = rows // stream.num_readers
        self._states, self._since, self._skipped, self._batches = None, 0, 0, 0

    def go_on(self, folder: str | Path, num_steps: int) -> None:
        """Makes the next iteration continue from a checkpoint.

        Args:
            folder: folder of the checkpoint.
            num_steps: optimiser steps before the checkpoint. transformers skips their batches when it iterates; these are given
                empty, without being read.

        Raises:
            InputError: if the checkpoint holds no state of a stream.
        """
        file = Path(folder) / STREAM_FILE
        if not file.is_file():
            raise InputError(f"{str(folder)!r} has no {STREAM_FILE}: resume without streaming, as it was saved")
        saved = json.loads(file.read_text(encoding="utf-8"))
        self._states = [saved["readers"][number] for number in self.readers]
        self._since, self._skipped = saved["steps"], num_steps * self.num_batches

    def save(self, folder: str | Path, is_main_process: bool) -> None:
        """Writes where all readers are after the last whole step to a checkpoint; called on every process."""
        readers = gather_object(self._states)
        if is_main_process:
            state = {"steps": self._since, "readers": readers}
            text = json.dumps(state, default=lambda array: array.tolist())
            (Path(folder) / STREAM_FILE).write_text(text + "\n", encoding="utf-8")

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        skipped, self._skipped = self._skipped, 0
        yield from ({} for _ in range(skipped))
        steps = ReaderSteps(self.stream, self.readers, self.num_rows, self._states, self._since)
        loader = DataLoader(steps, None, num_workers=self.num_workers, collate_fn=_as_it_is, **self.loading)
        parts = iter(loader)
        while True:
            columns, states = zip(
                *(next(parts) for _ in range(max(self.num_workers, 1))), strict=True
            )  # one from each worker
            if states[0] is not None:
                self._states, self._since = [state for worker in states for state in worker], 0
            rows = {name: torch.cat([each[name] for each in columns]) for name in columns[0]}
            for batch in range(self.num_batches):
                if batch == self.num_batches - 1:
                    self._since += 1  # the step's last batch is being taken
                first = batch * self.batch_size
                yield {name: values[first : first + self.batch_size] for name, values in rows.items()}


def _as_it_is(item):
    return item
