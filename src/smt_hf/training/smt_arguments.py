"""Arguments of SMT."""

from dataclasses import dataclass, field

from ..errors import InputError
from .arguments import TaughtTrainingArguments, check_something_to_train


@dataclass
class SmtTrainingArguments(TaughtTrainingArguments):
    """Arguments of [`SmtTrainer`]: what is sampled from a window, and how the losses weigh.

    The paper's own recipe is one transition at the end of every context (`num_transitions=1`, `num_decoded=1`,
    `full_context=True`) with a bidirectional encoder, weights 1, 0.1, 0.001 and no readout or stream loss.
    """

    context_length: int = field(default=256, metadata={"help": "Tokens T_c of a window that the teacher may encode."})
    horizon: int = field(default=64, metadata={"help": "Future tokens T_f decoded from a memory state."})
    num_transitions: int = field(
        default=32, metadata={"help": "Steps of the student trained in every window, segments times their length."}
    )
    segment_length: int = field(
        default=1,
        metadata={
            "help": "Length J of a segment: the student runs J steps, with gradient, from the teacher's state and should "
            "end in the teacher's state. 1 is the paper's one-step transition."
        },
    )
    full_context: bool = field(
        default=False,
        metadata={
            "help": "Train only the last segment of every context, as the paper does; for num_transitions of one."
        },
    )
    pinned_columns: list[int] = field(
        default_factory=list,
        metadata={
            "help": "Columns whose transition every step trains, among the drawn ones; negative from the end of the context. "
            "For tasks whose few labels stand in fixed columns."
        },
    )
    num_decoded: int = field(default=4, metadata={"help": "Memory states of every window whose futures are decoded."})
    decoding_weight: float = field(default=1.0, metadata={"help": "Weight of the decoding loss."})
    dynamics_weight: float = field(default=0.1, metadata={"help": "Weight of the one-step dynamics loss."})
    uniformity_weight: float = field(default=0.001, metadata={"help": "Weight of the uniformity loss."})
    readout_weight: float = field(default=1.0, metadata={"help": "Weight of the next-token loss of every memory."})
    stream_weight: float = field(default=1.0, metadata={"help": "Weight of the encoder stream's next-token loss."})
    student_weight: float = field(
        default=0.0, metadata={"help": "Weight of the next-token loss of the student's own states in the segments."}
    )
    detach_teacher: bool = field(
        default=False,
        metadata={
            "help": "Keep the dynamics loss out of the teacher (the paper trains both): for students that learn so "
            "slowly that this loss shrinks the teacher's memory instead."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        if self.segment_length > self.context_length:
            raise InputError(
                f"segment_length={self.segment_length} exceeds context_length={self.context_length}: lower it"
            )
        if self.full_context and self.num_transitions != self.segment_length:
            raise InputError(
                f"full_context trains one segment: set num_transitions={self.num_transitions} to "
                f"segment_length={self.segment_length}"
            )
        if self.num_transitions % self.segment_length:
            raise InputError(
                f"segment_length={self.segment_length} does not divide num_transitions={self.num_transitions}: choose a "
                "multiple"
            )
        for column in self.pinned_columns:
            if not -self.context_length <= column < self.context_length:
                raise InputError(f"pinned_columns: {column} lies outside context_length={self.context_length}")
        if self.pinned_columns and self.full_context:
            raise InputError("full_context trains the last column of every context only: leave pinned_columns out")
        check_something_to_train(self, "decoding", "dynamics", "uniformity", "readout", "stream", "student")

    @property
    def window_length(self) -> int:
        """Tokens a window must have: the context and the future of its last state."""
        return self.context_length + self.horizon
