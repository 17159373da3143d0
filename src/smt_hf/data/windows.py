"""Windows of consecutive tokens, the examples of training and evaluation."""

import numpy as np
import torch

from ..errors import InputError
from ..utils.epochs import EpochDataset
from .token_cache import TokenCache


class TokenWindows(EpochDataset):
    """Windows of `window_length` consecutive tokens, about one epoch of the corpus: `num_tokens // window_length`.

    Window `i` starts at token `i * window_length`. With `random_offset` it is moved by up to half a window either
    way, by an amount that depends only on the seed, the epoch and `i`, and kept inside the corpus. An item is
    `{"input_ids": (window_length,) int64, "documents": (window_length,) int64}`; `documents` number the
    documents in the window from 0. [`collate`] makes batches of the items.

    Args:
        cache: the corpus; it is read, never copied.
        window_length: tokens in a window.
        seed: seed of the offsets, 0 or more.
        random_offset: False for evaluation: the windows are contiguous and the same in every epoch.

    Raises:
        InputError: for a window length or seed out of range, or a corpus shorter than one window.
    """

    def __init__(self, cache: TokenCache, window_length: int, seed: int = 0, random_offset: bool = True):
        super().__init__()
        check_window_length(cache, window_length)
        if seed < 0:
            raise InputError(f"seed is {seed}: pass 0 or more")
        self.cache = cache
        self.window_length = window_length
        self.seed = seed
        self.random_offset = random_offset

    def identity(self) -> dict:
        """Identifies these windows, for a resumed training to compare."""
        return {
            "kind": "TokenWindows",
            "tokens": self.cache.digest,
            "window_length": self.window_length,
            "seed": self.seed,
            "random_offset": self.random_offset,
        }

    def __len__(self) -> int:
        return self.cache.num_tokens // self.window_length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        index = range(len(self))[index]
        start = index * self.window_length
        if self.random_offset:
            state = np.random.SeedSequence((self.seed, self.epoch, index)).generate_state(1, np.uint64)
            start += int(state[0]) % self.window_length - self.window_length // 2
            start = min(max(start, 0), self.cache.num_tokens - self.window_length)
        return window_at(self.cache, start, self.window_length)


def evenly_spaced_windows(cache: TokenCache, window_length: int, num_windows: int) -> dict[str, torch.Tensor]:
    """Return windows whose starts are spread evenly from the first token of the corpus to the last possible one.

    They overlap if there are more than `num_tokens // window_length`.

    Returns:
        `{"input_ids": (num_windows, window_length) int64, "documents": (num_windows, window_length) int64}`

    Raises:
        InputError: for a length or number below 1, or a corpus shorter than one window.
    """
    check_window_length(cache, window_length)
    if num_windows < 1:
        raise InputError(f"num_windows is {num_windows}: pass 1 or more")
    last = cache.num_tokens - window_length
    windows = [window_at(cache, i * last // max(num_windows - 1, 1), window_length) for i in range(num_windows)]
    return {name: torch.stack([window[name] for window in windows]) for name in windows[0]}


def check_window_length(cache: TokenCache, window_length: int, name: str = "the corpus", **lengths: int) -> None:
    """Checks that a corpus is at least as long as a window.

    Args:
        cache: the corpus.
        window_length: tokens of a window.
        name: name of the corpus, for the message.
        lengths: the options that decide the length of a window; none if it is an argument itself.

    Raises:
        InputError: naming both lengths, and what to change.
    """
    if window_length < 1:
        raise InputError(f"window_length is {window_length}: pass 1 or more")
    if cache.num_tokens < window_length:
        given = f" ({', '.join(f'{option}={value}' for option, value in lengths.items())})" if lengths else ""
        remedy = f"lower {' or '.join(lengths)}" if lengths else f"a window_length of {cache.num_tokens} or less"
        raise InputError(
            f"{name} has {cache.num_tokens} tokens but a window needs {window_length}{given}: use more text, or {remedy}"
        )


def window_at(cache: TokenCache, start: int, window_length: int) -> dict[str, torch.Tensor]:
    """The window that begins at token `start`: `input_ids` and `documents`, numbered from 0, `(window_length,)`."""
    input_ids = cache.tokens[start : start + window_length].astype(np.int64)
    starts = cache.document_starts
    first, last = np.searchsorted(starts, (start + 1, start + window_length))  # documents that start inside
    begins = np.zeros(window_length, dtype=np.int64)
    begins[starts[first:last] - start] = 1
    return {"input_ids": torch.from_numpy(input_ids), "documents": torch.from_numpy(begins.cumsum())}
