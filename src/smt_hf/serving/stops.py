"""Stop strings: generation ends at them, and the client does not see them."""

import asyncio
from collections.abc import Sequence


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop string in it."""
    found = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return text[: min(found)] if found else text


def open_end(text: str, stops: Sequence[str]) -> int:
    """How many of the last characters may be the beginning of a stop string."""
    longest = max(map(len, stops), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if any(stop.startswith(text[-length:]) for stop in stops):
            return length
    return 0


class StopQueue:
    """Reads the pieces of a streamed text from a queue and lets through what comes before a stop string.

    Pieces are plain strings; `None` ends the stream; anything else (an error) goes through as it is.
    """

    def __init__(self, queue: asyncio.Queue, stops: Sequence[str]):
        self.queue = queue
        self.stops = stops
        self.held = ""  # may be the beginning of a stop string
        self.stopped = False
        self.waiting = []  # the end, while the text that was held goes first

    async def get(self):
        piece = ""
        while piece == "":
            piece = self.waiting.pop() if self.waiting else self._pass(await self.queue.get())
        return piece

    def get_nowait(self):
        """As `get`, but raises `asyncio.QueueEmpty` where that would wait."""
        piece = ""
        while piece == "":
            piece = self.waiting.pop() if self.waiting else self._pass(self.queue.get_nowait())
        return piece

    def _pass(self, piece):
        if piece is None and self.held:
            piece, self.held = self.held, ""
            self.waiting.append(None)
            return piece
        if not isinstance(piece, str):
            return piece
        if self.stopped:
            return ""
        text = self.held + piece
        shown = cut(text, self.stops)
        self.stopped = len(shown) < len(text)
        kept = 0 if self.stopped else open_end(text, self.stops)
        self.held = text[len(text) - kept :]
        return shown[: len(shown) - kept]
