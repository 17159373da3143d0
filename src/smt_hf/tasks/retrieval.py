"""Retrieval: find a marked symbol and carry it to the end. Tests whether gradients reach far back."""

from dataclasses import dataclass

import numpy as np

from .base import SymbolTask, check_integer

MARKER = 0


@dataclass(frozen=True, kw_only=True)
class Retrieval(SymbolTask):
    """A 0 among noise symbols marks the needle, which follows it; a 0 at the end asks for the needle.

    Ids: 0 the marker and the question, 1..num_symbols the symbols, needle and noise alike. The needle is in any column from 1 to
    the last below length / 2, all equally likely. Only the last column has a label. Chance is 1 / num_symbols.

    Args:
        length: T, 3 or more; the needle is carried over at least half of it.
        num_symbols: the difficulty: the number of symbols that the needle is one of, 2 or more.
    """

    def validate(self):
        check_integer("length", self.length, 3, why="marker, needle, question")
        check_integer("num_symbols", self.num_symbols, 2)

    def draw(self, rng, num_rows):
        input_ids = rng.integers(1, self.num_symbols + 1, (num_rows, self.length))
        column = rng.integers(1, (self.length + 1) // 2, num_rows)
        rows, labels = np.arange(num_rows), self.unlabelled(num_rows)
        labels[:, -1] = input_ids[rows, column]
        input_ids[rows, column - 1] = MARKER
        input_ids[:, -1] = MARKER
        return input_ids, labels
