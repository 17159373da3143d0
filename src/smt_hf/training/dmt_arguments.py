"""Arguments of DMT."""

from dataclasses import dataclass, field

from ..errors import InputError
from .arguments import TaughtTrainingArguments, check_something_to_train


@dataclass
class DmtTrainingArguments(TaughtTrainingArguments):
    """Arguments of [`DmtTrainer`]: how the student's own states are produced, and what corrects them.

    The window's rollout is cut into segments of `segment_length` tokens. The student reaches its own states before the
    segments without a gradient, then runs each segment once with a gradient. `segment_length=1` is the detached one-step
    regression of the paper.
    """

    context_length: int = field(default=256, metadata={"help": "Tokens of a window."})
    rollout_length: int = field(default=64, metadata={"help": "Tokens of the window that are rolled out and trained."})
    rollout: str = field(
        default="sweeps",
        metadata={
            "help": "How the student reaches its own states: 'sweeps' (all segments at once, from the teacher's states, "
            "a bounded number of segments deep) or 'sequential' (one after another over the whole rollout, the paper)."
        },
    )
    num_sweeps: list[int] = field(
        default_factory=lambda: [1, 2, 4, 8, 16],
        metadata={"help": "Segments that a state of 'sweeps' lies away from the teacher's; each step draws one."},
    )
    segment_length: int = field(
        default=1, metadata={"help": "Tokens of a segment, the steps that the gradient goes back; 1: detached."}
    )
    cold_start_probability: float = field(
        default=0.25, metadata={"help": "Share of the steps whose rollout begins at the window's empty context."}
    )
    dynamics_weight: float = field(default=10.0, metadata={"help": "Weight of the distance to the teacher's states."})
    readout_weight: float = field(default=1.0, metadata={"help": "Weight of the next-token loss on own states."})
    detach_readout: bool = field(
        default=False, metadata={"help": "Train only the readout, not the updater, with the next-token loss."}
    )
    learning_rate: float = field(default=3e-5, metadata={"help": "Peak learning rate (paper: 3e-5)."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning rate schedule (paper: cosine)."})

    def __post_init__(self):
        super().__post_init__()
        if self.rollout not in ("sweeps", "sequential"):
            raise InputError(f"rollout={self.rollout!r} is unknown: choose 'sweeps' or 'sequential'")
        if self.rollout_length > self.context_length:
            raise InputError(
                f"rollout_length={self.rollout_length} exceeds context_length={self.context_length}: lower it"
            )
        if self.rollout_length % self.segment_length:
            raise InputError(
                f"segment_length={self.segment_length} does not divide rollout_length={self.rollout_length}: "
                "choose a divisor"
            )
        if not self.num_sweeps:
            raise InputError("num_sweeps is empty: list at least one number")
        check_something_to_train(self, "dynamics", "readout")

    @property
    def window_length(self) -> int:
        """Tokens a window must have: the context and the target of its last state."""
        return self.context_length + 1
