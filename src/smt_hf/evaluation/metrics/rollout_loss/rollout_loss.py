"""Rollout loss, for `evaluate`."""

import datasets
import evaluate

from smt_hf.evaluation.metrics.rows import token_losses

DESCRIPTION = """Cross-entropy in nats per token of a student that runs on its own states from a cold start: every token is
read from the state before it, the first from the initial memory."""
INPUTS = """
Args:
    predictions: rows of logits `(T, V)`, those at t for token t; or, for a large vocabulary, of their losses `(T,)` in
        nats, as `smt_hf.evaluation.next_token_losses` gives them. `smt_hf.rollout` gives the states to read
        the logits from.
    references: rows of token ids `(T,)`; -100 does not count. All rows are of one length.
Returns:
    rollout_loss: nats per token, over all tokens that count.
    loss_by_position: the same by step of the rollout; NaN where nothing counts.
"""
CITATION = """@article{kumar2026pretraining,
  title   = {Pretraining Recurrent Networks without Recurrence},
  author  = {Kumar, Akarsh and Isola, Phillip},
  journal = {arXiv preprint arXiv:2606.06479},
  year    = {2026}
}"""


class RolloutLoss(evaluate.Metric):
    """Nats per token of a student on its own states."""

    def _info(self):
        ids = datasets.List(datasets.Value("int64"))
        losses = datasets.List(datasets.Value("float32"))
        info = evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=[
                datasets.Features({"predictions": datasets.List(losses), "references": ids}),
                datasets.Features({"predictions": losses, "references": ids}),
            ],
        )
        info.format = (
            "numpy"  # set here, for the constructor accepts it for scalars only: lists of floats fill the memory
        )
        return info

    def _compute(self, predictions, references):
        losses, counted = token_losses(predictions, references)
        losses = losses.where(counted, 0)
        return {
            "rollout_loss": (losses.sum() / counted.sum()).item(),
            "loss_by_position": (losses.sum(dim=0) / counted.sum(dim=0)).tolist(),
        }
