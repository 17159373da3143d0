"""Drift of a student from its teacher, for `evaluate`."""

import evaluate
import torch

from smt_hf.errors import InputError
from smt_hf.evaluation.metrics.info import SMT_CITATION, metric_info, rows_of
from smt_hf.evaluation.metrics.rows import stack_rows
from smt_hf.losses import squared_distance

DESCRIPTION = """Mean squared error between the states that a student reaches by itself and its teacher's, at each step of a
rollout."""
INPUTS = """
Args:
    predictions: rows of the student's states `(T, K, D)`, as `smt_hf.evaluation.rollout` gives them.
    references: rows of the teacher's states after the same tokens, `(T, K, D)`. All rows are of one shape.
Returns:
    drift: the mean over the steps.
    drift_by_step: the mean over the rows and the K x D numbers of a memory, after 1, 2, ... steps.
"""


class Drift(evaluate.Metric):
    """Distance of the student's states from the teacher's."""

    def _info(self):
        states = rows_of("float32", 3)
        return metric_info(DESCRIPTION, INPUTS, [{"predictions": states, "references": states}], SMT_CITATION)

    def _compute(self, predictions, references):
        own, target = stack_rows(predictions, "predictions"), stack_rows(references, "references")
        if own.shape != target.shape:
            raise InputError(
                f"predictions are of shape {tuple(own.shape)} and references of shape {tuple(target.shape)}: pass the "
                "student's and the teacher's states after the same tokens"
            )
        rows = [squared_distance(*pair) for pair in zip(own, target, strict=True)]
        by_step = torch.stack(rows).double().mean(dim=0)
        return {"drift": by_step.mean().item(), "drift_by_step": by_step.tolist()}
