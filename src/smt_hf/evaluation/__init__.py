"""Measuring a student: rollout losses, drift, tasks, gradients, reports."""

from ..rollout import drift, next_token_losses, rollout, teacher_states
from .gradients import bptt_gradient_norms, smt_gradient_norms
from .plot import plot_report
from .report import evaluate_models
from .table import format_table
from .tasks import evaluate_on_task, evaluate_teacher_on_task
from .units import bits_per_byte

__all__ = [
    "bits_per_byte",
    "bptt_gradient_norms",
    "drift",
    "evaluate_models",
    "evaluate_on_task",
    "evaluate_teacher_on_task",
    "format_table",
    "next_token_losses",
    "plot_report",
    "rollout",
    "smt_gradient_norms",
    "teacher_states",
]
