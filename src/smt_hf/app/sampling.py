"""How the student chooses its next token."""

from dataclasses import dataclass

import torch
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from ..errors import InputError

MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class Sampling:
    """Settings of the choice.

    Args:
        temperature: 0 takes the likeliest token.
        top_p: the share of probability to draw from.
        max_new_tokens: stop after so many.
        seed: of the draws; the same words, settings and seed give the same text.

    Raises:
        InputError: for a value that cannot work.
    """

    temperature: float = 0.7
    top_p: float = 0.95
    max_new_tokens: int = 300
    seed: int = 0

    def __post_init__(self):
        if not isinstance(self.max_new_tokens, int) or self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens={self.max_new_tokens} cannot work: give a whole number above 0")
        if not isinstance(self.seed, int) or not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"seed={self.seed} cannot work: give a whole number from 0 to {MAX_SEED}")
        if not self.temperature >= 0:
            raise InputError(f"temperature={self.temperature} must not be negative")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p={self.top_p} must lie above 0 and be at most 1")


@torch.no_grad()
def next_token(student, memory: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """Draws the next token from a memory `(1, K, D)` alone, as `generate()` does but with a generator of one's own."""
    logits = student.readout(memory).float().cpu()
    if sampling.temperature == 0:
        return int(logits.argmax())
    logits = TemperatureLogitsWarper(float(sampling.temperature))(None, logits)
    logits = TopPLogitsWarper(float(sampling.top_p))(None, logits)
    return int(torch.multinomial(logits.softmax(dim=-1), 1, generator=generator))
