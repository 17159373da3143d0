"""The rows of a task as datasets."""

import dataclasses

import datasets
import numpy as np
import torch

from ..utils.epochs import EpochDataset
from .base import Task, check_integer

BLOCK_ROWS = 256  # rows generated together; changing it changes the rows


class TaskDataset(EpochDataset):
    """`num_rows` rows of a task, with new ones in every epoch.

    Row i belongs to block `i // 256`, which depends only on the task, the seed, the epoch and the block's number: the row is the
    same whatever the order, the process or `num_rows`. An item is `{"input_ids": (T,) int64, "shift_labels": (T,) int64}`. Blocks
    are generated when first needed and kept, at 4 bytes per token, until the epoch changes.

    Use another seed for validation: a dataset whose epoch is not set stays in epoch 0, which is also the first epoch of the
    training.

    Args:
        task: the task.
        num_rows: rows per epoch, 1 or more.
        seed: 0 or more.

    Raises:
        InputError: for a number of rows or a seed out of range.
    """

    def __init__(self, task: Task, num_rows: int, seed: int = 0):
        super().__init__()
        check_integer("num_rows", num_rows, 1)
        check_integer("seed", seed, 0)
        self.task = task
        self.num_rows = num_rows
        self.seed = seed
        self._blocks, self._blocks_epoch = {}, 0

    def identity(self) -> dict:
        """What distinguishes these rows from others, for a resumed training to compare."""
        task = {"name": type(self.task).__name__, **dataclasses.asdict(self.task)}
        return {"kind": "TaskDataset", "task": task, "num_rows": self.num_rows, "seed": self.seed}

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        block, place = divmod(range(self.num_rows)[index], BLOCK_ROWS)
        return {name: rows[place].long() for name, rows in self._block(block).items()}

    def _block(self, number: int) -> dict[str, torch.Tensor]:
        epoch = self.epoch
        if epoch != self._blocks_epoch:
            self._blocks, self._blocks_epoch = {}, epoch
        if number not in self._blocks:
            rows = self.task.sample(BLOCK_ROWS, (self.seed, epoch, number))
            dtype = torch.int16 if self.task.vocab_size <= 1 << 15 else torch.int32
            self._blocks[number] = {name: values.to(dtype) for name, values in rows.items()}
        return self._blocks[number]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_blocks": {}}


def to_datasets(task: Task, num_rows: int, seed: int = 0) -> datasets.Dataset:
    """The rows of `TaskDataset(task, num_rows, seed)` in epoch 0, with the columns `input_ids` and `shift_labels`.

    Raises:
        InputError: for a number of rows or a seed out of range.
    """
    check_integer("num_rows", num_rows, 1)
    check_integer("seed", seed, 0)
    blocks = [task.sample(BLOCK_ROWS, (seed, 0, number)) for number in range(-(-num_rows // BLOCK_ROWS))]
    columns = {name: np.concatenate([block[name] for block in blocks])[:num_rows] for name in blocks[0]}
    feature = datasets.List(datasets.Value("int64"), length=task.length)
    return datasets.Dataset.from_dict(columns, features=datasets.Features(dict.fromkeys(columns, feature)))
