"""DMT: the student corrected on the states that it reaches by itself (DAgger), the teacher frozen."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch

from ..checkpoints import check_pair
from ..errors import InputError
from ..losses import cross_entropy, dynamics
from ..models.cache_smt_rnn import SmtRnnCache
from ..models.documents_smt import columns_on
from ..rollout import sequential_states, sweep_states, teacher_states
from ..utils.described import described
from .arguments import TaughtTrainingArguments, check_something_to_train
from .resume import weights_identity
from .terms import Step, Term, weights_of
from .trainer import TaughtTrainer


@dataclass(frozen=True, eq=False)
class DmtPlan:
    """Which part of a window is rolled out.

    Attributes:
        columns: `(S, J)`, of the segments, one after another; on the CPU.
        num_sweeps: segments that a state of a rollout by sweeps lies away from the teacher's.
    """

    columns: torch.Tensor
    num_sweeps: int


class DmtOutput(NamedTuple):
    """What the losses compare.

    memory: `(B, S, K, D)`, the student's states after the segments.
    target_memory: `(B, S, K, D)`, the teacher's.
    logits: `(B, S, J, V)`, the next token read from the student's state after every token.
    """

    memory: torch.Tensor
    target_memory: torch.Tensor
    logits: torch.Tensor


DMT_TERMS = (
    Term(
        "dynamics",
        10.0,
        "Weight of the distance to the teacher's states.",
        lambda output, targets: dynamics(output.memory, output.target_memory, targets),
        lambda batch, plan: batch.counted(plan.columns[:, -1]),
    ),
    Term(
        "readout",
        1.0,
        "Weight of the next-token loss on own states.",
        lambda output, targets: cross_entropy(output.logits, targets),
        lambda batch, plan: batch.targets_of(plan.columns),
    ),
)


@described
@dataclass
class DmtTrainingArguments(weights_of(DMT_TERMS), TaughtTrainingArguments):
    """Arguments of [`DmtTrainer`]: how the student's own states are produced, and what corrects them.

    The window's rollout is cut into segments of `segment_length` tokens. The student reaches its own states before the
    segments without a gradient, then runs each segment once with a gradient. `segment_length=1` is the detached one-step
    regression of the paper.
    """

    context_length: int = field(default=256, metadata={"help": "Tokens of a window."})
    rollout_length: int = field(default=64, metadata={"help": "Tokens of the window that are rolled out and trained."})
    rollout: Literal["sweeps", "sequential"] = field(
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
    detach_readout: bool = field(
        default=False, metadata={"help": "Train only the readout, not the updater, with the next-token loss."}
    )
    learning_rate: float = field(default=3e-5, metadata={"help": "Peak learning rate (paper: 3e-5)."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning rate schedule (paper: cosine)."})

    def __post_init__(self):
        super().__post_init__()
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
        check_something_to_train(self, DMT_TERMS)

    @property
    def window_length(self) -> int:
        """Tokens a window must have: the context and the target of its last state."""
        return self.context_length + 1


class DmtTrainer(TaughtTrainer):
    """Trains an [`SmtRnnForCausalLM`] against a frozen [`SmtTeacherModel`] (Kumar & Isola).

    Data items are those of [`SmtTrainer`]. Every step encodes the windows with the teacher, brings the student to its own
    states along a rollout, runs it from them with a gradient, pulls where it gets towards the teacher's states, and trains
    the readout there.

    Args:
        model: the student.
        args: [`DmtTrainingArguments`].
        teacher: the [`SmtTeacherModel`]; it is neither trained nor saved.
        **kwargs: those of `transformers.Trainer`.

    Raises:
        InputError: if teacher and student do not fit.
        FloatingPointError: when a loss is no finite number, before it reaches the weights.
    """

    terms = DMT_TERMS

    def __init__(self, model, args, teacher, **kwargs):
        check_pair(teacher, model)
        model.model.initial_memory.requires_grad_(False)  # a state of the teacher's
        super().__init__(model=model, args=args, **kwargs)
        if self.neftune_noise_alpha is not None:
            self.neftune_noise_alpha = self.segment_noise(args.segment_length)
        teacher.requires_grad_(False)
        teacher.eval()
        self.teacher = self.accelerator.prepare_model(teacher, evaluation_mode=True)

    def student(self):
        return self.accelerator.unwrap_model(self.model)

    def teacher_model(self):
        return self.teacher

    def further_settings(self):
        return {"teacher": weights_identity(self.accelerator.unwrap_model(self.teacher))}

    def draw_plan(self, batch, generator):
        args, (_, length) = self.args, batch.input_ids.shape
        self.check_length(batch)
        num_sweeps = args.num_sweeps[int(torch.randint(len(args.num_sweeps), (1,), generator=generator))]
        context_length = min(args.context_length, length)
        num_segments = min(args.rollout_length, context_length) // args.segment_length
        latest = context_length - num_segments * args.segment_length
        first = int(torch.randint(latest + 1, (1,), generator=generator))
        if torch.rand(1, generator=generator).item() < args.cold_start_probability:
            first = 0
        columns = torch.arange(num_segments * args.segment_length).view(num_segments, -1)
        return DmtPlan(columns + first, num_sweeps)

    def run(self, model, step: Step) -> DmtOutput:
        batch, columns = step.batch, step.plan.columns
        positions = torch.cat([torch.tensor([-1]), columns[:, 0] - 1, columns[-1:, -1]])
        columns = columns_on(batch.input_ids.device, columns)
        encoded = teacher_states(self.teacher, batch.input_ids, positions, batch.documents, chunk_size=len(positions))
        before, tokens, begins = encoded[:, 1:-1], batch.input_ids[:, columns], None
        if batch.documents is not None:
            before = torch.where(batch.begins[:, columns[:, 0], None, None], encoded[:, :1], before)
            begins = batch.begins[:, columns]
        states = self._own_states(model, before, tokens, begins, step.plan.num_sweeps)
        output = model(
            input_ids=tokens.flatten(0, 1),
            cache=SmtRnnCache(states.flatten(0, 1)),
            documents=None if batch.documents is None else batch.documents[:, columns].flatten(0, 1),
            output_memory=True,
            use_cache=False,
            detach_readout=self.args.detach_readout,
        )
        segments = states.shape[:2]
        memory, logits = output.memory[:, -1].unflatten(0, segments), output.logits.unflatten(0, segments)
        return DmtOutput(memory, encoded[:, 2:], logits)

    def _own_states(self, model, before, tokens, begins, num_sweeps: int) -> torch.Tensor:
        """The student's own states before the segments, as `rollout` of the arguments says, `(B, S, K, D)`."""
        student = self.accelerator.unwrap_model(model)
        if self.args.rollout == "sequential":
            return sequential_states(student, before, tokens, begins)
        return sweep_states(student, before, tokens, begins, num_sweeps)

    def num_transitions(self, step):
        return len(step.batch.input_ids) * step.plan.columns.numel()
