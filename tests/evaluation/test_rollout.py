"""Rollouts, drift and reports against loops over single steps."""

import math

import pytest
import torch

from smt_hf.data import evenly_spaced_windows
from smt_hf.errors import InputError
from smt_hf.evaluation import drift, evaluate_models, format_table, next_token_losses, rollout, teacher_states
from smt_hf.rollout import teacher_rollout
from tests.conftest import tiny_model

EXACT = {"rtol": 0, "atol": 1e-9}
DOCUMENTS = torch.tensor([[0] * 14, [0] * 5 + [1] * 9, [0] * 1 + [1] * 3 + [2] * 10])


def naive_rollout(student, row, document, memory):
    """States before every token, one step at a time."""
    before = []
    for t, token in enumerate(row):
        if t and document[t] != document[t - 1]:
            memory = student.initial_memory[None]
        before.append(memory)
        memory = student.update(memory, token[None])
    return torch.cat(before), memory


@pytest.mark.parametrize("cold", [True, False])
def test_rollout_against_a_loop(student, tokens, cold):
    start = student.initial_memory.expand(3, -1, -1) if cold else torch.randn(3, 3, 32).double()
    before, after = rollout(student, tokens, memory=None if cold else start, documents=DOCUMENTS)
    losses = next_token_losses(student.readout, before, tokens)
    for row in range(3):
        expected, last = naive_rollout(student, tokens[row], DOCUMENTS[row], start[row : row + 1])
        torch.testing.assert_close(before[row], expected, **EXACT)
        torch.testing.assert_close(after[row, -1:], last, **EXACT)
        by_hand = -student.readout(expected).log_softmax(-1)[range(14), tokens[row]]
        torch.testing.assert_close(losses[row], by_hand.float())


def test_teacher_states_in_chunks(joint, tokens):
    positions = torch.arange(-1, 14)
    whole = joint.teacher.encode(tokens, positions, documents=DOCUMENTS)
    chunks = teacher_states(joint.teacher, tokens, positions, documents=DOCUMENTS, chunk_size=4)
    torch.testing.assert_close(chunks, whole, **EXACT)
    before, after = teacher_rollout(joint.teacher, tokens, DOCUMENTS)
    torch.testing.assert_close(after, whole[:, 1:], **EXACT)
    torch.testing.assert_close(before[1, 5], whole[1, 0], **EXACT)  # the first token of a document
    torch.testing.assert_close(before[1, 6], whole[1, 6], **EXACT)


def test_drift_against_a_loop(joint, student, tokens):
    curve = drift(student, joint.teacher, tokens, DOCUMENTS)
    _, after = rollout(student, tokens, documents=DOCUMENTS)
    for t in range(14):
        target = joint.teacher.encode(tokens, torch.tensor([t]), documents=DOCUMENTS)[:, 0]
        assert curve[t].item() == pytest.approx((after[:, t] - target).square().mean().item(), rel=1e-4)


@pytest.fixture(scope="module")
def bytes_model():
    return tiny_model(vocab_size=258, dtype=torch.float32, initializer_range=0.1)


def test_report(bytes_model, cache):
    student = bytes_model.export_student().eval()
    sizes = {"context_length": 10, "rollout_steps": 20, "num_windows": 6}
    report = evaluate_models(student, cache, bytes_model.teacher, batch_size=4, **sizes)
    windows = evenly_spaced_windows(cache, 30, 6)
    input_ids, documents = windows["input_ids"][:, 10:], windows["documents"][:, 10:]
    before, _ = rollout(student, input_ids, documents=documents)
    losses = next_token_losses(student.readout, before, input_ids).double()
    cold = report["student_cold"]
    assert cold["nats_per_token"] == pytest.approx(losses.mean().item(), abs=1e-4)
    assert cold["bits_per_byte"] == pytest.approx(losses.mean().item() / math.log(2), abs=1e-3)
    assert cold["by_position"] == pytest.approx(losses.mean(dim=0).tolist(), abs=1e-3)
    assert cold["standard_error"] == pytest.approx(losses.mean(dim=1).std().item() / math.sqrt(6), abs=1e-3)
    assert len(report["drift"]) == len(report["teacher"]["by_position"]) == 20
    assert "student, warm start" in format_table(report)


def test_report_without_a_teacher(bytes_model, cache):
    student = bytes_model.export_student().eval()
    report = evaluate_models(student, cache, context_length=4, rollout_steps=3, num_windows=1)
    assert "teacher" not in report and "drift" not in report
    assert "student, cold start" in format_table(report)


def test_a_corpus_shorter_than_a_window(bytes_model, cache):
    with pytest.raises(InputError, match="tokens but a window needs"):
        evaluate_models(bytes_model.export_student(), cache, context_length=10**6)
