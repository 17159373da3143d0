"""String Copy: read a string, then write it, forward or backward. Tests how much a memory holds."""

from dataclasses import dataclass

import numpy as np

from .base import SymbolTask, check_flag, check_integer

MARKER = 0


@dataclass(frozen=True, kw_only=True)
class StringCopy(SymbolTask):
    """A string, blanks for as long as it must be kept, a marker, and blanks while it is written.

    Ids: 0 the marker, 1..num_symbols the symbols, num_symbols + 1 the blank. The last string_length columns have
    labels, the string or its reverse; the first of them is the marker's column. Symbols are uniform, so chance is
    1 / num_symbols.

    Args:
        length: T, at least twice string_length; any more is waiting time.
        string_length: the difficulty: symbols in the string, 1 or more.
        num_symbols: number of symbols that each is drawn from, 2 or more.
        reverse: write the last symbol first.
        feed_back: while the string is written, the input is the symbol due one step earlier instead of a blank, as
            in the published task.
    """

    string_length: int = 16
    reverse: bool = False
    feed_back: bool = False

    def validate(self):
        check_integer("string_length", self.string_length, 1)
        check_integer("num_symbols", self.num_symbols, 2)
        check_flag("reverse", self.reverse)
        check_flag("feed_back", self.feed_back)
        why = f"a string of {self.string_length} is read and written; or lower string_length"
        check_integer("length", self.length, 2 * self.string_length, why=why)

    @property
    def vocab_size(self) -> int:
        return self.num_symbols + 2

    def draw(self, rng, num_rows):
        string = rng.integers(1, self.num_symbols + 1, (num_rows, self.string_length))
        written = string[:, ::-1] if self.reverse else string
        input_ids, labels = np.full((num_rows, self.length), self.num_symbols + 1), self.unlabelled(num_rows)
        start = self.length - self.string_length
        input_ids[:, : self.string_length] = string
        input_ids[:, start] = MARKER
        if self.feed_back:
            input_ids[:, start + 1 :] = written[:, :-1]
        labels[:, start:] = written
        return input_ids, labels
