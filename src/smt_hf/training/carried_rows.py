"""DMT with carried memory: what every row reads, and what is kept from one step to the next."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..data.row_windows import RowWindows
from ..errors import InputError

FILE = "carried_rows.safetensors"


def row_windows(dataset, args, batch_size: int) -> RowWindows:
    """Reads the text or images of a data set in as many rows as an optimiser step has.

    Args:
        dataset: the training data.
        args: the trainer's arguments.
        batch_size: rows of a batch of one process.

    Raises:
        InputError: if the data are of another kind, or too few.
    """
    rows = batch_size * args.gradient_accumulation_steps * args.world_size
    return RowWindows(dataset, args.context_length, args.segment_length, rows, args.teacher_lead, args.order_seed)


@dataclass(frozen=True, eq=False)
class CarriedPlan:
    """The segment of its window that every row reads, and the memory it starts from. On the CPU, whatever the tokens' device.

    Attributes:
        columns: `(B, 1, J)`, the columns of each row.
        segment: `(B,)`, the index of the segment in the window.
        new: `(N,)`, the indices of the rows that begin a window.
        continued: bool `(B,)`, whether the memory of the previous step is carried on.
        forced: bool `(B,)`, whether a window that begins now is teacher-forced.
        cold: bool `(B,)`, whether a window that begins now starts from the empty context.
    """

    columns: torch.Tensor
    segment: torch.Tensor
    new: torch.Tensor
    continued: torch.Tensor
    forced: torch.Tensor
    cold: torch.Tensor


@dataclass
class Rows:
    """The rows of one micro-batch, after a step.

    Attributes:
        memory: `(B, K, D)`, the student's own memory.
        forced: bool `(B,)`, rows that are teacher-forced until their window ends.
        encoded: `(B, S + 2, K, D)`, the teacher's states of the empty context and around the segments of a window; `None` right
            after resuming.
        backbone_logits: `(B, T, V)`, if they are distilled.
    """

    memory: torch.Tensor
    forced: torch.Tensor
    encoded: torch.Tensor | None = None
    backbone_logits: torch.Tensor | None = None


class CarriedRows:
    """The [`Rows`] of all accumulated batches of one process."""

    def __init__(self):
        self.batches: list[Rows] = []
        self.batch = 0

    def rewind(self) -> None:
        """Makes the next batch the first of an optimiser step."""
        self.batch = 0

    def take(self) -> Rows | None:
        """The rows of the next batch as the previous step left them; `None` in the first step."""
        return self.batches[self.batch] if self.batch < len(self.batches) else None

    def put(self, rows: Rows) -> None:
        """Stores the rows after the batch."""
        self.batches[self.batch : self.batch + 1] = [rows]
        self.batch += 1

    def save(self, folder: str, accelerator) -> None:
        """Saves the memories and flags of all processes to a checkpoint, in the order of the rows."""
        gathered = [(accelerator.gather(rows.memory), accelerator.gather(rows.forced)) for rows in self.batches]
        if gathered and accelerator.is_main_process:
            memory, forced = (torch.cat(parts).cpu().contiguous() for parts in zip(*gathered, strict=True))
            save_file({"memory": memory, "forced": forced}, Path(folder) / FILE)

    def load(self, folder: str, args) -> None:
        """Loads the rows of this process, however the rows were distributed before.

        Raises:
            InputError: if the checkpoint has none, or another number of rows.
        """
        file = Path(folder) / FILE
        if not file.is_file():
            raise InputError(f"{folder!r} contains no {FILE}: resume with the rollout that it was saved with")
        parts = load_file(file)
        size = args.per_device_train_batch_size
        expected = args.gradient_accumulation_steps * args.world_size * size
        if len(parts["memory"]) != expected:
            raise InputError(
                f"{folder!r} carries the memories of {len(parts['memory'])} rows, but a step has {expected}: resume with as many"
            )
        batches = zip(parts["memory"].split(size), parts["forced"].split(size), strict=True)
        own = list(batches)[args.process_index :: args.world_size]
        self.batches = [Rows(memory.to(args.device), forced.to(args.device)) for memory, forced in own]
