"""Rollout loss, for `evaluate`."""

import math

import evaluate

from smt_hf.evaluation.metrics.info import LOSS_COLUMNS, SMT_CITATION, metric_info
from smt_hf.evaluation.metrics.rows import token_losses

DESCRIPTION = """Cross-entropy in nats per token of a student that runs on its own states from a cold start: every token is
read from the state before it, the first from the initial memory."""
INPUTS = """
Args:
    predictions: rows of logits `(T, V)`, those at t for token t; or, for a large vocabulary, of their losses `(T,)` in
        nats, as `smt_hf.evaluation.next_token_losses` gives them. `smt_hf.evaluation.rollout` gives the states to
        read the logits from.
    references: rows of token ids `(T,)`; -100 does not count. All rows are of one length.
Returns:
    rollout_loss: nats per token, over all tokens that count.
    standard_error: of that mean, with the rows as independent samples; NaN for a single row.
    loss_by_position: the mean by step of the rollout; NaN where nothing counts.
"""


class RolloutLoss(evaluate.Metric):
    """Nats per token of a student on its own states."""

    def _info(self):
        return metric_info(DESCRIPTION, INPUTS, LOSS_COLUMNS, SMT_CITATION)

    def _compute(self, predictions, references):
        losses, counted = token_losses(predictions, references)
        losses = losses.where(counted, 0)
        mean = losses.sum() / counted.sum()
        # of a ratio of two sums over the rows; with as many tokens in every row, that of the mean of the rows' means
        spread = (losses.sum(dim=1) - mean * counted.sum(dim=1)).square().sum()
        variance = spread * len(losses) / (len(losses) - 1) if len(losses) > 1 else math.nan * spread
        return {
            "rollout_loss": mean.item(),
            "standard_error": (variance.sqrt() / counted.sum()).item(),
            "loss_by_position": (losses.sum(dim=0) / counted.sum(dim=0)).tolist(),
        }
