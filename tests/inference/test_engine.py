"""Many requests at once: each gets what it would get alone, and nobody waits longer than he must."""

import itertools
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from smt_hf.errors import InputError
from smt_hf.inference import Engine, EngineFull, EngineStopped, PrefixCache, Request, SamplingParams, TorchBackend
from smt_hf.inference import engine as engine_module

from .conftest import alone

GREEDY = SamplingParams(max_new_tokens=20, temperature=0)
PROMPTS = [list(text.encode()) for text in ("Once upon a time", "Tom", "é", "a" * 150, "The red plane")]


class Counting(TorchBackend):
    """Counts the rows that it is given."""

    def __init__(self, student):
        super().__init__(student)
        self.num_updates, self.sizes = 0, []

    def update(self, memory, input_ids):
        self.num_updates += len(memory)
        self.sizes.append(len(memory))
        return super().update(memory, input_ids)


def memory_after(student, ids):
    memory = student.initial_memory[None]
    for token in ids:
        memory = student.update(memory, torch.tensor([token]))
    return memory[0]


@pytest.mark.parametrize("max_rows", [1, 2, 3, 256])
def test_together_as_alone(writer, max_rows):
    engine = Engine.of(writer, max_rows=max_rows)
    for _ in range(2):  # the second time from what was kept
        answers = engine.generate([Request(prompt, GREEDY) for prompt in PROMPTS])
        assert [answer.ids for (answer,) in answers] == [alone(writer, p, max_new_tokens=20) for p in PROMPTS]
    assert not engine.rows and not engine.waiting and not len(engine.memory)


def test_requests_join_and_leave_while_others_write(writer, tokenizer):
    engine = Engine.of(writer, tokenizer, max_rows=4).start()
    tickets = []
    for number in range(30):
        params = SamplingParams(max_new_tokens=1 + number % 7 * 9, temperature=0.8, seed=number)
        tickets.append((engine.submit(Request(PROMPTS[number % 5], params)), number))
        time.sleep(0.002)
    for ticket, number in tickets:
        expected = alone(writer, PROMPTS[number % 5], temperature=0.8, seed=number, max_new_tokens=1 + number % 7 * 9)
        (answer,) = ticket.wait(60)
        assert answer.ids == expected and answer.finish_reason == ("stop" if expected[-1] == 256 else "length")
        assert answer.text == tokenizer.decode(expected, skip_special_tokens=True)
    engine.stop()


def test_an_answer_ends_at_end_tokens_and_stop_strings(writer, tokenizer):
    free = alone(writer, PROMPTS[0], max_new_tokens=20)
    text = tokenizer.decode(free)
    engine = Engine.of(writer, tokenizer, end_ids=[free[4]])
    ((answer,),) = engine.generate([Request(PROMPTS[0], GREEDY)])
    end = free.index(free[4]) + 1
    assert answer.ids == free[:end] and answer.finish_reason == "stop"
    stop = text[6:8]
    params = SamplingParams(max_new_tokens=20, temperature=0, stop=("never", stop))
    ((answer,),) = Engine.of(writer, tokenizer).generate([Request(PROMPTS[0], params)])
    assert answer.text == text[: text.index(stop)] and answer.finish_reason == "stop" and len(answer.ids) < 20


def test_a_known_prefix_is_not_read_again(writer):
    backend = Counting(writer)
    engine = Engine(backend, prefixes=PrefixCache())
    ((first,),) = engine.generate([Request(PROMPTS[3], GREEDY)])
    assert backend.num_updates == 150 + 19
    for turn in (PROMPTS[3] + first.ids + [33, 33], PROMPTS[3] + [34], PROMPTS[3][:140], PROMPTS[3]):
        backend.num_updates = 0
        ticket = engine.submit(Request(turn, GREEDY))
        ((answer,),) = engine.generate([Request(turn, GREEDY)])[:1]
        assert answer.ids == ticket.wait()[0].ids == alone(writer, turn, max_new_tokens=20)
        known = {152 + 20: 169, 151: 150, 140: 128, 150: 150}[len(turn)]
        assert ticket.num_cached == known and backend.num_updates == 2 * (len(turn) - known + 19)


