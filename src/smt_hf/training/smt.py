"""SMT: trains teacher and student together, all time steps in parallel."""

from dataclasses import dataclass, field, replace

import torch
from transformers.integrations.neftune import activate_neftune, deactivate_neftune

from ..errors import InputError
from ..losses import cross_entropy, dynamics, sample_tokens, uniformity
from ..models.modeling_smt import encoded_positions
from ..utils.described import described
from .arguments import TaughtTrainingArguments, check_something_to_train
from .memory_trainer import TaughtTrainer, check_backbone
from .optimizers import with_own_rate
from .sharding import scatter, share_of
from .supported import JOINT, check_partners
from .terms import Step, Term, kd_term, step_generator, weights_of

DEFAULT_TRANSITIONS = 32


@dataclass(frozen=True, eq=False)
class SmtPlan:
    """The columns that a step uses, which [`SmtForPreTraining`] takes along with the tokens. All are on the CPU.

    Attributes:
        segment_starts: `(S,)`, the first columns of the student's segments.
        segment_length: J.
        positions: `(P,)`, the encoded positions.
        decoded_positions: `(M,)`, the positions whose futures are decoded.
        horizon: T_f.
        context_length: number of tokens up to the last encoded position; computed by the model when `None`.
    """

    segment_starts: torch.Tensor
    segment_length: int
    positions: torch.Tensor
    decoded_positions: torch.Tensor
    horizon: int
    context_length: int | None = None

    @property
    def columns(self) -> torch.Tensor:
        """The columns of the segments, `(S, J)`."""
        return self.segment_starts[:, None] + torch.arange(self.segment_length, device=self.segment_starts.device)


SMT_TERMS = (
    Term(
        "decoding",
        1.0,
        "Weight of the decoding loss.",
        lambda output, targets: cross_entropy(output.decoding_logits, targets),
        lambda batch, plan: batch.future_targets(plan.decoded_positions, plan.horizon),
    ),
    Term(
        "dynamics",
        0.1,
        "Weight of the one-step dynamics loss.",
        lambda output, targets: dynamics(output.predicted_memory, output.target_memory, targets),
        lambda batch, plan: batch.counted(plan.columns[:, -1]),
    ),
    Term(
        "readout",
        1.0,
        "Weight of the next-token loss of every memory.",
        lambda output, targets: cross_entropy(output.readout_logits, targets),
        lambda batch, plan: batch.targets_of(plan.positions),
    ),
    Term(
        "stream",
        1.0,
        "Weight of the next-token loss of the encoder stream.",
        lambda output, targets: cross_entropy(output.stream_logits, targets),
        lambda batch, plan: batch.targets[:, 1 : int(plan.positions[-1]) + 2],
    ),
    Term(
        "student",
        0.0,
        "Weight of the next-token loss of the student's own states in the segments.",
        lambda output, targets: cross_entropy(output.student_logits, targets),
        lambda batch, plan: batch.targets_of(plan.columns),
    ),
    kd_term(lambda output: output.student_logits, lambda batch, plan: batch.targets_of(plan.columns)),
    Term(
        "uniformity",
        0.001,
        "Weight of the uniformity loss.",
        lambda output, step: uniformity(output.memory, step.chosen),
    ),
)


def encoded_states(output) -> torch.Tensor:
    """The teacher's memories `(B, P, K, D)` in an `SmtForPreTrainingOutput`, without that of the empty context."""
    return output.memory[:, int(output.positions[0] < 0) :]


