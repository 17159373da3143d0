"""One visitor's text and memory: reads words and continues the text."""

import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

import torch

from ..inference import Engine, Request, SamplingParams
from ..utils.text import readable

READER, STUDENT, END = "reader", "student", "end"
VIEWS_PER_SECOND = 12


class Passage(NamedTuple):
    """A stretch of text by one author: `READER`, `STUDENT`, or `END` where the student ended a text."""

    author: str
    text: str


class Page(NamedTuple):
    """The tokens that a visitor sees, and their text by author."""

    ids: tuple[int, ...] = ()
    passages: tuple[Passage, ...] = ()

    def add(self, tokenizer, author: str, ids: list[int]) -> "Page":
        """The page with more tokens by one author. All tokens are decoded together, since a character may span several."""
        all_ids = (*self.ids, *ids)
        text = tokenizer.decode(all_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        same = bool(self.passages) and self.passages[-1].author == author
        earlier = self.passages[:-1] if same else self.passages
        return Page(all_ids, (*earlier, Passage(author, text[sum(len(passage.text) for passage in earlier) :])))


@dataclass(frozen=True)
class Writing:
    """The state of one visitor. It is immutable; reading and writing create new ones.

    Args:
        memory: `(1, K, D)`, after everything on the page.
        num_tokens: tokens that the memory has read, including those before it was restored.
        page: what the visitor sees; empty after a memory was restored, since it keeps no text.
        seed: the seed of the draws so far; `None` before the first.
        random_state: the random state after the last draw.
        tokens_per_second: the speed of the last call, reading and writing.
        unread: the rest of the reader's words, if reading was stopped.
    """

    memory: torch.Tensor
    num_tokens: int = 0
    page: Page = Page()
    seed: int | None = None
    random_state: torch.Tensor | None = None
    tokens_per_second: float | None = None
    unread: str = ""


@torch.no_grad()
def begin(student) -> Writing:
    """An empty page and the student's initial memory."""
    return Writing(student.initial_memory[None].clone())


def start_engine(student, tokenizer) -> Engine:
    """Starts the engine that writes for all visitors together. It keeps no memory of what they send, which is theirs."""
    return Engine.of(student, tokenizer, prefixes=None, piece_seconds=1 / VIEWS_PER_SECOND).start()


def go_on(
    engine: Engine,
    tokenizer,
    writing: Writing,
    words: str = "",
    params: SamplingParams | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Writing]:
    """Reads the words, then writes from the memory alone: nothing is read twice.

    The student's own tokens are read at once, so the memory is always that of the whole page.

    Args:
        engine: a started engine, which may write for others at the same time.
        words: the reader's own words; may be empty.
        is_stopped: called a dozen times a second.

    Yields:
        The writing, a dozen times a second and at the end.

    Raises:
        RuntimeError: if the engine fails.
    """
    params = params or SamplingParams()
    word_ids = tokenizer(readable(words), add_special_tokens=False).input_ids if words else []
    state = writing.random_state if writing.seed is not None and writing.seed == params.seed else None
    request = Request(word_ids, params, memory=writing.memory[0], keep_memory=True, random_state=state)
    pieces: queue.Queue = queue.Queue()
    started, new, shown = time.perf_counter(), list(word_ids), 0
    ticket = engine.submit(request, lambda ticket, piece: pieces.put(piece))
    try:
        while not ticket.done or not pieces.empty():
            if is_stopped():
                ticket.cancel()
            try:
                piece = pieces.get(timeout=1 / VIEWS_PER_SECOND)
            except queue.Empty:
                continue
            new += piece.ids
            page = _extended(
                writing.page, tokenizer, new[shown : piece.num_read], shown, len(word_ids), engine.end_ids
            )
            writing = replace(
                writing,
                memory=piece.memory[None],
                num_tokens=writing.num_tokens + piece.num_read - shown,
                page=page,
                tokens_per_second=piece.num_read / (time.perf_counter() - started) if piece.num_read else None,
                unread="",
            )
            shown = piece.num_read
            if piece.finish_reason == "error":
                raise RuntimeError(piece.error)
            if piece.finish_reason is None:
                yield writing
    finally:
        ticket.cancel()
    (answer,) = ticket.answers
    unread = tokenizer.decode(word_ids[ticket.num_read :])
    yield replace(writing, seed=params.seed, random_state=answer.random_state, unread=unread)


def _extended(page: Page, tokenizer, ids: list[int], first: int, num_words: int, ends: frozenset[int]) -> Page:
    """The page with more tokens of a call. Their places start at `first`, and places below `num_words` are the reader's."""
    authors = [
        READER if place < num_words else END if token in ends else STUDENT for place, token in enumerate(ids, first)
    ]
    for author, tokens in groupby(zip(authors, ids, strict=True), key=lambda pair: pair[0]):
        page = page.add(tokenizer, author, [token for _, token in tokens])
    return page
