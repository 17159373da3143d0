"""The losses against slow, obvious computations."""

import math

import pytest
import torch

from smt_hf.losses import (
    cross_entropy,
    dynamics,
    effective_rank,
    future_targets,
    memory_variance,
    next_targets,
    smt_losses,
    smt_targets,
    uniformity,
)


def documents_of(example):
    return torch.tensor([example])


def test_next_targets_follow_the_tokens():
    assert next_targets(torch.tensor([[5, 6, 7]])).tolist() == [[5, 6, 7, -100]]


def test_next_targets_stop_at_documents_and_padding():
    tokens = torch.tensor([[9, 9, 5, 6, 7, 8]])
    mask = torch.tensor([[0, 0, 1, 1, 1, 1]])
    documents = torch.tensor([[0, 0, 0, 0, 1, 1]])
    # the first token after the padding and the first of the second document are read from no earlier state
    expected = [[-100, -100, -100, 6, -100, 8, -100]]
    assert next_targets(tokens, attention_mask=mask, document_ids=documents).tolist() == expected


def test_explicit_labels_are_aligned():
    labels = torch.tensor([[-100, 3, 4]])
    assert next_targets(torch.tensor([[5, 6, 7]]), shift_labels=labels).tolist() == [[-100, -100, 3, 4]]


@pytest.mark.parametrize("with_labels", [False, True])
def test_future_targets_against_a_loop(with_labels):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(20, (4, 12), generator=generator)
    labels = torch.randint(20, (4, 12), generator=generator) if with_labels else None
    documents = torch.randint(2, (4, 12), generator=generator).cumsum(dim=1) // 3
    targets = next_targets(tokens, shift_labels=labels, document_ids=documents)
    positions, horizon = torch.tensor([-1, 0, 4, 10, 11]), 5
    future = future_targets(targets, positions, horizon, document_ids=documents)
    for row in range(4):
        for m, t in enumerate(positions.tolist()):
            for j in range(horizon):
                state = t + j
                expected = -100
                if state < 12 and documents[row, max(state, 0)] == documents[row, max(t, 0)]:
                    expected = targets[row, state + 1].item()
                assert future[row, m, j].item() == expected


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
    term = dynamics(predicted, target, valid)
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
    columns = {"segment_starts": torch.tensor([0, 4, 8]), "decoded_ids": torch.tensor([3]), "horizon": 4}
    output = joint(tokens, segment_length=2, read_student=True, **columns)
    targets = smt_targets(tokens, positions=output.positions, segment_length=2, **columns)
    terms = smt_losses(output, targets)
    assert set(terms) == {"decoding", "dynamics", "readout", "stream", "student"}
    memory = joint.teacher.encode(tokens, torch.tensor([3]))[:, 0]
    logits = joint.teacher.decode(memory, tokens[:, 4:8])
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 4:8].flatten())
    torch.testing.assert_close(terms["decoding"].mean, expected)
    read = joint.teacher.readout(joint.teacher.encode(tokens, output.positions))
    expected = torch.nn.functional.cross_entropy(read.flatten(0, 1).float(), tokens[:, output.positions + 1].flatten())
    torch.testing.assert_close(terms["readout"].mean, expected)
