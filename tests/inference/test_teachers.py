"""A teacher reads the beginning of a prompt: what the student goes on from, and what it writes."""

import numpy as np
import pytest
import torch

from smt_hf.errors import InputError
from smt_hf.inference import Engine, PrefixCache, Request, SamplingParams, TeacherReader, engine
from smt_hf.rollout import sweep_states, teacher_states
from tests.conftest import tiny_model

from .test_engine import Counting

PARAMS = SamplingParams(max_new_tokens=6, temperature=0)


@pytest.fixture(scope="module")
def pair():
    joint = tiny_model()
    return joint.export_student().eval().requires_grad_(False), joint.teacher.eval().requires_grad_(False)


def some_prompts(*lengths):
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(20, (length,), generator=generator).tolist() for length in lengths]


def expected(student, teacher, prompt, last_tokens, context_length=256):
    """Teacher, then student, then six of the likeliest tokens."""
    ids = torch.tensor([prompt])
    first, last = ids[:, : len(prompt) - last_tokens], ids[:, len(prompt) - last_tokens :]
    memory = student.read(first[:, -context_length:], teacher=teacher)
    if not last_tokens:
        return student.generate(memory=memory, max_new_tokens=6, do_sample=False, eos_token_id=None)[0].tolist()
    written = student.generate(last, memory=memory, max_new_tokens=6, do_sample=False, eos_token_id=None)
    return written[0, last_tokens:].tolist()


@pytest.mark.parametrize("last_tokens, context_length", [(4, 256), (0, 256), (7, 9)])
def test_the_teacher_reads_all_but_the_last_tokens(pair, last_tokens, context_length):
    student, teacher = pair
    backend = Counting(student)
    reader = TeacherReader(teacher, last_tokens, context_length)
    engine = Engine(backend, teacher=reader, prefixes=PrefixCache())
    prompts = some_prompts(30, 12, 8, 30)
    answers = engine.generate([Request(prompt, PARAMS, use_teacher=True) for prompt in prompts])
    assert [answer.ids for (answer,) in answers] == [
        expected(student, teacher, prompt, last_tokens, context_length) for prompt in prompts
    ]
    assert backend.num_updates == 4 * (last_tokens + 5) and not len(engine.prefixes)
    assert engine.counts["tokens_taught"] == sum(map(len, prompts)) - 4 * last_tokens


@pytest.mark.parametrize("num_sweeps", [1, 2, 3])
def test_that_is_what_sweeps_over_all_segments_come_to(pair, num_sweeps):
    student, teacher = pair
    (prompt,) = some_prompts(20)
    segments = torch.tensor(prompt).view(1, 5, 4)
    starts = teacher_states(teacher, torch.tensor([prompt]), torch.arange(-1, 16, 4))
    ends = torch.cat([segments, segments[:, :1]], dim=1)  # one more segment, for the state before it
    starts = torch.cat([starts, starts[:, :1]], dim=1)
    swept = sweep_states(student, starts, ends, None, num_sweeps)[:, -1]
    engine = Engine(student, teacher=TeacherReader(teacher, last_tokens=4 * num_sweeps))
    request = Request(prompt, SamplingParams(max_new_tokens=0), keep_memory=True, use_teacher=True)
    ((answer,),) = engine.generate([request])
    torch.testing.assert_close(answer.memory, swept[0], rtol=0, atol=1e-10)


def test_short_prompts_known_prefixes_and_other_requests_are_the_students(pair):
    student, teacher = pair
    short, long, other = some_prompts(4, 40, 25)
    engine = Engine.of(student, teacher=TeacherReader(teacher, last_tokens=4), end_ids=())
    alone = [
        student.generate(torch.tensor([prompt]), max_new_tokens=6, do_sample=False, eos_token_id=None)[0].tolist()
        for prompt in (short, other)
    ]
    requests = [Request(short, PARAMS, use_teacher=True), Request(other, PARAMS)]
    answers = engine.generate(requests)
    assert [prompt + answer.ids for prompt, (answer,) in zip((short, other), answers, strict=True)] == alone
    assert engine.counts["tokens_taught"] == 0
    engine.prefixes.keep(np.array(long[:37]), student.read(torch.tensor([long[:37]])).states[0])
    ticket = engine.submit(Request(long, PARAMS, use_teacher=True))
    engine.run()
    assert engine.counts["tokens_taught"] == 0 and ticket.num_cached == 37  # fewer are left than it would read itself
    ticket = engine.submit(Request([*long, *other], PARAMS, use_teacher=True))
    engine.run()
    assert ticket.num_cached == 0 and ticket.answers[0].ids == expected(student, teacher, [*long, *other], 4)


def test_it_reads_a_bounded_piece_between_two_steps(pair, monkeypatch):
    monkeypatch.setattr(engine, "MOST_TOKENS", 50)
    student, teacher = pair
    reader = TeacherReader(teacher, last_tokens=2)
    sizes, read = [], reader.read
    reader.read = lambda prompts: (sizes.append(len(prompts)), read(prompts))[1]
    together = Engine(student, teacher=reader)
    prompts = some_prompts(*[22] * 5, 80)
    params = SamplingParams(max_new_tokens=6, temperature=0.7, n=2, seed=1)
    tickets = [together.submit(Request(prompt, params, use_teacher=True)) for prompt in prompts]
    together.run()
    assert sizes == [2, 2, 1, 1]
    (first, second), ticket = tickets[0].wait(), together.submit(Request(prompts[0], params, use_teacher=True))
    together.run()
    assert [first.ids, second.ids] == [answer.ids for answer in ticket.wait()] and first.ids != second.ids


def test_what_it_cannot_help_with_is_refused(pair):
    student, teacher = pair
    with_teacher = Engine(student, teacher=TeacherReader(teacher))
    for chosen, request, word in (
        (Engine(student), Request([1], use_teacher=True), "needs a teacher"),
        (with_teacher, Request([1], use_teacher=True, memory=student.initial_memory), "or a memory"),
        (with_teacher, Request([1], use_teacher=True, prompt_logprobs=True), "or echo with logprobs"),
    ):
        with pytest.raises(InputError, match=word):
            chosen.submit(request)