@described
@dataclass
class SmtTrainingArguments(weights_of(SMT_TERMS), TaughtTrainingArguments):
    """Arguments of [`SmtTrainer`]: what is sampled from a window, and the weights of the losses.

    The paper's recipe is one transition at the end of every context (`num_transitions=1`, `num_decoded=1`,
    `full_context=True`) with a bidirectional encoder, weights 1, 0.1, 0.001 and no readout or stream loss.
    """

    context_length: int = field(
        default=256, metadata={"help": "Number of tokens T_c of a window that the teacher may encode."}
    )
    horizon: int = field(default=64, metadata={"help": "Number of future tokens T_f decoded from a memory state."})
    num_transitions: int | None = field(
        default=None,
        metadata={
            "help": "Number of student steps trained in every window: segments times their length, at most what the context "
            "holds. By default one segment with full_context or a segment of more than 32 steps, else as many segments as 32 steps hold."
        },
    )
    segment_length: int = field(
        default=1,
        metadata={
            "help": "Length J of a segment: the student runs J steps, with gradient, from the teacher's state and should "
            "end in the teacher's state after them. 1 is the paper's one-step transition."
        },
    )
    full_context: bool = field(
        default=False,
        metadata={
            "help": "Train only the last segment of every context, as in the paper; num_transitions must be one segment."
        },
    )
    pinned_columns: list[int] = field(
        default_factory=list,
        metadata={
            "help": "Columns whose transition every step trains, along with the drawn ones; negative columns count from the end "
            "of the context. For tasks with few labels in fixed columns."
        },
    )
    num_decoded: int = field(
        default=4, metadata={"help": "Number of memory states of every window whose futures are decoded."}
    )
    detach_teacher: bool = field(
        default=False,
        metadata={
            "help": "Do not train the teacher with the dynamics loss (the paper trains both), for students that learn so "
            "slowly that this loss shrinks the teacher's memory instead."
        },
    )
    backbone_learning_rate: float = field(
        default=0.0, metadata={"help": "Peak learning rate of the teacher's backbone, if it has one; 0 freezes it."}
    )

    def __post_init__(self):
        super().__post_init__()
        if self.segment_length > self.context_length:
            raise InputError(
                f"segment_length={self.segment_length} exceeds context_length={self.context_length}: lower it"
            )
        most = self.context_length // self.segment_length * self.segment_length
        if self.num_transitions is None:
            fits = max(DEFAULT_TRANSITIONS - DEFAULT_TRANSITIONS % self.segment_length, self.segment_length)
            self.num_transitions = self.segment_length if self.full_context else min(fits, most)
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
        if self.num_transitions > most:
            raise InputError(
                f"num_transitions={self.num_transitions} is more than context_length={self.context_length} holds in segments of "
                f"segment_length={self.segment_length}: lower it to {most} or less"
            )
        for column in self.pinned_columns:
            if not -self.context_length <= column < self.context_length:
                raise InputError(f"pinned_columns: {column} lies outside context_length={self.context_length}")
        if self.pinned_columns and self.full_context:
            raise InputError("full_context trains only the last column of every context: leave pinned_columns out")
        check_something_to_train(self, SMT_TERMS)

    @property
    def window_length(self) -> int:
        """Number of tokens per window must have: the context and the future of its last state."""
        return self.context_length + self.horizon

    @property
    def reads_student(self) -> bool:
        """Whether a loss reads the student's own predictions."""
        return bool(self.student_weight or self.kd_weight)

    @property
    def runs_student(self) -> bool:
        """Whether any loss needs the student; otherwise the teacher is trained alone."""
        return bool(self.dynamics_weight or self.reads_student)


