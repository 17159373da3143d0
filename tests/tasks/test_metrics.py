import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smt_hf.errors import InputError
from smt_hf.tasks import row_accuracy, task_accuracy
from tests.tasks.conftest import few, seeds

LABELS = torch.tensor([[-100, 1, 2], [3, 3, 3], [-100, -100, -100], [-100, -100, 0]])


@pytest.mark.parametrize(
    "predictions, steps, rows",
    [
        ([[9, 1, 2], [3, 3, 3], [9, 9, 9], [9, 9, 0]], 6 / 6, 3 / 3),
        ([[9, 1, 9], [3, 3, 9], [9, 9, 9], [9, 9, 0]], 4 / 6, 1 / 3),
        ([[1, 9, 9], [3, 3, 3], [-100, -100, -100], [0, 0, 9]], 3 / 6, 1 / 3),
        ([[-100, 9, 9], [9, 9, 9], [-100, -100, -100], [-100, -100, 9]], 0, 0),
    ],
)
def test_by_hand(predictions, steps, rows):
    predictions = torch.tensor(predictions)
    assert task_accuracy(predictions, LABELS) == steps
    assert row_accuracy(predictions, LABELS) == rows
    logits = torch.nn.functional.one_hot(predictions.clamp(min=0), 10).float()
    assert task_accuracy(logits, LABELS) == steps
    assert row_accuracy(logits, LABELS) == rows


@few
@given(num_rows=st.integers(1, 6), length=st.integers(1, 6), seed=seeds)
def test_against_loops(num_rows, length, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (num_rows, length), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = -100
    labels[0, 0] = 1
    logits = torch.randn(num_rows, length, 3, generator=generator)
    right = total = right_rows = total_rows = 0
    for i in range(num_rows):
        found = [int(logits[i, t].argmax()) == int(labels[i, t]) for t in range(length) if labels[i, t] != -100]
        right, total = right + sum(found), total + len(found)
        right_rows, total_rows = right_rows + (bool(found) and all(found)), total_rows + bool(found)
    assert task_accuracy(logits, labels) == right / total
    assert row_accuracy(logits.bfloat16().float(), labels) == row_accuracy(logits.bfloat16(), labels)
    assert row_accuracy(logits, labels) == right_rows / total_rows


@pytest.mark.parametrize("metric", [task_accuracy, row_accuracy])
def test_errors(metric):
    with pytest.raises(
        InputError, match=r"predictions are torch.int64 of shape \(4, 2\) and labels of shape \(4, 3\)"
    ):
        metric(LABELS[:, :2], LABELS)
    with pytest.raises(InputError, match="torch.float32 of shape"):
        metric(LABELS.float(), LABELS)
    with pytest.raises(InputError, match="no step has a label"):
        metric(LABELS[2:3], LABELS[2:3])
