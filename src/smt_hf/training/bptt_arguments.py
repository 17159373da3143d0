"""Arguments of BPTT."""

from dataclasses import dataclass, field

from ..errors import InputError
from .arguments import MemoryTrainingArguments


@dataclass
class BpttTrainingArguments(MemoryTrainingArguments):
    """Arguments of [`BpttTrainer`]: how far the gradient goes back, and what happens to the memory between steps.

    Full back-propagation through the window is the default. With `bptt_horizon: H` the window is cut into segments of H
    steps; the memory goes from one to the next, the gradient does not, and all of them make one optimiser step. With
    `carry_memory` every segment is an optimiser step of its own, and the memory goes on through the whole text.
    """

    context_length: int = field(default=128, metadata={"help": "Tokens of a window that the student reads."})
    bptt_horizon: int | None = field(
        default=None,
        metadata={"help": "Steps that the gradient goes back at most; the whole window by default (full BPTT)."},
    )
    carry_memory: bool = field(
        default=False,
        metadata={
            "help": "Make an optimiser step of every bptt_horizon tokens and carry the memory from step to step through "
            "the whole text, in as many streams as a step has windows."
        },
    )
    train_start: bool = field(
        default=True,
        metadata={
            "help": "Also predict the first token of every window and document, from the initial memory; the stock "
            "Trainer does not."
        },
    )
    checkpoint_steps: int | None = field(
        default=None,
        metadata={
            "help": "Recompute the student's steps in the backward pass, so many at a time, instead of keeping what they "
            "computed: less memory, a third more time. gradient_checkpointing takes the square root of the length."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        for name in ("bptt_horizon", "checkpoint_steps"):
            value = getattr(self, name)
            if value is not None and value > self.context_length:
                raise InputError(
                    f"{name}={value} exceeds context_length={self.context_length}: lower it, or leave it out"
                )
        if self.carry_memory and self.bptt_horizon is None:
            raise InputError("carry_memory needs bptt_horizon, the tokens of an optimiser step: give it, such as 16")

    @property
    def window_length(self) -> int:
        """Tokens a window must have: the context and the target of its last state."""
        return self.context_length + 1
