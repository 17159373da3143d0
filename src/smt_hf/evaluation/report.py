"""Evaluating a student and, if there is one, its teacher on text."""

import torch

from ..data import TokenCache, evenly_spaced_windows
from ..losses import squared_distance
from ..rollout import next_token_losses, rollout, teacher_rollout, teacher_states
from . import metrics
from .scores import drift_curve, loss_scores, rounded


@torch.no_grad()
def evaluate_models(
    student,
    cache: TokenCache,
    teacher=None,
    context_length: int = 128,
    rollout_steps: int = 256,
    num_windows: int = 64,
    batch_size: int = 16,
) -> dict:
    """Rolls the student over validation windows and compares it with the teacher.

    A window holds a context of `context_length` tokens, which the teacher reads for the warm start, and `rollout_steps`
    tokens, on which cold and warm start are both scored. At the first token of a document every memory starts afresh.

    Args:
        student: an `SmtRnnForCausalLM`.
        cache: the validation tokens.
        teacher: the `SmtTeacherModel`, or `None`.
        context_length: the teacher's context in training.
        rollout_steps: steps that the student runs on its own states.
        num_windows: number of windows, spread evenly over the corpus.
        batch_size: windows per batch.

    Returns:
        `student_cold` (from the initial memory) and, with a teacher, `student_warm` (from the teacher's state) and
        `teacher` (its own readout over the first `context_length` tokens of the rollout), each with `nats_per_token`,
        `standard_error` over the windows, `bits_per_byte` and the losses `by_position`; and the curve `drift`.

    Raises:
        InputError: if the corpus is shorter than one window.
    """
    windows = evenly_spaced_windows(cache, context_length + rollout_steps, num_windows)
    references = windows["input_ids"][:, context_length:]
    collected = {}
    for first in range(0, num_windows, batch_size):
        rows = slice(first, first + batch_size)
        input_ids = windows["input_ids"][rows].to(student.device)
        documents = windows["documents"][rows].to(student.device)
        scored, scored_documents = input_ids[:, context_length:], documents[:, context_length:]
        batch = {}
        before, after = rollout(student, scored, documents=scored_documents)
        batch["student_cold"] = next_token_losses(student.readout, before, scored)
        if teacher is not None:
            position = torch.tensor([context_length - 1], device=input_ids.device)
            warm = teacher_states(teacher, input_ids, position, documents=documents)[:, 0]
            begins = documents[:, context_length] != documents[:, context_length - 1]
            warm = torch.where(begins[:, None, None], student.initial_memory, warm)
            before, _ = rollout(student, scored, memory=warm, documents=scored_documents)
            batch["student_warm"] = next_token_losses(student.readout, before, scored)
            teacher_before, teacher_after = teacher_rollout(teacher, scored, scored_documents)
            batch["teacher"] = next_token_losses(teacher.readout, teacher_before, scored)
            batch["drift"] = squared_distance(after, teacher_after)
        for name, values in batch.items():
            collected.setdefault(name, []).append(values.cpu())

    bytes_per_token = cache.num_bytes / cache.num_tokens
    report = {
        "context_length": context_length,
        "rollout_steps": rollout_steps,
        "num_windows": num_windows,
        "bytes_per_token": round(bytes_per_token, 4),
    }
    if "drift" in collected:
        report["drift"] = drift_curve(collected.pop("drift"))
    for name, batches in collected.items():
        # beyond its training context the teacher is unreliable: the curve shows that part, the mean leaves it out
        num_counted = context_length if name == "teacher" else rollout_steps
        report[name] = _summary(torch.cat(batches), references, num_counted, bytes_per_token)
    if "student_warm" in report:
        report["cold_minus_warm"] = round(
            report["student_cold"]["nats_per_token"] - report["student_warm"]["nats_per_token"], 4
        )
    return report


def _summary(losses: torch.Tensor, references: torch.Tensor, num_counted: int, bytes_per_token: float) -> dict:
    """Summarises losses `(N, T)`: the means over the first `num_counted` columns, and the curve over all."""
    counted = {"predictions": losses[:, :num_counted], "references": references[:, :num_counted]}
    scores = loss_scores(*counted.values())
    bits = metrics.compute("bits_per_byte", **counted, bytes_per_token=bytes_per_token)["bits_per_byte"]
    return {
        "nats_per_token": round(scores["rollout_loss"], 4),
        "standard_error": scores["standard_error"],
        "bits_per_byte": round(bits, 4),
        "by_position": rounded(loss_scores(losses, references)["loss_by_position"]),
    }
