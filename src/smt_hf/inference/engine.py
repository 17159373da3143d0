"""The engine: many requests, one tensor of memories, one step for all.

A memory has a fixed size, so a row may join and leave at any step, wait aside in between, and be copied for the price of a few
kilobytes. That is all the scheduling there is to do.
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

READ_AHEAD = 8  # tokens that waiting prompts are read by between two steps of those that write
READERS = 8  # rows that are read ahead, those with the least left first
QUANTUM = 512  # steps that a row takes before it may have to wait for others
FEW_STREAMS = 32  # answers that are given out as often as asked for; more of them take turns as much longer
IDLE_SECONDS = 0.5


class Engine:
    """Answers requests with one student.

    In every step each row reads one token: the next of its prompt, or the one that it wrote last. Rows that have read their
    prompt then write. While some write and others read, those with the shortest prompts left are read ahead a little; nobody
    waits for the end of a long one. Where there are more requests than rows, rows that have had their turn wait aside.

    Use it from one thread with [`generate`], or start its own thread with [`start`] and [`submit`] from any.

    Args:
        backend: what computes the steps, or a student for [`backend_for`].
        tokenizer: a fast tokenizer for text and stop strings; `None` for tokens only.
        end_ids: tokens that end an answer.
        max_rows: rows that are stepped together.
        max_waiting: requests that may wait besides; then [`submit`] refuses.
        prefixes: what was read before; `None` reads every prompt from its beginning.
        teacher: reads the beginning of long prompts, for requests that ask for it.
        piece_seconds: pieces of an answer are given out together after so many seconds, the first and the last at once; more
            seldom where many are given out, which costs more than to write them.
        deliver: takes the list of `(ticket, piece)` that a step gives out, on the engine's thread; calls `ticket.on_piece` by
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
        self._stops_at = np.inf  # then what runs is cancelled
        self._closed = False
        self._sampler: tuple[list[Row], Sampler] = ([], None)
        self._out: list[tuple[Ticket, Piece]] = []
        self._gave_out = 0.0

    @classmethod
    def of(cls, student, tokenizer=None, backend: Backend | None = None, **options) -> "Engine":
        """The engine of a student, which ends answers where `generate()` would and keeps what it has read.

        Args:
            student: an [`SmtRnnForCausalLM`] in evaluation mode.
            tokenizer: its tokenizer, a fast one.
            backend: what computes the steps of this student; the student itself when `None`.
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
            request: what to do.
            on_piece: called with every [`Piece`], on the engine's thread.
            stream: give out pieces while an answer is written, not only its end.

        Raises:
            InputError: for a request that cannot be answered.
            EngineFull: if too many wait.
            EngineStopped: if the engine stops.
        """
        shape = tuple(self.backend.initial_memory.shape)
        check_request(request, self.backend.vocab_size, shape, self.max_rows, self.teacher is not None)
        ticket = Ticket(request, on_piece, stream)
        row = Row(ticket, self.tokenizer, self.backend.vocab_size)
        with self._lock:
            if self._closed:
                raise EngineStopped("the engine is stopping")
            if self._thread is not None and len(self.waiting) >= self.max_waiting:
                raise EngineFull(f"{len(self.waiting)} requests wait already: try again later")
            self.waiting.append(row)
            self.counts["requests"] += 1
            self._lock.notify_all()
        return ticket

    def generate(self, requests: Sequence[Request]) -> list[list[Answer]]:
        """The answers to each request, all written together; with or without a thread of the engine's own.

        Raises:
            InputError: for a request that cannot be answered.
        """
        tickets = [self.submit(request) for request in requests]
        if self._thread is None:
            self.run()
        return [ticket.wait() for ticket in tickets]

    def run(self) -> None:
        """Works on the calling thread until nothing is left to do; not while the engine has a thread of its own."""
        while self.waiting or self.rows:
            self._turn()

    def start(self) -> "Engine":
        """Starts the engine's thread."""
        self._thread = threading.Thread(target=self._run, name="smt-hf engine", daemon=True)
        self._thread.start()
        return self

    def stop(self, drain_seconds: float = 0.0) -> None:
        """Takes no more requests, gives those at hand so many seconds, cancels the rest, and ends the thread."""
        with self._lock:
            self._closed = True
            self._stops_at = time.monotonic() + drain_seconds
            self._lock.notify_all()
        if self._thread is not None:
            self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs and takes requests."""
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
        """One step of every row; whatever fails ends the requests that are in it and none after them."""
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
        """Ends what nobody waits for any more, and what has taken too long."""
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
                row.ending = gone[id(row)]  # once its last token is read
            elif id(row) in gone and row.ending is None:
                leaving.append(row)
        for row in leaving:
            self._end(row, gone[id(row)])
        self._keep_rows([number for number, row in enumerate(self.rows) if not row.ended])

    def _join(self) -> None:
        """Gives rows to those who wait. Who has had a turn then waits aside, if there are more than fit."""
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
        """Lets the teacher read where it is asked for and more is left to read than the student would read after it."""
        asks = [number for number, row in enumerate(rows) if row.may_use_teacher]
        asks = [number for number in asks if rows[number].num_left > self.teacher.last_tokens]
        if not asks:
            return
        states = self.teacher.read([rows[number].prompt for number in asks]).to(self.memory)
        for number, state in zip(asks, states, strict=True):
            memories[number] = state
            self.counts["tokens_taught"] += rows[number].take_over(self.teacher.last_tokens)

    def _stand_aside(self, count: int) -> list[Row]:
        """Takes up to so many rows out, those that have been at it longest."""
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
        """Lets some rows read so many tokens, or as many as the shortest of their prompts has left; then those at the end write."""
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
        """Log-probabilities of the tokens that some rows read next, or have written."""
        most = max(rows[number].params.logprobs or 0 for number in numbers)
        return token_logprobs(logits, ids[numbers].tolist(), most)

    def _write(self, rows: list[Row]) -> None:
        """The next token of each row, which have all read what there was to read."""
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
                row.ending = reason  # its last token is read in the next step
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
        for index in range(row.index, row.index + row.num_rows):  # all of them, if they have not parted yet
            piece = row.piece(reason, error)
            piece.index, piece.memory = index, answers[index].memory
            self._out.append((row.ticket, piece))

    def _places(self, rows: list[Row]) -> torch.Tensor | None:
        """Where the memories of some rows are; `None` if they are all, in this order."""
        if rows == self.rows:
            return None
        numbers = {id(row): number for number, row in enumerate(self.rows)}
        return torch.tensor([numbers[id(row)] for row in rows])

    def _copy(self, row: Row) -> torch.Tensor:
        """A row's memory as it is, a tensor like any other."""
        with torch.inference_mode(False):
            return self.memory[self.rows.index(row)].clone()

    def _keep_rows(self, numbers: list[int]) -> None:
        """Lets the other rows go."""
        if len(numbers) < len(self.rows):
            self.rows = [self.rows[number] for number in numbers]
            self.memory = self.memory[torch.tensor(numbers, dtype=torch.long)]

    def _give_out(self) -> None:
        """Hands over the pieces that are due: all together, so that whoever takes them is woken once."""
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
    """The tokens `(steps, n)` that some rows read next."""
    if steps == 1:
        return torch.tensor([[row.prompt[row.position] if row.is_reading else row.last for row in rows]])
    return torch.from_numpy(np.stack([row.prompt[row.position : row.position + steps] for row in rows], axis=1))


def _call_each(pieces: list[tuple[Ticket, Piece]]) -> None:
    for ticket, piece in pieces:
        ticket.on_piece(ticket, piece)
