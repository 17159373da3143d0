"""Decodes tokens as they come: whole characters only, and nothing from a stop string on."""

from collections.abc import Sequence

BROKEN = "\ufffd"  # what invalid bytes decode to; at the end, they may still become a character
MOST_BROKEN = 3  # the most bytes of a character that is not complete yet
CONTEXT = 6  # earlier tokens, which decide whether a space comes before the new ones
WINDOW = 64


class TextStream:
    """Turns tokens into text piece by piece; joined, the pieces are the text of all tokens.

    Args:
        tokenizer: a fast tokenizer; special tokens have no text.
        context: the tokens before the first one.
        stops: strings that end the text; they are not part of it.
    """

    def __init__(self, tokenizer, context: Sequence[int] = (), stops: Sequence[str] = ()):
        self.decode = tokenizer.backend_tokenizer.decode
        self.stops = tuple(stops)
        self.stopped = False
        self.window = [int(token) for token in context[-CONTEXT:]]
        # Characters of the window's text that are not part of the answer, or were returned already.
        self.num_shown = len(self.decode(self.window).rstrip(BROKEN)) if self.window else 0
        self.held = ""  # text that may be the beginning of a stop string

    def push(self, ids: Sequence[int]) -> str:
        """The new text that is certain after these tokens; empty once the text has stopped."""
        if self.stopped:
            return ""
        self.window += ids
        text = self.decode(self.window)
        broken = min(len(text) - len(text.rstrip(BROKEN)), MOST_BROKEN)
        return self._let_through(text, len(text) - broken)

    def finish(self) -> str:
        """The text that was held back."""
        if self.stopped:
            return ""
        text = self.decode(self.window)
        rest = self._let_through(text, len(text))
        rest, self.held = rest + self.held, ""
        return rest

    def _let_through(self, text: str, end: int) -> str:
        new = text[self.num_shown : end]
        self.num_shown = max(self.num_shown, end)
        if end == len(text) or len(self.window) > WINDOW:
            self.window = self.window[-CONTEXT:]
            self.num_shown = len(self.decode(self.window)) - (len(text) - end)
        if not self.stops:
            return new
        new = self.held + new
        shown = cut(new, self.stops)
        self.stopped = len(shown) < len(new)
        kept = 0 if self.stopped else open_end(new, self.stops)
        self.held = new[len(new) - kept :]
        return shown[: len(shown) - kept]


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before its first stop string."""
    found = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return text[: min(found)] if found else text


def open_end(text: str, stops: Sequence[str]) -> int:
    """The number of characters at the end that may be the beginning of a stop string."""
    longest = max(map(len, stops), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if any(stop.startswith(text[-length:]) for stop in stops):
            return length
    return 0
