"""The units of a loss."""

import math


def bits(nats: float) -> float:
    """Converts a loss from nats to bits."""
    return nats / math.log(2)


def bits_per_byte(nats_per_token: float, bytes_per_token: float) -> float:
    """Converts a loss from nats per token to bits per byte of text, which compares models with different tokenizers.

    Args:
        nats_per_token: the mean cross-entropy.
        bytes_per_token: bytes of the text divided by its tokens.
    """
    return bits(nats_per_token) / bytes_per_token
