"""Measuring a student, and its teacher, on a synthetic task."""

import torch

from ..losses import IGNORED, cross_entropy
from ..rollout import teacher_states
from ..tasks import Task, row_accuracy, task_accuracy

EVALUATION_SEED = 2**31 - 1  # gives rows that a `TaskDataset` of another seed does not have


@torch.no_grad()
def evaluate_on_task(
    student, task: Task, num_rows: int = 512, seed: int = EVALUATION_SEED, batch_size: int = 64
) -> dict:
    """How well a student solves a task, on its own states from its initial memory.

    Args:
        student: an `SmtRnnForCausalLM`.
        task: the task, whose length may differ from that of the training.
        num_rows: number of rows to measure on.
        seed: seed of the rows.
        batch_size: rows per batch.

    Returns:
        `accuracy` of the labelled steps; `row_accuracy`, the share of rows whose labelled steps are all right; and `loss`, the mean
        over the labelled steps in nats.
    """

    def logits(input_ids, columns):
        return student(input_ids, use_cache=False, logits_to_keep=columns).logits

    return _scores(logits, task.sample(num_rows, seed), student.device, batch_size)


@torch.no_grad()
def evaluate_teacher_on_task(
    teacher, task: Task, num_rows: int = 512, seed: int = EVALUATION_SEED, batch_size: int = 16
) -> dict:
    """How well a teacher solves a task, read from its memories at the labelled steps alone; as in [`evaluate_on_task`]."""

    def logits(input_ids, columns):
        return teacher.readout(teacher_states(teacher, input_ids, columns))

    return _scores(logits, task.sample(num_rows, seed), teacher.device, batch_size)


def _scores(logits_of, rows: dict, device, batch_size: int) -> dict:
    columns = (rows["shift_labels"] != IGNORED).any(dim=0).nonzero()[:, 0]  # nothing is read elsewhere
    labels, predictions, total, count = rows["shift_labels"][:, columns], [], 0.0, 0
    for first in range(0, len(labels), batch_size):
        batch = slice(first, first + batch_size)
        logits = logits_of(rows["input_ids"][batch].to(device), columns.to(device))
        term = cross_entropy(logits, labels[batch].to(device))
        total, count = total + term.total.item(), count + term.count.item()
        predictions.append(logits.argmax(dim=-1).cpu())
    predictions = torch.cat(predictions)
    return {
        "accuracy": task_accuracy(predictions, labels),
        "row_accuracy": row_accuracy(predictions, labels),
        "loss": total / count,
    }
