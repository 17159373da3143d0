"""The losses against slow, obvious computations."""

import math

import pytest
import torch

from smt_hf.batch import Batch
from smt_hf.losses import cross_entropy, dynamics, effective_rank, memory_variance, uniformity
from smt_hf.training.smt import SMT_TERMS, SmtPlan


def test_cross_entropy_sums_what_is_not_ignored():
    logits = torch.randn(2, 3, 5)
    targets = torch.tensor([[1, -100, 4], [0, 2, -100]])
    term = cross_entropy(logits, targets)
    by_hand = -sum(logits.log_softmax(-1)[b, t, targets[b, t]] for b, t in ((0, 0), (0, 2), (1, 0), (1, 1)))
    torch.testing.assert_close(term.total, by_hand)
    assert term.count == 4
    torch.testing.assert_close(term.mean, by_hand / 4)


def test_dynamics_averages_over_a_memory_and_sums_over_transitions():
    predicted, target = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 4, 8)
    valid = torch.tensor([[True, False, True], [True, True, True]])
    term = dynamics(predicted, target, torch.where(valid, 0, -100))
    torch.testing.assert_close(term.mean, (predicted - target)[valid].square().mean())
    assert term.count == 5


def test_uniformity_against_a_loop():
    memory = torch.randn(3, 2, 6)
    tokens = torch.nn.functional.normalize(memory.flatten(0, 1), dim=-1)
    pairs = [(tokens[a] - tokens[b]).square().sum() for a in range(6) for b in range(a)]
    expected = math.log(sum(math.exp(-2 * pair) for pair in pairs) / len(pairs))
    assert uniformity(memory).item() == pytest.approx(expected, rel=1e-5)
    assert uniformity(torch.ones(4, 2, 6)).item() == pytest.approx(0, abs=1e-5)


def test_effective_rank():
    basis = torch.cat([torch.eye(8)[:4], -torch.eye(8)[:4]])
    assert effective_rank(basis[None]).item() == pytest.approx(4, rel=0.05)
    assert effective_rank(torch.randn(50, 1) @ torch.randn(1, 8)).item() == pytest.approx(1, rel=1e-3)
    assert effective_rank(torch.ones(10, 8)).item() == pytest.approx(1)  # collapsed
    assert effective_rank(torch.zeros(10, 8)).item() == 1
    assert effective_rank(torch.full((10, 8), math.inf)).isnan()


def test_memory_variance_against_a_loop():
    memory = torch.randn(2, 3, 4, 5) + 2
    numbers = [[memory[b, t, k, d].item() for b in range(2) for t in range(3)] for k in range(4) for d in range(5)]
    means = [sum(values) / 6 for values in numbers]
    variance = sum((x - mean) ** 2 for values, mean in zip(numbers, means, strict=True) for x in values)
    expected = variance / sum(x**2 for values in numbers for x in values)
    assert memory_variance(memory).item() == pytest.approx(expected, rel=1e-5)
    assert memory_variance(1e-3 * memory).item() == pytest.approx(expected, rel=1e-5)
    assert memory_variance(memory[:1, :1].expand(2, 3, 4, 5)).item() < 1e-6  # the same memory, of different tokens
    assert memory_variance(torch.zeros(2, 3, 4)).item() == 0
    assert memory_variance(torch.full((2, 3, 4), math.inf)).isnan()


def test_losses_of_a_model(joint, tokens):
    starts = torch.tensor([0, 4, 8])
    plan = SmtPlan(starts, 2, joint.positions_for(starts, 2, None), torch.tensor([3]), 4)
    output = joint(tokens, read_student=True, **vars(plan))
    batch = Batch.of({"input_ids": tokens})
    averaged = [term for term in SMT_TERMS if term.targets and term.name != "kd"]  # there is no backbone
    terms = {term.name: term.loss(output, term.targets(batch, plan)) for term in averaged}
    assert set(terms) == {"decoding", "dynamics", "readout", "stream", "student"}
    memory = joint.teacher.encode(tokens, torch.tensor([3]))[:, 0]
    logits = joint.teacher.decode(memory, tokens[:, 4:8])
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 4:8].flatten())
    torch.testing.assert_close(terms["decoding"].mean, expected)
    read = joint.teacher.readout(joint.teacher.encode(tokens, output.positions))
    expected = torch.nn.functional.cross_entropy(read.flatten(0, 1).float(), tokens[:, output.positions + 1].flatten())
    torch.testing.assert_close(terms["readout"].mean, expected)
