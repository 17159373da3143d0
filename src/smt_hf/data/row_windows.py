"""Windows that the rows of a step read segment by segment, for students whose memory is carried from step to step."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ..errors import InputError
from ..utils.epochs import EpochDataset
from .images import ImageRows
from .windows import window_at


class RowPlace(NamedTuple):
    """What a row reads in a step, as numbers rather than tensors: decisions that depend on them are made on the host.

    segment: number of the segment in its window.
    row: number of the row among those of a step.
    begins: whether the row read another window, or nothing, in the step before.
    continued: whether the row's memory from the step before is carried into this segment.
    """

    segment: int
    row: int
    begins: bool
    continued: bool


def collate_places(rows: Sequence[dict], collator: Callable) -> dict:
    """Collates rows of [`RowWindows`], and adds the list `places` of their [`RowPlace`]s; other rows are just collated.

    Moving the batch to a device leaves the list where it is.
    """
    if "place" not in rows[0]:
        return collator(rows)
    columns = collator([{name: row[name] for name in row if name != "place"} for row in rows])
    return {**columns, "places": [row["place"] for row in rows]}


class RowWindows(EpochDataset):
    """Windows that rows read segment by segment: item `i` is the window that row `i % num_rows` reads, and the segment that is due.

    A row reads consecutive windows of a text, or one image after another. Rows are at different segments, so that every step
    covers all parts of a window, and only some rows begin a new one. An item has the `input_ids` and, for text, the `documents`
    `(T,)` of the whole window, with `lead` tokens before it and one after it, and the [`RowPlace`] `place`; [`collate_places`]
    makes batches of items.

    Args:
        windows: `TokenWindows`, whose text is read in windows of `window_length` tokens, or `ImageRows`, which are read whole.
        window_length: tokens of a text's window; a multiple of `segment_length`.
        segment_length: tokens that a step reads.
        num_rows: rows of a step, over all processes and accumulated batches.
        lead: tokens of a text to add before every window, for models that need what came before.
        seed: seed of the places and the order.

    Raises:
        InputError: if the data are something else, or too few for the rows.
    """

    def __init__(self, windows, window_length: int, segment_length: int, num_rows: int, lead: int = 0, seed: int = 0):
        super().__init__()
        if not hasattr(windows, "cache"):
            raise InputError(
                f"a memory is carried through running text or images, not a {type(windows).__name__}: pass TokenWindows or "
                "ImageRows"
            )
        self.cache, self.seed, self.num_rows = windows.cache, seed, num_rows
        self.images = windows if isinstance(windows, ImageRows) else None
        self.segment_length = segment_length
        self._order, self._order_epoch = np.empty(0, dtype=np.int64), -1  # of the images, drawn once per epoch
        if self.images is None:
            if window_length % segment_length:
                raise InputError(
                    f"segment_length={segment_length} does not divide the window of {window_length} tokens, whose segments are read "
                    "one after another: choose a divisor"
                )
            self.lead, self.window_length = lead, window_length
            self.num_segments = window_length // segment_length
            self.num_windows = (self.cache.num_tokens - lead - 1) // window_length // num_rows * num_rows
        else:
            self.lead, self.window_length = 0, windows.window_length
            self.num_segments = -(-(windows.window_length - 1) // segment_length)
            self.num_windows = len(windows) // num_rows * num_rows
        if self.num_windows < 1:
            raise InputError(
                f"the data have {self.cache.num_tokens} tokens, too few for {num_rows} rows of {self.window_length}: use more data, "
                "or lower the batch size"
            )

    def identity(self) -> dict:
        """Identifies these rows; see [`smt_hf.training.resume.data_identity`]."""
        names = ("window_length", "segment_length", "num_rows", "lead", "seed")
        return {"kind": "RowWindows", "tokens": self.cache.digest, **{name: getattr(self, name) for name in names}}

    def __len__(self) -> int:
        return self.num_windows * self.num_segments

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | RowPlace]:
        step, row = divmod(range(len(self))[index], self.num_rows)
        number, segment = divmod(step + row % self.num_segments, self.num_segments)
        per_row = self.num_windows // self.num_rows
        place = (row * per_row + number) % self.num_windows
        if self.images is None:
            turn, shift = np.random.SeedSequence((self.seed, self.epoch)).generate_state(2, np.uint64)
            place = (place + int(turn)) % self.num_windows
            spare = self.cache.num_tokens - self.lead - 1 - self.num_windows * self.window_length
            first = place * self.window_length + int(shift) % (min(spare, self.window_length - 1) + 1)
            window = window_at(self.cache, first, self.lead + self.window_length + 1)
            goes_on = segment > 0 or place > 0
        else:
            window = dict(self.images[self._image_at(place)])
            goes_on = segment > 0
        begins = segment == 0 or step == 0
        return {**window, "place": RowPlace(segment, row, begins, continued=step > 0 and goes_on)}

    def _image_at(self, place: int) -> int:
        """The image at a place in the epoch's order."""
        epoch = self.epoch
        if self._order_epoch != epoch:
            self._order = np.random.default_rng((self.seed, epoch)).permutation(len(self.images))
            self._order_epoch = epoch
        return int(self._order[place])
