"""Measuring a student: rollout losses, drift, reports."""

from .report import evaluate_models, format_table, plot_report
from .rollout import drift, next_token_losses, rollout, teacher_states

__all__ = [
    "drift",
    "evaluate_models",
    "format_table",
    "next_token_losses",
    "plot_report",
    "rollout",
    "teacher_states",
]
