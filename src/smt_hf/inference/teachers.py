"""Reads the beginning of a prompt in one pass, with the student's teacher."""

from collections.abc import Sequence

import numpy as np
import torch

MOST_TOKENS = 2048  # prompt tokens, padding included, that a teacher reads between two steps of the rows that write


class TeacherReader:
    """Reads prompts with the student's teacher, except for their last tokens, which the student then reads itself.

    With segments of J tokens, n J last tokens give the same memory as n sweeps of the student over all segments: the memory
    before the last n segments is the teacher's, and everything after it the student's own.

    Args:
        teacher: an [`SmtTeacherModel`] in evaluation mode.
        last_tokens: tokens at the end of a prompt that are left to the student.
        context_length: the most tokens that the teacher is given, as in its training; of a longer prompt, it gets the last ones
            before the student's, as if the text began there.
    """

    def __init__(self, teacher, last_tokens: int = 32, context_length: int = 256):
        self.teacher, self.last_tokens, self.context_length = teacher, last_tokens, context_length

    def num_given(self, num_tokens: int) -> int:
        """The number of tokens that the teacher is given of a prompt of `num_tokens`."""
        return min(self.context_length, max(0, num_tokens - self.last_tokens))

    @torch.inference_mode()
    def read(self, prompts: Sequence[np.ndarray]) -> torch.Tensor:
        """The memories `(n, K, D)` before the last tokens of the prompts, all in one pass. Prompts must be longer than that."""
        ends = [len(prompt) - self.last_tokens for prompt in prompts]
        given = [prompt[end - self.num_given(len(prompt)) : end] for prompt, end in zip(prompts, ends, strict=True)]
        lengths = torch.tensor([len(ids) for ids in given])
        ids = torch.zeros(len(given), int(lengths.max()), dtype=torch.long)
        for row, tokens in zip(ids, given, strict=True):
            row[: len(tokens)] = torch.from_numpy(tokens)
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        device = self.teacher.device
        mask = None if bool(mask.all()) else mask.to(device)
        return self.teacher.encode(ids.to(device), lengths[:, None] - 1, mask)[:, 0]