def test_memories_go_in_and_come_out(writer):
    memory = memory_after(writer, PROMPTS[0])
    request = Request([], GREEDY, memory=memory, keep_memory=True)
    ((answer,),) = Engine.of(writer).generate([request])
    assert answer.ids == alone(writer, PROMPTS[0], max_new_tokens=20)
    torch.testing.assert_close(answer.memory, memory_after(writer, PROMPTS[0] + answer.ids), rtol=0, atol=1e-5)
    assert not answer.memory.is_inference()
    read = Request(PROMPTS[1], SamplingParams(max_new_tokens=0), memory=memory, keep_memory=True)
    ((answer,),) = Engine.of(writer).generate([read])
    torch.testing.assert_close(answer.memory, memory_after(writer, PROMPTS[0] + PROMPTS[1]), rtol=0, atol=1e-5)
    ((answer,),) = Engine.of(writer).generate([Request([], GREEDY)])  # the beginning of a text
    assert len(answer.ids) == 20


def test_log_probabilities_of_prompt_and_answer(writer):
    params = SamplingParams(max_new_tokens=5, temperature=0, logprobs=3)
    engine = Engine.of(writer)
    tickets = [engine.submit(Request(prompt, params, prompt_logprobs=True)) for prompt in PROMPTS]
    engine.generate([Request(PROMPTS[0], GREEDY)])
    for prompt, ticket in zip(PROMPTS, tickets, strict=True):
        (answer,) = ticket.wait()
        ids = prompt + answer.ids
        memories = [writer.initial_memory]
        for token in ids[:-1]:
            memories.append(writer.update(memories[-1][None], torch.tensor([token]))[0])
        expected = writer.readout(torch.stack(memories)).log_softmax(dim=-1)
        scores = ticket.prompt_logprobs + answer.logprobs
        assert [score.token for score in scores] == ids
        torch.testing.assert_close(
            torch.tensor([score.logprob for score in scores]).double(),
            expected[range(len(ids)), ids],
            rtol=0,
            atol=1e-4,
        )
        assert list(scores[0].top) == expected[0].topk(3).indices.tolist()


def test_a_short_request_is_not_stuck_behind_a_long_prompt(writer):
    engine = Engine(TorchBackend(writer), max_rows=2)
    long = [engine.submit(Request([65] * 20_000, GREEDY)) for _ in range(3)]
    ((answer,),) = engine_until(engine, Request(PROMPTS[0], GREEDY))
    assert answer.ids == alone(writer, PROMPTS[0], max_new_tokens=20)
    assert not any(ticket.done for ticket in long) and sum(ticket.num_read for ticket in long) < 5000
    for ticket in long:
        ticket.cancel()
    engine._turn()
    assert not engine.rows and not engine.waiting
    assert {answer.finish_reason for ticket in long for answer in ticket.answers} == {"cancelled"}


def engine_until(engine, request):
    ticket = engine.submit(request)
    while not ticket.done:
        engine._turn()
    return [ticket.wait()]


def test_what_has_taken_too_long_ends_with_what_there_is(writer, tokenizer):
    engine = Engine.of(writer, tokenizer)
    ticket = engine.submit(Request(PROMPTS[1], SamplingParams(max_new_tokens=10**6, temperature=0), timeout=0.2))
    while not ticket.done:
        engine._turn()
    (answer,) = ticket.answers
    assert answer.finish_reason == "timeout" and 0 < len(answer.ids) < 10**6


def test_the_queue_is_bounded_and_stops(writer):
    engine = Engine.of(writer, max_rows=1, max_waiting=2).start()
    endless = SamplingParams(max_new_tokens=10**6, temperature=1.0, logit_bias={256: -100})
    tickets = [engine.submit(Request(PROMPTS[0], endless))]
    while not engine.rows:
        time.sleep(0.01)
    with pytest.raises(EngineFull):
        for _ in range(10):
            tickets.append(engine.submit(Request(PROMPTS[0], endless)))
    engine.stop(drain_seconds=0.1)
    assert all(ticket.wait(1)[0].finish_reason == "cancelled" for ticket in tickets)
    with pytest.raises(EngineStopped):
        engine.submit(Request(PROMPTS[0], GREEDY))


