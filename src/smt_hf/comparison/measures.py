"""What a comparison measures on a trained student, besides the accuracy during its training."""

import torch

from ..evaluation import (
    bptt_gradient_norms,
    drift,
    evaluate_on_task,
    evaluate_teacher_on_task,
    rollout,
    smt_gradient_norms,
    teacher_states,
)
from ..evaluation.tasks import EVALUATION_SEED
from ..losses import IGNORED, effective_rank, sample_tokens, uniformity

GRADIENT_ROWS = 8


def measured(comparison, student, teacher, length: int, is_smt: bool) -> dict:
    """All measurements of a trained student."""
    rows = comparison.eval_rows
    lengths = [length * factor for factor in comparison.eval_factors]
    result = {"student": {str(n): evaluate_on_task(student, comparison.load_task(n), rows) for n in lengths}}
    sample = comparison.load_task(length).sample(64, EVALUATION_SEED)
    states = rollout(student, sample["input_ids"])[1]
    result["effective_rank"] = effective_rank(states).item()
    result["uniformity"] = uniformity(states, sample_tokens(states.shape[:-1].numel())).item()
    result["memory_space"] = memory_space(states, sample["shift_labels"])
    if teacher is not None:
        result["drift"] = drift(student, teacher, sample["input_ids"]).tolist()
    if is_smt:
        result["teacher"] = {str(n): evaluate_teacher_on_task(teacher, comparison.load_task(n), rows) for n in lengths}
        encoded = teacher_states(teacher, sample["input_ids"], torch.arange(length))
        result["teacher_effective_rank"] = effective_rank(encoded).item()
        far = comparison.load_task(comparison.gradient_length).sample(GRADIENT_ROWS, EVALUATION_SEED)
        result["transition_gradient_norms"] = smt_gradient_norms(student, teacher, far["input_ids"]).tolist()
    result["gradient_norms"] = gradient_norms(comparison, student)
    return result


def gradient_norms(comparison, student) -> list[float]:
    """See [`bptt_gradient_norms`], over rows of `gradient_length` tokens."""
    rows = comparison.load_task(comparison.gradient_length).sample(GRADIENT_ROWS, EVALUATION_SEED)
    return bptt_gradient_norms(student, rows["input_ids"], rows["shift_labels"]).tolist()


def memory_space(states: torch.Tensor, labels: torch.Tensor, num_points: int = 512) -> dict:
    """The memories `(N, T, K, D)` of labelled steps on their first two principal components, and the labels `(N, T)`."""
    labelled = labels != IGNORED
    points = states[labelled].flatten(1).float()[:num_points]
    centred = points - points.mean(dim=0)
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
    return {
        "points": (centred @ directions[:2].T).tolist(),
        "labels": labels[labelled][:num_points].tolist(),
        "explained": (singular[:2].square() / singular.square().sum().clamp(min=1e-12)).tolist(),
    }
