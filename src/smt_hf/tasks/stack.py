"""Stack: follow pushes and pops. Tests whether a model can track a state that grows and shrinks."""

from dataclasses import dataclass

import numpy as np

from .base import SymbolTask, check_integer

POP = 0


@dataclass(frozen=True, kw_only=True)
class Stack(SymbolTask):
    """Every token pushes a symbol or pops one; the label of a pop is the popped symbol.

    Ids: 0 a pop, 1..num_symbols a push of that symbol. A fair coin decides between push and pop; an empty stack is
    always pushed, a full one always popped. Only pops have labels, the first column never. Symbols are uniform, so
    chance is 1 / num_symbols.

    Args:
        length: T, 2 or more.
        num_symbols: number of symbols that pushes draw from, 2 or more.
        depth: the difficulty: the most symbols that the stack holds, 1 or more.
    """

    num_symbols: int = 4
    depth: int = 10

    def validate(self):
        check_integer("length", self.length, 2, why="a push and its pop")
        check_integer("num_symbols", self.num_symbols, 2)
        check_integer("depth", self.depth, 1)

    def draw(self, rng, num_rows):
        input_ids = rng.integers(1, self.num_symbols + 1, (num_rows, self.length))
        heads = rng.integers(2, size=(num_rows, self.length), dtype=np.int8).astype(bool)
        rows, labels = np.arange(num_rows), self.unlabelled(num_rows)
        stack = np.zeros((num_rows, min(self.depth, self.length)), dtype=np.int64)
        height = np.zeros(num_rows, dtype=np.int64)
        for t in range(self.length):  # whether a pop is possible, and of which symbol, depends on all steps before
            pops = (height == self.depth) | (heads[:, t] & (height > 0))
            height -= pops
            popped = rows[pops]
            labels[popped, t] = stack[popped, height[pops]]
            input_ids[popped, t] = POP
            pushed = rows[~pops]
            stack[pushed, height[~pops]] = input_ids[pushed, t]
            height += ~pops
        return input_ids, labels