def test_pieces_add_up_and_come_on_one_thread(writer, tokenizer):
    pieces, threads, done = [], set(), threading.Event()

    def take(ticket, piece):
        pieces.append(piece)
        threads.add(threading.current_thread().name)
        if ticket.done:
            done.set()

    engine = Engine.of(writer, tokenizer, piece_seconds=0.0).start()
    params = SamplingParams(max_new_tokens=50, n=3, seed=1, logprobs=0)
    ticket = engine.submit(Request(PROMPTS[0], params), take)
    assert done.wait(60) and threads == {"smt-hf engine"}
    for index, answer in enumerate(ticket.wait()):
        mine = [piece for piece in pieces if piece.index == index]
        assert sum((piece.ids for piece in mine), []) == answer.ids and len(mine) > 1
        assert (
            "".join(piece.text for piece in mine)
            == answer.text
            == tokenizer.decode(answer.ids, skip_special_tokens=True)
        )
        assert [score.token for piece in mine for score in piece.logprobs] == answer.ids
        assert [piece.finish_reason is None for piece in mine] == [True] * (len(mine) - 1) + [False]
    engine.stop()


@pytest.mark.parametrize("few, least_pieces, most_pieces", [(32, 14, 22), (1, 3, 10)])
def test_pieces_come_in_time_while_others_arrive(writer, monkeypatch, few, least_pieces, most_pieces):
    clock = itertools.count(0, 0.005)  # looked at twice a turn
    monkeypatch.setattr(engine_module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(engine_module, "FEW_STREAMS", few)
    engine, times = Engine.of(writer, end_ids=()), []
    params = SamplingParams(max_new_tokens=100, temperature=0)
    first = engine.submit(Request(PROMPTS[1], params), lambda ticket, piece: times.append(len(ticket.answers[0].ids)))
    for _ in range(40):  # in 0.4 seconds; each newcomer's first piece comes at once
        engine.submit(Request(PROMPTS[2], SamplingParams(max_new_tokens=4, temperature=0)), lambda ticket, piece: None)
        engine._turn()
    assert least_pieces <= len(times) <= most_pieces and not first.done
    assert times[0] == 1  # the first at once


def test_a_row_that_diverges_fails_alone(writer):
    engine = Engine.of(writer)
    broken = Request([], GREEDY, memory=torch.full_like(writer.initial_memory, float("nan")))
    (bad,), (good,) = engine.generate([broken, Request(PROMPTS[0], GREEDY)])
    assert bad.finish_reason == "error" and "not finite" in bad.error
    assert good.ids == alone(writer, PROMPTS[0], max_new_tokens=20)


def test_a_step_that_fails_ends_its_requests_only(writer, caplog):
    engine = Engine.of(writer)
    ticket = engine.submit(Request(PROMPTS[0], GREEDY))
    update, engine.backend.update = engine.backend.update, lambda *_: 1 / 0
    engine._turn()
    assert ticket.wait()[0].finish_reason == "error" and "division" in ticket.answers[0].error
    engine.backend.update = update
    assert engine.generate([Request(PROMPTS[0], GREEDY)])[0][0].ids == alone(writer, PROMPTS[0], max_new_tokens=20)


def test_requests_that_cannot_be_answered_are_refused(writer):
    engine = Engine.of(writer, max_rows=4)
    for request, word in (
        (Request([258], GREEDY), "258"),
        (Request([-1], GREEDY), "-1"),
        (Request([1], SamplingParams(logit_bias={999: 1})), "logit_bias"),
        (Request([1], GREEDY, memory=torch.zeros(1, 2)), "memory"),
        (Request([1], SamplingParams(n=5)), "n=5"),
    ):
        with pytest.raises(InputError, match=word):
            engine.submit(request)
