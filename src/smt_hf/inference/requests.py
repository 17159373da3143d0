"""The engine's inputs and outputs."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from ..errors import InputError
from .sampling import SamplingParams, TokenLogprob

FinishReason = Literal["stop", "length", "cancelled", "timeout", "error"]


class EngineFull(RuntimeError):
    """Too many requests are waiting: try again later."""


class EngineStopped(RuntimeError):
    """The engine accepts no more requests."""


@dataclass(frozen=True)
class Request:
    """One prompt and what to do with it.

    Args:
        prompt_ids: The tokens to read. With none, the student writes from the memory as it is.
        params: The sampling settings.
        memory: `(K, D)`, the memory to start from; the initial memory when `None`.
        prompt_logprobs: Also return the log-probability of every token of the prompt; that of the first comes from the memory
            before it. The whole prompt is then read.
        keep_memory: Return the memory after the last token of each answer, which is then read as well, and the current memory
            with every piece.
        use_teacher: Let the engine's teacher read the prompt in one pass, except for its last tokens; see [`TeacherReader`]. The
            memory is then not quite the student's own, and is not kept for other prompts.
        random_state: Random state that an earlier answer ended with; the draws continue from it instead of starting at the seed.
        timeout: Seconds after which the request ends, with what has been written by then.
    """

    prompt_ids: Sequence[int]
    params: SamplingParams = field(default_factory=SamplingParams)
    memory: torch.Tensor | None = None
    prompt_logprobs: bool = False
    keep_memory: bool = False
    use_teacher: bool = False
    random_state: torch.Tensor | None = None
    timeout: float | None = None


@dataclass
class Piece:
    """The new part of one answer.

    Args:
        index: which of the `n` answers this is.
        ids: the new tokens.
        text: the new text. It may lag behind the tokens while a character or a stop string may still be completed.
        logprobs: the log-probabilities of the new tokens, if requested.
        finish_reason: why the answer ends with this piece; `None` if it continues.
        error: what went wrong, with `finish_reason="error"`.
        memory: `(K, D)`, if requested.
        num_read: tokens of prompt and answer that the memory has read. The last token written is read in the next step.
    """

    index: int
    ids: list[int]
    text: str
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    error: str | None = None
    memory: torch.Tensor | None = None
    num_read: int = 0


@dataclass
class Answer:
    """A whole answer, see [`Piece`].

    If requested, `memory` `(K, D)` has read all of the answer, or `Ticket.num_read` tokens of the prompt, and `random_state` is
    the random state after the last draw.
    """

    ids: list[int] = field(default_factory=list)
    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    error: str | None = None
    memory: torch.Tensor | None = None
    random_state: torch.Tensor | None = None


class Ticket:
    """A request on its way through the engine.

    Attributes:
        answers: the `n` answers, which grow while they are written.
        prompt_logprobs: the log-probabilities of the prompt's tokens, if requested.
        num_cached: tokens of the prompt that did not have to be read again.
        num_read: tokens of the prompt that have been read, cached ones included.
    """

    def __init__(
        self, request: Request, on_piece: Callable[["Ticket", Piece], None] | None = None, stream: bool = True
    ):
        self.request = request
        self.on_piece = on_piece
        self.streams = stream and on_piece is not None
        self.answers = [Answer() for _ in range(request.params.n)]
        self.prompt_logprobs: list[TokenLogprob] = []
        self.num_cached = self.num_read = 0
        self.cancelled = False
        self._done = threading.Event()

    def cancel(self) -> None:
        """Ends the request before the next step. May be called from any thread."""
        self.cancelled = True

    def wait(self, timeout: float | None = None) -> list[Answer]:
        """Waits until all answers are finished, and returns them.

        Raises:
            TimeoutError: if they are not finished after `timeout` seconds.
        """
        if not self._done.wait(timeout):
            raise TimeoutError(f"the answers are not finished after {timeout} seconds")
        return self.answers

    @property
    def done(self) -> bool:
        """Whether all answers are finished."""
        return self._done.is_set()

    def add(self, piece: Piece) -> None:
        """Adds a piece to its answer. Called by the engine."""
        answer = self.answers[piece.index]
        answer.ids += piece.ids
        answer.text += piece.text
        answer.logprobs += piece.logprobs
        answer.finish_reason, answer.error = piece.finish_reason, piece.error
        if all(answer.finish_reason for answer in self.answers):
            self._done.set()


def check_request(
    request: Request, vocab_size: int, memory_shape: tuple[int, ...], max_rows: int, has_teacher: bool = False
) -> None:
    """Checks what only the engine can check.

    Raises:
        InputError: for token ids outside the vocabulary, a memory of the wrong shape, more answers than rows, or a teacher that
            is missing or cannot be used.
    """
    for name, ids in (("prompt", request.prompt_ids), ("logit_bias", request.params.logit_bias)):
        if len(ids) and not 0 <= min(ids) <= max(ids) < vocab_size:
            wrong = next(token for token in ids if not 0 <= token < vocab_size)
            raise InputError(
                f"{name} contains the token id {wrong}: for this student it must be between 0 and {vocab_size - 1}"
            )
    if request.memory is not None and tuple(request.memory.shape) != memory_shape:
        raise InputError(f"the memory has shape {tuple(request.memory.shape)}: the student's has {memory_shape}")
    if request.params.n > max_rows:
        raise InputError(f"n={request.params.n} must be at most {max_rows}")
    if request.use_teacher:
        if not has_teacher:
            raise InputError("use_teacher=true needs a teacher, and none is loaded: leave it out")
        for name, given in (("a memory", request.memory is not None), ("echo with logprobs", request.prompt_logprobs)):
            if given:
                raise InputError(
                    f"use_teacher=true reads a prompt from its beginning in one pass: leave it out, or {name}"
                )
