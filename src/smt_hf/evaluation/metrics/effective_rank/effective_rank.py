"""Effective rank of memories, for `evaluate`."""

import evaluate

from smt_hf.errors import InputError
from smt_hf.evaluation.metrics.info import metric_info, rows_of
from smt_hf.evaluation.metrics.rows import stack_rows
from smt_hf.losses import effective_rank

DESCRIPTION = """Effective rank of memory tokens: the exponential of the entropy of their covariance's spectrum, between 1 (all
on one line, or all the same) and D. It says in how many directions the memories differ, not how much."""
INPUTS = """
Args:
    predictions: rows of memories `(T, K, D)`, or single memories `(K, D)`, all of one shape.
Returns:
    effective_rank: over the tokens of all memories; NaN if a number is not finite.
"""
CITATION = """@inproceedings{roy2007effective,
  title     = {The effective rank: A measure of effective dimensionality},
  author    = {Roy, Olivier and Vetterli, Martin},
  booktitle = {EUSIPCO},
  year      = {2007}
}"""


class EffectiveRank(evaluate.Metric):
    """In how many directions memories differ."""

    def _info(self):
        columns = [{"predictions": rows_of("float32", 3)}, {"predictions": rows_of("float32", 2)}]
        return metric_info(DESCRIPTION, INPUTS, columns, CITATION)

    def _compute(self, predictions):
        memories = stack_rows(predictions, "predictions")
        if memories.shape[:-1].numel() < 2:
            raise InputError(f"one memory token of {memories.shape[-1]} numbers has no covariance: pass more")
        return {"effective_rank": effective_rank(memories).item()}
