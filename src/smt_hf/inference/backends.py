"""What computes the steps of the engine."""

from typing import Protocol

import torch

from ..models.lean_smt_rnn import LeanStep, is_lean


class Backend(Protocol):
    """A student as the engine sees it: memories in, memories and logits out. It is used by one thread.

    Attributes:
        initial_memory: `(K, D)`, the memory before any token, on the device and in the dtype of all memories.
        vocab_size: V.
    """

    initial_memory: torch.Tensor
    vocab_size: int

    def update(self, memory: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """The memories `(B, K, D)` after one more token each, `(B,)` int64; B is any number from 1."""
        ...

    def readout(self, memory: torch.Tensor) -> torch.Tensor:
        """Logits of the next token, float32 `(B, V)` on the CPU, from the memories `(B, K, D)` alone."""
        ...


class TorchBackend:
    """The student itself, as [`LeanStep`] where that gives the same, from its weights as they are now.

    Args:
        student: an [`SmtRnnForCausalLM`] in evaluation mode on its device.
    """

    def __init__(self, student):
        step = LeanStep(student) if is_lean(student) else student
        self._update, self._readout = step.update, step.readout
        self.initial_memory = student.initial_memory.detach().clone()
        self.vocab_size = student.config.vocab_size

    @torch.inference_mode()
    def update(self, memory: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """See [`Backend.update`]."""
        return self._update(memory, input_ids.to(memory.device))

    @torch.inference_mode()
    def readout(self, memory: torch.Tensor) -> torch.Tensor:
        """See [`Backend.readout`]."""
        return self._readout(memory).to("cpu", torch.float32)
