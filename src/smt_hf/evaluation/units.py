"""The units of a loss."""

import math


def bits(nats: float) -> float:
    """A loss in nats as bits."""
    return nats / math.log(2)


def bits_per_byte(nats_per_token: float, bytes_per_token: float) -> float:
    """A loss in nats per token as bits per byte of the text, which compares models with different tokenizers.

    Args:
        nats_per_token: the mean cross-entropy.
        bytes_per_token: bytes of the text divided by its tokens.
    """
    return bits(nats_per_token) / bytes_per_token
