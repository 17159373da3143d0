"""The engine: many requests, one tensor of memories, one step for all.

A memory has a fixed size, so a row may join or leave at any step, wait aside in between, and be copied at the cost of a few
kilobytes. There is no more scheduling to do than that.
"""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

import numpy as np
import torch

from .backends import Backend, backend_for
from .prefixes import PrefixCache
from .requests import Answer, EngineFull, EngineStopped, FinishReason, Piece, Request, Ticket, check_request
from .rows import Row
from .sampling import Sampler, token_logprobs
from .teachers import MOST_TOKENS, TeacherReader

logger = logging.getLogger(__name__)

READ_AHEAD = 8  # tokens of a prompt that are read between two steps of the rows that write
READERS = 8  # rows that are read ahead, shortest remaining prompts first
QUANTUM = 512  # steps that a row takes before it may have to wait for others
FEW_STREAMS = 32  # up to this many streams are sent as often as requested; more are sent proportionally less often
IDLE_SECONDS = 0.5


class Engine:
    """Answers requests with one student.

    In every step each row reads one token: the next one of its prompt, or the one that it wrote last. Rows that have read their
    prompt then write. While some rows write and others read, the shortest remaining prompts are read ahead a little, and no row
    waits for a long prompt to end. With more requests than rows, rows that have had their turn wait aside.

    Use it from one thread with [`generate`], or start its own thread with [`start`] and call [`submit`] from any thread.

    Args:
        backend: the backend that computes the steps, or a student for [`backend_for`].
        tokenizer: a fast tokenizer for text and stop strings; `None` for tokens only.
        end_ids: tokens that end an answer.
        max_rows: rows that are stepped together.
        max_waiting: requests that may wait for a row; [`submit`] refuses any more.
        prefixes: memories of prefixes read before; with `None`, every prompt is read from its beginning.
        teacher: reads the beginning of long prompts, for requests that ask for it.
        piece_seconds: seconds between the pieces of an answer, except that the first and the last are sent at once; longer when
            there are many streams, since sending pieces costs more than writing them.
        deliver: called on the engine's thread with the list of `(ticket, piece)` that a step sends; calls `ticket.on_piece` by
            default.
    """

    def __init__(
        self,
        backend: Backend,
        tokenizer=None,
        end_ids: Sequence[int] = (),
        max_rows: int = 256,
        max_waiting: int = 1024,
        prefixes: PrefixCache | None = None,
        teacher: TeacherReader | None = None,
        piece_seconds: float = 0.02,
        deliver: Callable[[list[tuple[Ticket, Piece]]], None] | None = None,
    ):
        self.backend = backend_for(backend) if isinstance(backend, torch.nn.Module) else backend
        self.tokenizer = tokenizer
        self.end_ids = frozenset(end_ids)
        self.max_rows, self.max_waiting = max_rows, max_waiting
        self.prefixes, self.teacher, self.piece_seconds = prefixes, teacher, piece_seconds
        self.deliver = deliver or _call_each
        self.counts = Counter(steps=0, tokens_read=0, tokens_taught=0, tokens_written=0, tokens_cached=0, requests=0)
        self.rows: list[Row] = []
        self.memory = self.backend.initial_memory[:0, None].reshape(0, *self.backend.initial_memory.shape)
        self.waiting: deque[Row] = deque()
        self._lock = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stops_at = np.inf  # when running requests are cancelled
        self._closed = False
        self._sampler: tuple[list[Row], Sampler] = ([], None)
        self._out: list[tuple[Ticket, Piece]] = []
        self._gave_out = 0.0

    @classmethod
    def of(cls, student, tokenizer=None, backend: Backend | None = None, **options) -> "Engine":
        """Builds the engine of a student. It ends answers where `generate()` would and keeps the memories of what it has read.

        Args:
            student: an [`SmtRnnForCausalLM`] in evaluation mode.
            tokenizer: its fast tokenizer.
            backend: the backend that computes this student's steps; the student itself when `None`.
            options: further arguments of [`Engine`].
        """
        ends = student.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
        options = {"prefixes": PrefixCache(), "end_ids": ends, **options}
        return cls(backend or backend_for(student), tokenizer, **options)

    # ---- from any thread ----

    def submit(
        self, request: Request, on_piece: Callable[[Ticket, Piece], None] | None = None, stream: bool = True
    ) -> Ticket:
        """Puts a request into the queue.

        Args:
            request: the request.
            on_piece: called with the ticket and every [`Piece`], on the engine's thread.
            stream: send pieces while an answer is written, not only at its end.

        Raises:
            InputError: for a request that cannot be answered.
            EngineFull: if too many requests are waiting.
            EngineStopped: if the engine is stopping.
        """
        shape = tuple(self.backend.initial_memory.shape)
        check_request(request, self.backend.vocab_size, shape, self.max_rows, self.teacher is not None)
        ticket = Ticket(request, on_piece, stream)
        row = Row(ticket, self.tokenizer, self.backend.vocab_size)
        with self._lock:
            if self._closed:
                raise EngineStopped("the engine is stopping")
            if self._thread is not None and len(self.waiting) >= self.max_waiting:
                raise EngineFull(f"{len(self.waiting)} requests are already waiting: try again later")
            self.waiting.append(row)
            self.counts["requests"] += 1
            self._lock.notify_all()
        return ticket

    def generate(self, requests: Sequence[Request]) -> list[list[Answer]]:
        """Returns the answers to each request, all written together. Works whether or not the engine has its own thread.

        Raises:
            InputError: for a request that cannot be answered.
        """
        tickets = [self.submit(request) for request in requests]
        if self._thread is None:
            self.run()
        return [ticket.wait() for ticket in tickets]

    def run(self) -> None:
        """Works on the calling thread until nothing is left to do. Not for an engine that has its own thread."""
        while self.waiting or self.rows:
            self._turn()

    def start(self) -> "Engine":
        """Starts the engine's thread."""
        self._thread = threading.Thread(target=self._run, name="smt-hf engine", daemon=True)
        self._thread.start()
        return self

    def stop(self, drain_seconds: float = 0.0) -> None:
        """Refuses new requests, gives the current ones `drain_seconds` to finish, cancels the rest, and ends the thread."""
        with self._lock:
            self._closed = True
            self._stops_at = time.monotonic() + drain_seconds
            self._lock.notify_all()
        if self._thread is not None:
            self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether the engine's thread is running and accepts requests."""
        return self._thread is not None and self._thread.is_alive() and not self._closed

    # ---- the engine's thread ----

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self.waiting and not self.rows and not self._closed:
                    self._lock.wait(IDLE_SECONDS)
                if self._closed and not self.waiting and not self.rows:
                    return
            self._turn()

    @torch.inference_mode()
    def _turn(self) -> None:
        """Takes one step of every row. An error ends the requests in that step, but no later ones."""
        try:
            self._leave()
            self._join()
            self._step()
            self._give_out()
        except Exception as error:
            logger.exception("a step of the engine failed")
            for row in list(self.rows):
                self._end(row, "error", f"a step failed ({type(error).__name__}: {error})")
            self._keep_rows([])
            self._give_out()

    def _leave(self) -> None:
        """Ends requests that nobody is waiting for any more, and those past their deadline."""
        now = time.monotonic()
        gone = {}
        with self._lock:
            waiting = list(self.waiting)
        for row in [*self.rows, *waiting]:
            if row.ticket.cancelled or now > self._stops_at:
                gone[id(row)] = "cancelled"
            elif now > row.deadline:
                gone[id(row)] = "timeout"
        if not gone:
            return
        with self._lock:
            leaving = [row for row in self.waiting if id(row) in gone]
            self.waiting = deque(row for row in self.waiting if id(row) not in gone)
        for row in self.rows:
            if id(row) in gone and row.keeps_memory and row.last is not None and row.ending is None:
                row.ending = gone[id(row)]  # ends once its last token is read
            elif id(row) in gone and row.ending is None:
                leaving.append(row)
        for row in leaving:
            self._end(row, gone[id(row)])
        self._keep_rows([number for number, row in enumerate(self.rows) if not row.ended])

    def _join(self) -> None:
        """Gives rows to waiting requests. If there are more than fit, rows that have had their turn wait aside."""
        if not self.waiting:
            return
        with self._lock:
            waiting = list(self.waiting)
        crowd = len(self.rows) + sum(row.num_rows for row in waiting) - self.max_rows
        aside = self._stand_aside(crowd) if crowd > 0 else []
        joined, memories, room, taught = [], [], self.max_rows - len(self.rows), 0
        for row in waiting:
            room -= row.num_rows
            taught += self.teacher.num_given(row.num_left) if row.may_use_teacher else 0
            if room < 0 or joined and taught > MOST_TOKENS:
                break
            joined.append(row)
        with self._lock:
            for _ in joined:
                self.waiting.popleft()
            self.waiting.extend(aside)
        before = [row.position for row in joined]
        for row in joined:
            row.num_steps = 0
            memories.append(row.recall(self.backend.initial_memory, self.prefixes))
        if joined:
            self._teach(joined, memories)
            known = [row.position - start for row, start in zip(joined, before, strict=True) if not row.was_taught]
            self.counts["tokens_cached"] += sum(known)
            self.rows = self.rows + joined
            self.memory = torch.cat([self.memory, torch.stack(memories)])
            self._write([row for row in joined if not row.is_reading and row.last is None])  # nothing to read

    def _teach(self, rows: list[Row], memories: list[torch.Tensor]) -> None:
        """Lets the teacher read, for requests that ask for it and have more left than the student's own last tokens."""
        asks = [number for number, row in enumerate(rows) if row.may_use_teacher]
        asks = [number for number in asks if rows[number].num_left > self.teacher.last_tokens]
        if not asks:
            return
        states = self.teacher.read([rows[number].prompt for number in asks]).to(self.memory)
        for number, state in zip(asks, states, strict=True):
            memories[number] = state
            self.counts["tokens_taught"] += rows[number].take_over(self.teacher.last_tokens)

    def _stand_aside(self, count: int) -> list[Row]:
        """Takes out up to `count` rows, those that have run longest."""
        served = [number for number, row in enumerate(self.rows) if row.num_steps >= QUANTUM]
        served = sorted(served, key=lambda number: -self.rows[number].num_steps)[:count]
        aside = [self.rows[number] for number in served]
        for number, row in zip(served, aside, strict=True):
            row.memory = self.memory[number].clone()
        self._keep_rows([number for number in range(len(self.rows)) if number not in set(served)])
        return aside

    def _step(self) -> None:
        if not self.rows:
            return
        if all(row.is_reading for row in self.rows):
            self._advance(self.rows, READ_AHEAD)
            return
        self._advance(self.rows, 1)
        readers = sorted((row for row in self.rows if row.is_reading), key=lambda row: row.num_left)
        if readers:
            self._advance(readers[:READERS], READ_AHEAD)

    def _advance(self, rows: list[Row], steps: int) -> None:
        """Lets rows read `steps` tokens, or what the shortest of their prompts has left. Those with nothing left to read then write."""
        steps = min([steps, *(row.num_left for row in rows if row.is_reading)])
        ids, places = _next_ids(rows, steps), self._places(rows)
        memory = self.memory if places is None else self.memory[places]
        scored = [number for number, row in enumerate(rows) if row.is_reading and row.scores_prompt]
        for step in range(steps):
            if scored:
                logits = self.backend.readout(memory[scored])
                for number, *logprob in zip(scored, self._score(rows, scored, logits, ids[step]), strict=True):
                    rows[number].ticket.prompt_logprobs += logprob
            memory = self.backend.update(memory, ids[step])
            if self.prefixes is not None:
                for number, row in enumerate(rows):
                    if row.reaches_milestone(step + 1):
                        self.prefixes.keep(row.prompt[: row.position + step + 1], memory[number])
        if places is None:
            self.memory = memory
        else:
            self.memory[places] = memory
        num_reading = sum(row.read(steps) for row in rows)
        self.counts["tokens_read"] += steps * num_reading
        self.counts["steps"] += steps
        self._write([row for row in rows if not row.is_reading])

    def _score(self, rows: list[Row], numbers: list[int], logits: torch.Tensor, ids: torch.Tensor) -> list:
        """Log-probabilities of the tokens that the numbered rows read next or have written."""
        most = max(rows[number].params.logprobs or 0 for number in numbers)
        return token_logprobs(logits, ids[numbers].tolist(), most)

    def _write(self, rows: list[Row]) -> None:
        """Writes the next token of each row. All of them have read what there was to read."""
        writers = []
        for row in rows:
            if row.ending is not None or row.params.max_new_tokens == 0:
                self._end(row, row.ending or "length")
                continue
            writers.append(row)
            if row.last is None and row.num_rows > 1:
                writers += self._fork(row)
        if writers:
            self._choose(writers)
        if any(row.ended for row in self.rows):
            self._keep_rows([number for number, row in enumerate(self.rows) if not row.ended])

    def _fork(self, row: Row) -> list[Row]:
        """Rows for the other answers to a prompt that has been read."""
        place = self.rows.index(row)
        forks = [row.fork(index) for index in range(1, row.params.n)]
        row.num_rows = 1
        self.rows = self.rows + forks
        self.memory = torch.cat([self.memory, self.memory[place].expand(len(forks), -1, -1)])
        return forks

    def _choose(self, rows: list[Row]) -> None:
        places = self._places(rows)
        logits = self.backend.readout(self.memory if places is None else self.memory[places])
        if not logits.sum().isfinite():
            finite = logits.sum(dim=-1).isfinite()
            for row, is_finite in zip(rows, finite.tolist(), strict=True):
                if not is_finite:
                    self._end(row, "error", "the student's logits are not finite: its memory has diverged")
            rows, logits = [row for row in rows if not row.ended], logits[finite]
            if not rows:
                return
        if self._sampler[0] != rows:
            self._sampler = (rows, Sampler([row.draws for row in rows], self.backend.vocab_size))
        tokens = self._sampler[1](logits)
        logprobs = [None] * len(rows)
        scored = [number for number, row in enumerate(rows) if row.params.logprobs is not None]
        if scored:
            scores = self._score(rows, scored, logits[scored], torch.tensor(tokens))
            for number, score in zip(scored, scores, strict=True):
                logprobs[number] = score
        self.counts["tokens_written"] += len(rows)
        for row, token, logprob in zip(rows, tokens, logprobs, strict=True):
            reason = row.write(token, logprob, self.end_ids)
            if reason is not None and row.keeps_memory:
                row.ending = reason  # the next step reads its last token
            elif reason is not None:
                self._end(row, reason)

    def _end(self, row: Row, reason: FinishReason, error: str | None = None) -> None:
        row.ended = True
        answers = row.ticket.answers
        if error is None and row in self.rows:
            has_read = row.written[: row.num_read - len(row.prompt)]
            if self.prefixes is not None and row.uses_prefixes and has_read and not row.is_reading:
                ids = np.concatenate([row.prompt, np.asarray(has_read, dtype=np.int64)])
                self.prefixes.keep(ids, self.memory[self.rows.index(row)])
            if row.keeps_memory:
                answers[row.index].memory = self._copy(row)
                generator = row.draws.generator
                answers[row.index].random_state = None if generator is None else generator.get_state()
        for index in range(row.index, row.index + row.num_rows):  # all answers, if the row has not been forked yet
            piece = row.piece(reason, error)
            piece.index, piece.memory = index, answers[index].memory
            self._out.append((row.ticket, piece))

    def _places(self, rows: list[Row]) -> torch.Tensor | None:
        """The indices of the rows' memories; `None` if `rows` are all rows in the engine's order."""
        if rows == self.rows:
            return None
        numbers = {id(row): number for number, row in enumerate(self.rows)}
        return torch.tensor([numbers[id(row)] for row in rows])

    def _copy(self, row: Row) -> torch.Tensor:
        """A copy of a row's memory, as an ordinary tensor."""
        with torch.inference_mode(False):
            return self.memory[self.rows.index(row)].clone()

    def _keep_rows(self, numbers: list[int]) -> None:
        """Drops all other rows."""
        if len(numbers) < len(self.rows):
            self.rows = [self.rows[number] for number in numbers]
            self.memory = self.memory[torch.tensor(numbers, dtype=torch.long)]

    def _give_out(self) -> None:
        """Delivers the pieces that are due, all together, so that the receiver is woken only once."""
        now = time.monotonic()
        streams = [row for row in self.rows if row.ticket.streams]
        due = now - self._gave_out >= self.piece_seconds * max(1.0, len(streams) / FEW_STREAMS)
        if due:
            self._gave_out = now
        for row in streams:
            if not (due or row.is_fresh and row.has_news):
                continue
            if row.has_news or row.keeps_memory:
                piece = row.piece()
                piece.memory = self._copy(row) if row.keeps_memory else None
                self._out.append((row.ticket, piece))
        if not self._out:
            return
        out, self._out = self._out, []
        for ticket, piece in out:
            ticket.add(piece)
        self.deliver([(ticket, piece) for ticket, piece in out if ticket.on_piece is not None])


def _next_ids(rows: list[Row], steps: int) -> torch.Tensor:
    """The tokens `(steps, n)` that the rows read next."""
    if steps == 1:
        return torch.tensor([[row.prompt[row.position] if row.is_reading else row.last for row in rows]])
    return torch.from_numpy(np.stack([row.prompt[row.position : row.position + steps] for row in rows], axis=1))


def _call_each(pieces: list[tuple[Ticket, Piece]]) -> None:
    for ticket, piece in pieces:
        ticket.on_piece(ticket, piece)
