"""One visitor's text and memory: reading words, and writing on."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

import torch

from ..utils.text import readable
from .sampling import Sampling, next_token

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
        """The page with more tokens by one author; all are decoded together, since a character may span tokens."""
        all_ids = (*self.ids, *ids)
        text = tokenizer.decode(all_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        same = bool(self.passages) and self.passages[-1].author == author
        earlier = self.passages[:-1] if same else self.passages
        return Page(all_ids, (*earlier, Passage(author, text[sum(len(passage.text) for passage in earlier) :])))


@dataclass(frozen=True)
class Writing:
    """What one visitor has. It never changes; reading and writing make new ones.

    Args:
        memory: `(1, K, D)`, after everything on the page.
        num_tokens: tokens that the memory has read, those before it was restored among them.
        page: what the visitor sees; empty after a memory was restored, which keeps no text.
        seed: of the draws so far; `None` before the first.
        random_state: where the draws stand.
        tokens_per_second: of the last call, reading and writing.
        unread: what is left of the reader's words when reading was stopped.
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


@torch.no_grad()
def read_token(student, memory: torch.Tensor, token: int) -> torch.Tensor:
    """The memory `(1, K, D)` after one more token."""
    return student.update(memory, torch.tensor([token], device=memory.device))


def go_on(
    student,
    tokenizer,
    writing: Writing,
    words: str = "",
    sampling: Sampling | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Writing]:
    """Reads the words, then writes on from the memory alone: nothing that was read before is read again.

    The student's own tokens are read at once, so the memory is always that of the whole page.

    Args:
        words: the reader's own; may be empty.
        is_stopped: asked before every token.

    Yields:
        The writing, a dozen times a second and at the end.
    """
    sampling = sampling or Sampling()
    word_ids = tokenizer(readable(words), add_special_tokens=False).input_ids if words else []
    ends = end_tokens(student)
    generator = torch.Generator().manual_seed(sampling.seed)
    if writing.seed == sampling.seed:
        generator.set_state(writing.random_state)

    def view() -> Writing:
        page = writing.page
        for author, tokens in groupby(new, key=lambda item: item[0]):
            page = page.add(tokenizer, author, [token for _, token in tokens])
        return replace(
            writing,
            memory=memory,
            num_tokens=writing.num_tokens + len(new),
            page=page,
            seed=sampling.seed,
            random_state=generator.get_state(),
            tokens_per_second=num_read / (time.perf_counter() - started) if num_read else None,
            unread="",
        )

    memory, new, num_read = writing.memory, [], 0
    started = viewed = time.perf_counter()
    while num_read < len(word_ids) + sampling.max_new_tokens and not is_stopped():
        if num_read < len(word_ids):
            author, token = READER, word_ids[num_read]
        else:
            token = next_token(student, memory, sampling, generator)
            author = END if token in ends else STUDENT
        memory = read_token(student, memory, token)
        new.append((author, token))
        num_read += 1
        if author == END:
            break
        if time.perf_counter() - viewed >= 1 / VIEWS_PER_SECOND:
            writing, new = view(), []
            yield writing
            viewed = time.perf_counter()
    yield replace(view(), unread=tokenizer.decode(word_ids[num_read:]))


def end_tokens(student) -> set[int]:
    """The tokens after which `generate()` would stop."""
    ends = student.generation_config.eos_token_id
    return set(ends if isinstance(ends, list) else [] if ends is None else [ends])