class SmtTrainer(TaughtTrainer):
    """Trains an [`SmtForPreTraining`] with `L_smt` (Kumar & Isola) and the readout and stream losses.

    Data items are dictionaries of `input_ids` `(T,)` and, as needed, `labels` (ids at their own positions), `shift_labels`
    (targets that are already aligned), `attention_mask` and `documents`, all `(T,)`; see [`Batch`].

    Args:
        model: the [`SmtForPreTraining`].
        args: [`SmtTrainingArguments`].
        **kwargs: those of `transformers.Trainer`.

    Raises:
        InputError: if the model does not support the arguments, or the training never reaches a label.
        FloatingPointError: if a loss is not finite; raised before the weights are updated.
    """

    terms = SMT_TERMS

    def __init__(self, model, args, **kwargs):
        check_partners(args, SmtTrainingArguments, model=(model, JOINT))
        bidirectional = model.config.teacher_config.encoder_attention == "bidirectional"
        if bidirectional and args.stream_weight:
            raise InputError(
                f"stream_weight={args.stream_weight} needs a causal encoder: set stream_weight to 0 or "
                "encoder_attention to 'causal'"
            )
        self.backbone = model.teacher.backbone
        if self.backbone is None and args.backbone_learning_rate:
            raise InputError(
                f"backbone_learning_rate={args.backbone_learning_rate:g} needs a teacher with a backbone: leave it out, or build the "
                "teacher on a causal language model"
            )
        if self.backbone is not None and not args.backbone_learning_rate:
            self.backbone.requires_grad_(False)
        super().__init__(model=model, args=args, **kwargs)
        check_backbone(args, model.teacher)

    def create_optimizer(self, model=None):
        if self.optimizer is not None:
            return self.optimizer
        optimizer = super().create_optimizer(model)
        if self.backbone is not None:
            with_own_rate(optimizer, list(self.backbone.parameters()), self.args.backbone_learning_rate)
        return optimizer

    def train(self, *args, **kwargs):
        """As [`Trainer.train`], but NEFTune's noise is added to the student's tokens too, not only to the teacher's."""
        if self.neftune_noise_alpha is None:
            return super().train(*args, **kwargs)
        hook = activate_neftune(self.student(), self.segment_noise(self.args.segment_length))
        try:
            return super().train(*args, **kwargs)
        finally:
            deactivate_neftune(self.student(), hook)

    def student(self):
        return self.accelerator.unwrap_model(self.model).student

    def teacher_model(self):
        return self.accelerator.unwrap_model(self.model).teacher

    def active_terms(self):
        left_out = set() if self.args.student_weight else {"student"}
        if not self.args.runs_student:
            left_out.add("dynamics")
        if not self._reads_stream():
            left_out.add("stream")
        return [term for term in super().active_terms() if term.name not in left_out]

    def _reads_stream(self) -> bool:
        """Whether the stream loss can train anything: the encoder has a stream head, or a backbone that is not frozen."""
        if self.backbone is not None:
            return self.args.backbone_learning_rate > 0
        return self.accelerator.unwrap_model(self.model).stream_head is not None

    def draw_plan(self, batch, generator):
        args, (_, length) = self.args, batch.input_ids.shape
        self.check_length(batch)
        num_segments = max(args.num_transitions // args.segment_length - len(args.pinned_columns), 1)
        context_length = min(args.context_length, length)
        if args.full_context:
            starts = torch.tensor([context_length - args.segment_length])
        else:
            starts = sample_segments(context_length, args.segment_length, num_segments, generator)
            starts = add_pinned(starts, args.pinned_columns, args.segment_length, context_length)
        decodable = encoded_positions(starts, args.segment_length, with_empty=False)
        decoded = sample_decoded(decodable, args.num_decoded, generator)
        model = self.accelerator.unwrap_model(self.model)
        positions = model.positions_for(starts, args.segment_length, batch.begins)
        return SmtPlan(starts, args.segment_length, positions, decoded, args.horizon, int(positions[-1]) + 1)

    def step_of(self, batch, plan, draw):
        num_memory_tokens = self.student().config.num_memory_tokens
        chosen = chosen_tokens(len(batch.input_ids), plan.positions, num_memory_tokens, step_generator(*draw))
        return replace(super().step_of(batch, plan, draw), chosen=chosen)

    def check_labels(self, batches):
        super().check_labels(batches)
        reached = self.args.context_length + self.args.horizon
        if not self.somewhere(batch.targets[:, : reached + 1] for batch in batches):
            raise InputError(
                f"no label of the first step lies in the first context_length + horizon = {reached} columns: raise one "
                "of them"
            )

    def run(self, model, step: Step):
        return model(
            input_ids=step.batch.input_ids,
            documents=step.batch.documents,
            **vars(step.plan),
            detach_teacher=self.args.detach_teacher,
            read_student=self.args.reads_student,
            read_stream=self._reads_stream(),
            read_backbone=self.args.kd_weight > 0,
            run_student=self.args.runs_student,
        )

    def watched(self, output):
        return encoded_states(output)

    def num_counted(self, step):
        return len(step.batch.input_ids) * step.plan.columns.numel()

    # The student's initial memory is the teacher's empty context, which changes in training: rollouts start from its current value.

    def _set_initial_memory(self):
        model = self.accelerator.unwrap_model(self.model)
        memory = self.gathered(model.empty_memory)
        scatter(model)
        with torch.no_grad():
            parameter = model.student.model.initial_memory
            parameter.copy_(share_of(memory.to(parameter.dtype), parameter))

    def further_logs(self):
        self._set_initial_memory()
        return super().further_logs()

    def evaluation_loop(self, *args, **kwargs):
        self._set_initial_memory()
        return super().evaluation_loop(*args, **kwargs)

    def save_model(self, *args, **kwargs):
        self._set_initial_memory()
        super().save_model(*args, **kwargs)


def chosen_tokens(batch_size: int, positions: torch.Tensor, num_memory_tokens: int, generator) -> torch.Tensor:
    """Draws the memory tokens for the uniformity loss of a step, none from the empty context.

    Args:
        batch_size: B.
        positions: `(P,)`, the encoded positions; -1 comes first if it is among them.
        num_memory_tokens: K.
        generator: a CPU generator.

    Returns:
        `(N,)`, indices of tokens in the order of memories `(B, P, K, D)`.
    """
    tokens = torch.arange(batch_size * len(positions) * num_memory_tokens).view(batch_size, len(positions), -1)
    tokens = tokens[:, int(positions[0] < 0) :].flatten()
    drawn = sample_tokens(len(tokens), generator=generator)
    return tokens if drawn is None else tokens[drawn]


def sample_segments(context_length: int, segment_length: int, num_segments: int, generator) -> torch.Tensor:
    """Draws where the student's segments start.

    Args:
        context_length: T; segments lie within columns 0..T-1.
        segment_length: J <= T.
        num_segments: S, the maximum number; fewer if they do not fit side by side.
        generator: a CPU generator.

    Returns:
        Sorted columns `(S,)`. If there are several, the first is column 0, the cold start, and the others are a multiple of J
        apart, so that one segment may end where another starts; the second may begin within the first.
    """
    if num_segments == 1:
        return torch.randint(context_length - segment_length + 1, (1,), generator=generator)
    offset = int(torch.randint(segment_length, (1,), generator=generator))
    places = range(offset or segment_length, context_length - segment_length + 1, segment_length)
    starts = torch.tensor(places, dtype=torch.long)
    chosen = torch.randperm(len(starts), generator=generator)[: num_segments - 1]
    return torch.cat([torch.zeros(1, dtype=torch.long), starts[chosen].sort().values])


def add_pinned(starts: torch.Tensor, columns: list[int], segment_length: int, context_length: int) -> torch.Tensor:
    """Adds the segments that end in the given columns to the drawn ones.

    Args:
        starts: columns `(S,)` where segments start.
        columns: columns in 0..T-1, or negative ones, which count from T.
        segment_length: J.
        context_length: T.

    Returns:
        Sorted columns without duplicates.
    """
    ends = torch.tensor(columns, dtype=torch.long) % context_length
    return torch.cat([starts, (ends + 1 - segment_length).clamp(min=0)]).unique()


def sample_decoded(positions: torch.Tensor, num_decoded: int, generator) -> torch.Tensor:
    """Draws `num_decoded` of the encoded positions `(P,)`, or all if there are fewer: `(M,)`, sorted."""
    return positions[torch.randperm(len(positions), generator=generator)[:num_decoded].sort().values]
