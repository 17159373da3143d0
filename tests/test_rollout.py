"""DMT's states are exact rollouts, and its batched gradient is the unrolled one."""

import pytest
import torch

from smt_hf import SmtRnnCache
from smt_hf.losses import dynamics
from smt_hf.models.documents_smt import document_starts
from smt_hf.rollout import sequential_states, sweep_states, teacher_states

EXACT = {"rtol": 0, "atol": 1e-9}
DOCUMENTS = torch.tensor([[0] * 12, [0] * 5 + [1] * 7, [0] * 3 + [1] * 3 + [2] * 6])


@pytest.fixture
def rollout(joint, tokens):
    """Segments of 2 tokens: teacher's states before them, tokens, where documents begin."""
    columns = torch.arange(12).view(6, 2)
    encoded = teacher_states(joint.teacher, tokens[:, :12], columns[:, 0] - 1, documents=DOCUMENTS)
    return encoded, tokens[:, columns], document_starts(DOCUMENTS)[:, columns]


def naive_state(student, teacher_state, row, document, first, last):
    """The student's state before token `last` when it starts from the teacher's before token `first`."""
    memory = teacher_state
    for t in range(first, last):
        if t > first and document[t] != document[t - 1]:
            memory = student.initial_memory[None]
        memory = student.update(memory, row[t : t + 1])
    if last > first and document[last] != document[last - 1]:
        memory = student.initial_memory[None]
    return memory[0]


@pytest.mark.parametrize("num_sweeps", [0, 1, 3, 99])
def test_sweeps_are_bounded_rollouts(student, rollout, tokens, num_sweeps):
    encoded, segments, begins = rollout
    states = sweep_states(student, encoded, segments, begins, num_sweeps)
    for row in range(3):
        for segment in range(6):
            origin = max(segment - num_sweeps, 0)
            start = encoded[row, origin][None]
            expected = naive_state(student, start, tokens[row], DOCUMENTS[row], 2 * origin, 2 * segment)
            torch.testing.assert_close(states[row, segment], expected, **EXACT)


def test_sequential_is_the_full_rollout(student, rollout):
    encoded, segments, begins = rollout
    states = sequential_states(student, encoded, segments, begins)
    torch.testing.assert_close(states, sweep_states(student, encoded, segments, begins, 5), **EXACT)


def gradients(student):
    return {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}


def test_batched_detached_gradient_equals_the_unrolled_one(joint, student, tokens):
    tokens = tokens[:, :10]
    target = joint.teacher.encode(tokens, torch.arange(10)).detach()
    empty = joint.teacher.encode(tokens, torch.tensor([-1])).detach()

    memory, loss = empty[:, 0], 0
    for t in range(10):  # unrolled, each state cut from the graph before the next step
        memory = student.update(memory.detach(), tokens[:, t])
        loss = loss + (memory - target[:, t]).square().mean() / 10
    loss.backward()
    unrolled = gradients(student)
    student.zero_grad()

    segments = tokens[:, :, None]
    states = sequential_states(student, empty.expand(-1, 10, -1, -1), segments, None)
    output = student(segments.flatten(0, 1), cache=SmtRnnCache(states.flatten(0, 1)), output_memory=True)
    predicted = output.memory.unflatten(0, (3, 10))[:, :, 0]
    dynamics(predicted.double(), target, torch.zeros(3, 10)).mean.backward()
    batched = gradients(student)
    assert set(batched) == set(unrolled)
    for name, gradient in unrolled.items():
        torch.testing.assert_close(batched[name], gradient, rtol=1e-4, atol=1e-9)  # the loss itself is in float32
