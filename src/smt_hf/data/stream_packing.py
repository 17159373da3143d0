"""From one reader's documents to windows or running rows of tokens; every stage can save where it is and continue from there."""

from typing import Any, Protocol

import numpy as np


class Stage(Protocol):
    """A source without end that is read piece by piece."""

    def next(self) -> Any:
        """The next piece."""

    def state(self) -> dict:
        """Where it is."""

    def load(self, state: dict) -> None:
        """Continues from a state."""


class Shuffled:
    """Shuffles pieces: a buffer is filled, shuffled and given out completely, then filled again.

    The state is where the buffer began and how much of it was given: loading it fills the buffer again, and nothing is lost.

    Args:
        stage: the stage to shuffle.
        size: pieces in the buffer, 1 or more.
        key: seed of the orders, whole numbers of 0 or more.
    """

    def __init__(self, stage: Stage, size: int, key: tuple[int, ...]):
        self.stage, self.size, self.key = stage, size, key
        self._begin, self._number = stage.state(), 0
        self._buffer, self._given = [], 0

    def next(self):
        if self._given == len(self._buffer):
            if self._buffer:
                self._number += 1
            self._begin, self._given = self.stage.state(), 0
            self._fill()
        self._given += 1
        piece, self._buffer[self._given - 1] = self._buffer[self._given - 1], None
        return piece

    def state(self) -> dict:
        return {"begin": self._begin, "number": self._number, "given": self._given}

    def load(self, state: dict) -> None:
        self._begin, self._number, self._given = state["begin"], state["number"], state["given"]
        self.stage.load(self._begin)
        self._buffer = []
        if self._given:
            self._fill()

    def _fill(self) -> None:
        pieces = [self.stage.next() for _ in range(self.size)]
        order = np.random.Generator(np.random.PCG64(np.random.SeedSequence((*self.key, self._number))))
        self._buffer = [pieces[place] for place in order.permutation(self.size)]


class Windows:
    """Windows of consecutive tokens, documents one after another: `(ids, documents)`, both `(window_length,)`.

    Args:
        documents: documents of token ids.
        window_length: tokens of a window.
    """

    def __init__(self, documents: Stage, window_length: int):
        self.documents, self.window_length = documents, window_length
        self._begin, self._rest, self._offset = documents.state(), None, 0

    def next(self) -> tuple[np.ndarray, np.ndarray]:
        pieces, missing = [], self.window_length
        while missing:
            if self._rest is None or self._offset == len(self._rest):
                self._begin, self._offset = self.documents.state(), 0
                self._rest = self.documents.next()
            piece = self._rest[self._offset : self._offset + missing]
            self._offset += len(piece)
            missing -= len(piece)
            pieces.append(piece)
        return _numbered(pieces)

    def state(self) -> dict:
        """Where the document in which the next window begins started, and how much of it was given."""
        return {"document": self._begin, "offset": self._offset}

    def load(self, state: dict) -> None:
        self._begin, self._offset, self._rest = state["document"], state["offset"], None
        self.documents.load(self._begin)
        if self._offset:
            self._rest = self.documents.next()


class RunningRows:
    """Rows that each read one document after another in segments; the last token of a segment is also the first of the next.

    A piece is `ids` and `documents`, both `(num_rows, segment_length + 1)`, and the bool `continued` `(num_rows,)`: whether the row
    continues within the document of its previous segment. A row that reaches the end of a document takes the next free one.

    Args:
        documents: documents of token ids.
        num_rows: rows.
        segment_length: tokens that are read; the last column is only a target.
    """

    def __init__(self, documents: Stage, num_rows: int, segment_length: int):
        self.documents, self.segment_length = documents, segment_length
        self._rows = [
            [] for _ in range(num_rows)
        ]  # for each, its documents, and whether it has them from their first token on

    def next(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        continued = np.array([bool(row) and not row[0][1] for row in self._rows])
        segments = [self._segment(row) for row in self._rows]
        ids, documents = (np.stack(each) for each in zip(*segments, strict=True))
        return ids, documents, continued

    def _segment(self, row: list) -> tuple[np.ndarray, np.ndarray]:
        length = sum(len(piece) for piece, _ in row)
        while length <= self.segment_length:
            row.append((self.documents.next(), True))
            length += len(row[-1][0])
        pieces, missing = [], self.segment_length + 1
        for piece, _ in row:
            pieces.append(piece[:missing])
            missing -= len(pieces[-1])
        read = self.segment_length
        while read >= len(row[0][0]):
            read -= len(row.pop(0)[0])
        if read:
            row[0] = (row[0][0][read:], False)
        return _numbered([piece for piece in pieces if len(piece)])

    def state(self) -> dict:
        """Where the documents are, and what the rows still hold."""
        return {"documents": self.documents.state(), "rows": [list(row) for row in self._rows]}

    def load(self, state: dict) -> None:
        self.documents.load(state["documents"])
        self._rows = [[(np.asarray(piece), bool(whole)) for piece, whole in row] for row in state["rows"]]


def _numbered(pieces: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The pieces as one row, and for every token the number of its piece."""
    numbers = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
    return np.concatenate(pieces).astype(np.int64), numbers
