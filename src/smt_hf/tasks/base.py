"""What the synthetic tasks share: seeded rows of inputs and aligned targets, and checks of options."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import InputError
from ..losses import IGNORED


@dataclass(frozen=True, kw_only=True)
class Task:
    """A synthetic task: `length` input tokens per row, with a label at some of the steps.

    The label of column t must be predicted after reading token t; columns without a label have -100. A subclass adds its options
    as fields and defines `validate`, `vocab_size`, `chance` and `draw`.

    Raises:
        InputError: for an option that cannot work; the message names it.
    """

    length: int = 128

    def __post_init__(self):
        self.validate()

    def validate(self) -> None:
        """Checks the options.

        Raises:
            InputError: naming the first option that cannot work.
        """
        raise NotImplementedError

    @property
    def vocab_size(self) -> int:
        """The number of ids of inputs and labels together; all ids are below it. The same for rows of every length."""
        raise NotImplementedError

    @property
    def chance(self) -> float:
        """The expected accuracy of the best answer that does not look at the input."""
        raise NotImplementedError

    def draw(self, rng: np.random.Generator, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and labels, each `(num_rows, length)` int64."""
        raise NotImplementedError

    def sample(self, num_rows: int, seed: int | Sequence[int]) -> dict[str, torch.Tensor]:
        """Rows of the task, the same on every machine for the same options and arguments.

        Args:
            num_rows: N, 1 or more.
            seed: a number of at least 0, or several.

        Returns:
            `{"input_ids": (N, length) int64, "shift_labels": (N, length) int64}`; `shift_labels` is the trainers' name for targets
            that are already aligned.

        Raises:
            InputError: for a number of rows or a seed out of range.
        """
        check_integer("num_rows", num_rows, 1)
        for number in seed if isinstance(seed, Sequence) else (seed,):
            check_integer("seed", number, 0)
        input_ids, labels = self.draw(np.random.default_rng(seed), num_rows)
        return {"input_ids": torch.from_numpy(input_ids), "shift_labels": torch.from_numpy(labels)}

    def unlabelled(self, num_rows: int) -> np.ndarray:
        """Labels `(num_rows, length)` that are all -100."""
        return np.full((num_rows, self.length), IGNORED, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class SymbolTask(Task):
    """A task whose labels are symbols 1..`num_symbols`, all equally likely, with 0 as its other id."""

    num_symbols: int = 8

    @property
    def vocab_size(self) -> int:
        return self.num_symbols + 1

    @property
    def chance(self) -> float:
        return 1 / self.num_symbols


def check_integer(name: str, value: int, low: int, high: int | None = None, why: str = "") -> None:
    """Checks that an option is a whole number from `low` to `high`.

    Raises:
        InputError: naming the option, its value and the bounds, followed by `why`.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputError(f"{name} is {value!r}: pass a whole number")
    if value < low or (high is not None and value > high):
        bounds = f"{low} or more" if high is None else f"{low} to {high}"
        raise InputError(f"{name} is {value}: pass {bounds}{why and f' ({why})'}")


def check_flag(name: str, value: bool) -> None:
    """Checks that an option is true or false.

    Raises:
        InputError: naming the option and its value.
    """
    if not isinstance(value, bool):
        raise InputError(f"{name} is {value!r}: pass True or False")
