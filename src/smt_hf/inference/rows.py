"""One answer in progress: what it still has to read, what it has written, and how much of it has been sent."""

import time

import numpy as np
import torch

from .prefixes import PrefixCache, is_milestone
from .requests import FinishReason, Piece, Ticket
from .sampling import Draws, TokenLogprob
from .text import TextStream


class Row:
    """One row of the engine's memories.

    Args:
        ticket: the ticket that the row belongs to.
        tokenizer: tokenizer for the text; `None` gives tokens only.
        vocab_size: V.
        index: which of the ticket's answers this is; the first stands for all until the prompt is read.
    """

    def __init__(self, ticket: Ticket, tokenizer, vocab_size: int, index: int = 0):
        request = ticket.request
        self.ticket, self.index, self.params = ticket, index, request.params
        self.tokenizer, self.vocab_size = tokenizer, vocab_size
        self.prompt = np.asarray(request.prompt_ids, dtype=np.int64)
        self.position = 0  # tokens of the prompt that have been read
        self.memory = None  # set while the row waits outside the engine
        self.last: int | None = None  # the token written last, which is read next
        self.num_steps = 0  # since it joined
        self.num_rows = request.params.n if index == 0 else 1  # the rows that it stands for
        self.may_use_teacher = request.use_teacher  # until it begins to read
        self.was_taught = False
        self.deadline = np.inf if request.timeout is None else time.monotonic() + request.timeout
        self.written: list[int] = []
        self.ending: FinishReason | None = None  # set if the last token is only read for the memory
        self.has_read_last = False
        self.ended = False
        self._draws: Draws | None = None
        self._text: TextStream | None = None
        self._new_ids: list[int] = []
        self._new_logprobs: list[TokenLogprob] = []
        self._new_text = ""
        self.is_fresh = True  # nothing has been sent yet

    @property
    def is_reading(self) -> bool:
        """Whether tokens of the prompt are left."""
        return self.position < len(self.prompt)

    @property
    def num_left(self) -> int:
        """Tokens of the prompt that are left."""
        return len(self.prompt) - self.position

    @property
    def draws(self) -> Draws:
        """The [`Draws`] that its choices depend on."""
        if self._draws is None:
            self._draws = Draws(self.params, self.prompt, self.vocab_size, self.index)
            if self.ticket.request.random_state is not None and self._draws.generator is not None:
                self._draws.generator.set_state(self.ticket.request.random_state)
        return self._draws

    @property
    def uses_prefixes(self) -> bool:
        """Whether its memory has read nothing but its own tokens, without the teacher, so that prefixes apply to it."""
        return self.ticket.request.memory is None and not self.was_taught

    def take_over(self, last_tokens: int) -> int:
        """Continues after the teacher, before the last tokens of the prompt. Returns the number of tokens read so far."""
        self.ticket.num_cached = 0
        self.position = self.ticket.num_read = len(self.prompt) - last_tokens
        self.was_taught = True
        return self.position

    def fork(self, index: int) -> "Row":
        """The row of another answer to the same prompt, which has already been read."""
        row = Row(self.ticket, self.tokenizer, self.vocab_size, index)
        row.position, row.num_steps, row.deadline = self.position, self.num_steps, self.deadline
        row.may_use_teacher, row.was_taught = False, self.was_taught
        return row

    def recall(self, initial_memory: torch.Tensor, prefixes: PrefixCache | None) -> torch.Tensor:
        """The memory to start from. Moves the position past the part of the prompt that is already known."""
        if self.memory is not None:  # it had to wait aside
            memory, self.memory, self.may_use_teacher = self.memory, None, False
            return memory
        request = self.ticket.request
        if request.memory is not None:
            return request.memory.to(initial_memory)
        found = None if prefixes is None or request.prompt_logprobs else prefixes.find(self.prompt)
        if found is None:
            return initial_memory
        self.position = self.ticket.num_cached = self.ticket.num_read = found.length
        return found.memory

    @property
    def scores_prompt(self) -> bool:
        """Whether the log-probabilities of its prompt are requested."""
        return self.ticket.request.prompt_logprobs

    def read(self, count: int) -> bool:
        """Takes `count` steps. Returns whether they were in the prompt."""
        self.num_steps += count
        if not self.is_reading:
            self.has_read_last = True
            return False
        self.position += count
        self.ticket.num_read = self.position
        return True

    def reaches_milestone(self, count: int) -> bool:
        """Whether a snapshot is due after `count` more tokens."""
        left = self.num_left
        return left > 0 and self.uses_prefixes and (count == left or is_milestone(self.position + count))

    def write(self, token: int, logprob: TokenLogprob | None, ends: frozenset[int]) -> FinishReason | None:
        """Adds a token to the answer. Returns the reason if the answer ends with it, else `None`."""
        self.written.append(token)
        self.last, self.has_read_last = token, False
        self._new_ids.append(token)
        if logprob is not None:
            self._new_logprobs.append(logprob)
        if token in ends:
            return "stop"
        if self.params.stop and self.tokenizer is not None:
            self._new_text += self.text.push([token])
            if self.text.stopped:
                return "stop"
        return "length" if len(self.written) >= self.params.max_new_tokens else None

    @property
    def text(self) -> TextStream:
        """The stream of its text."""
        if self._text is None:
            self._text = TextStream(self.tokenizer, self.prompt, self.params.stop)
        return self._text

    @property
    def has_news(self) -> bool:
        """Whether there is something to send."""
        return bool(self._new_ids)

    @property
    def keeps_memory(self) -> bool:
        """Whether its memory is requested."""
        return self.ticket.request.keep_memory

    @property
    def num_read(self) -> int:
        """Tokens of prompt and answer that its memory has read."""
        return self.position + len(self.written) - (self.last is not None and not self.has_read_last)

    def piece(self, reason: FinishReason | None = None, error: str | None = None) -> Piece:
        """Everything new since the last piece."""
        text, self._new_text = self._new_text, ""
        if self.tokenizer is not None:
            if not self.params.stop:
                text += self.text.push(self._new_ids)
            if reason is not None:
                text += self.text.finish()
        piece = Piece(self.index, self._new_ids, text, self._new_logprobs, reason, error, num_read=self.num_read)
        self._new_ids, self._new_logprobs, self.is_fresh = [], [], self.is_fresh and not piece.ids
        return piece
