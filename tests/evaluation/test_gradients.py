"""Norms of gradients against plain autograd and finite differences, in float64."""

import pytest
import torch
import torch.nn.functional as F

from smt_hf.errors import InputError
from smt_hf.evaluation import bptt_gradient_norms, smt_gradient_norms


@pytest.fixture
def labels(tokens):
    labels = torch.full_like(tokens, -100)
    labels[:, 3] = 1  # not the last
    labels[:, 9] = tokens[:, 2]
    return labels


def loss_of(student, tokens, labels, memories, start):
    """The last labelled step's loss from the memory before a step on, each row by itself; fills the memories after it."""
    for t in range(start, 10):
        memories.append(student.update(memories[-1], tokens[:, t]))
    return F.cross_entropy(student.readout(memories[-1]), labels[:, 9], reduction="none")


def test_bptt_against_autograd(student, tokens, labels):
    memories = [student.model.start_memory(len(tokens)).detach().requires_grad_()]
    loss = loss_of(student, tokens, labels, memories, 0)
    for memory in memories:
        memory.retain_grad()
    loss.sum().backward()
    naive = torch.stack([memory.grad.square().sum(dim=(1, 2)).sqrt().mean() for memory in memories])
    norms = bptt_gradient_norms(student, tokens, labels)
    assert norms.shape == (15,)
    torch.testing.assert_close(norms[:11], naive, rtol=1e-6, atol=0)  # the loss is one of float32
    assert not norms[11:].any() and norms[:11].all()


def test_bptt_against_finite_differences(student, tokens, labels):
    """For one row the norm is the slope along the gradient, the steepest of all."""
    row, its_labels = tokens[:1], labels[:1]
    norm = bptt_gradient_norms(student, row, its_labels)[6]
    memories = [student.model.start_memory(1).detach()]
    with torch.no_grad():
        loss_of(student, row, its_labels, memories, 0)
    memory = memories[6].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(student, row, its_labels, [memory], 6).sum(), memory)
    step = 1e-5 * gradient / gradient.norm()
    with torch.no_grad():
        ahead, behind = (loss_of(student, row, its_labels, [memory + sign * step], 6) for sign in (1, -1))
    torch.testing.assert_close((ahead - behind)[0] / 2e-5, norm, rtol=1e-5, atol=0)


def test_rows_without_the_last_label_count_as_zero(student, tokens, labels):
    whole = bptt_gradient_norms(student, tokens[:2], labels[:2])
    labels[1, 9] = -100
    single = bptt_gradient_norms(student, tokens[:1], labels[:1])
    torch.testing.assert_close(bptt_gradient_norms(student, tokens[:2], labels[:2]), single / 2)
    assert not whole.allclose(single / 2)


def test_without_labels(student, tokens):
    with pytest.raises(InputError, match="no step has a label"):
        bptt_gradient_norms(student, tokens, torch.full_like(tokens, -100))


def test_smt_against_every_transition_alone(joint, student, tokens):
    norms = smt_gradient_norms(student, joint.teacher, tokens)
    assert norms.shape == (tokens.shape[1],)
    for t in (0, 1, 7, 13):
        total = 0.0
        for row in tokens:
            with torch.no_grad():
                before, after = joint.teacher.encode(row[None], torch.tensor([t - 1, t]))[0]
            before = before[None].requires_grad_()
            loss = (student.update(before, row[t : t + 1])[0] - after).square().mean()
            (gradient,) = torch.autograd.grad(loss, before)
            total += gradient.norm()
        torch.testing.assert_close(norms[t], total / len(tokens))


def test_no_gradient_is_left_behind(joint, student, tokens, labels):
    with torch.no_grad():  # as a trainer's callback may be
        bptt_gradient_norms(student, tokens, labels)
        smt_gradient_norms(student, joint.teacher, tokens)
    assert all(parameter.grad is None for parameter in [*student.parameters(), *joint.parameters()])
