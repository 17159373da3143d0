"""Bits per byte, for `evaluate`."""

import math

import evaluate

from smt_hf.errors import InputError
from smt_hf.evaluation.metrics.info import LOSS_COLUMNS, metric_info
from smt_hf.evaluation.metrics.rows import token_losses
from smt_hf.evaluation.units import bits_per_byte

DESCRIPTION = (
    """The loss of a language model in bits per byte of its text, which compares models with different tokenizers."""
)
INPUTS = """
Args:
    predictions: rows of logits `(T, V)`, those at t for token t; or of their losses `(T,)` in nats.
    references: rows of token ids `(T,)`; -100 does not count. All rows are of one length.
    bytes_per_token: bytes of the text divided by its tokens, given to `compute` or when the metric is loaded. A
        `TokenCache` knows both: `cache.num_bytes / cache.num_tokens`.
Returns:
    bits_per_byte: over all tokens that count.
"""


class BitsPerByte(evaluate.Metric):
    """Bits per byte from logits or losses."""

    def __init__(self, *args, bytes_per_token: float | None = None, **kwargs):
        self.bytes_per_token = bytes_per_token
        super().__init__(*args, **kwargs)

    def _info(self):
        return metric_info(DESCRIPTION, INPUTS, LOSS_COLUMNS)

    def _compute(self, predictions, references, bytes_per_token=None):
        ratio = self.bytes_per_token if bytes_per_token is None else bytes_per_token
        if ratio is None or not 0 < ratio < math.inf:
            raise InputError(
                f"bytes_per_token={ratio} must be a positive number: pass the bytes of the text divided by its tokens"
            )
        losses, counted = token_losses(predictions, references)
        return {"bits_per_byte": bits_per_byte(losses[counted].mean().item(), ratio)}
