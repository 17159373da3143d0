"""Scores on a task against plain loops over its rows."""

import pytest
import torch
import torch.nn.functional as F

from smt_hf.errors import InputError
from smt_hf.evaluation import evaluate_on_task, evaluate_teacher_on_task
from smt_hf.evaluation.tasks import EVALUATION_SEED
from smt_hf.tasks import load_task

TASK = load_task("string_copy", length=10, string_length=3, num_symbols=8)
TASKS = [
    TASK,
    load_task("stack", length=5),
]  # whose labels stand in other columns in every row, and in some rows nowhere


def naive(logits_of, task, num_rows, seed=EVALUATION_SEED):
    """Scores step by step; `logits_of` a row's first tokens gives those of the last of them."""
    rows = task.sample(num_rows, seed)
    right, whole, losses = [], [], []
    for input_ids, labels in zip(rows["input_ids"], rows["shift_labels"], strict=True):
        row = []
        for t in range(task.length):
            if labels[t] != -100:
                logits = logits_of(input_ids[: t + 1])
                losses.append(F.cross_entropy(logits.float(), labels[t]).item())
                row.append(logits.argmax() == labels[t])
        right += row
        whole += [all(row)] if row else []
    return {
        "accuracy": sum(right).item() / len(right),
        "row_accuracy": sum(whole) / len(whole),
        "loss": sum(losses) / len(losses),
    }


@pytest.mark.parametrize("batch_size", [4, 64])
@pytest.mark.parametrize("task", TASKS)
def test_the_student_against_a_loop(student, task, batch_size):
    def logits(tokens):
        memory = student.model.start_memory(1)
        for token in tokens:
            memory = student.update(memory, token[None])
        return student.readout(memory)[0]

    with torch.no_grad():
        expected = naive(logits, task, 10)
    found = evaluate_on_task(student, task, num_rows=10, batch_size=batch_size)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("batch_size", [3, 16])
@pytest.mark.parametrize("task", TASKS)
def test_the_teacher_against_encoding_every_prefix(joint, task, batch_size):
    teacher = joint.teacher

    def logits(tokens):
        return teacher.readout(teacher.encode(tokens[None], torch.tensor([len(tokens) - 1]))[:, 0])[0]

    with torch.no_grad():
        expected = naive(logits, task, 10)
    found = evaluate_teacher_on_task(teacher, task, num_rows=10, batch_size=batch_size)
    assert found == pytest.approx(expected, rel=1e-5)


def answering(student, monkeypatch, wrong_rows=0, num_rows=20):
    """A student that knows the answers, but for the last label of its first rows."""
    labels = TASK.sample(num_rows, EVALUATION_SEED)["shift_labels"].clone()
    labels[:wrong_rows, -1] = 0
    seen = iter(labels.clamp(min=0).split(8))

    def forward(input_ids, logits_to_keep, **kwargs):
        logits = 50.0 * F.one_hot(next(seen), 20)
        assert logits.shape[:2] == input_ids.shape
        return type("Output", (), {"logits": logits[:, logits_to_keep]})

    monkeypatch.setattr(student, "forward", forward)
    return student


def test_a_student_that_is_always_right(student, monkeypatch):
    scores = evaluate_on_task(answering(student, monkeypatch), TASK, num_rows=20, batch_size=8)
    assert (scores["accuracy"], scores["row_accuracy"]) == (1.0, 1.0)
    assert scores["loss"] == pytest.approx(0, abs=1e-6)


def test_a_student_that_is_wrong_once_in_some_rows(student, monkeypatch):
    scores = evaluate_on_task(answering(student, monkeypatch, wrong_rows=5), TASK, num_rows=20, batch_size=8)
    assert scores["accuracy"] == pytest.approx(1 - 5 / 60)
    assert scores["row_accuracy"] == pytest.approx(15 / 20)
    assert scores["loss"] == pytest.approx(50 * 5 / 60)


def test_the_rows_are_those_of_the_seed(student):
    first, again = (evaluate_on_task(student, TASK, num_rows=8) for _ in range(2))
    assert first == again
    assert evaluate_on_task(student, TASK, num_rows=8, seed=1) != first


def test_no_rows(student, joint):
    for evaluate, model in ((evaluate_on_task, student), (evaluate_teacher_on_task, joint.teacher)):
        with pytest.raises(InputError, match="num_rows is 0: pass 1 or more"):
            evaluate(model, TASK, num_rows=0)
