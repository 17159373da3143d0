"""DMT: corrects the student on the states that it reaches by itself (DAgger); the teacher is frozen."""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

import torch

from ..checkpoints import check_pair
from ..data import collate
from ..data.row_windows import collate_places
from ..errors import InputError
from ..losses import cross_entropy, dynamics
from ..models.cache_smt_rnn import SmtRnnCache
from ..models.documents_smt import columns_on
from ..rollout import encode_positions, sequential_states, sweep_states
from ..utils.described import described
from .arguments import TaughtTrainingArguments, check_something_to_train
from .carried_rows import CarriedPlan, CarriedRows, Rows, row_windows
from .memory_trainer import TaughtTrainer, check_backbone
from .resume import weights_identity
from .supported import STUDENT, TEACHER, check_partners
from .terms import Step, Term, kd_term, step_generator, weights_of


@dataclass(frozen=True, eq=False)
class DmtPlan:
    """The part of a window that is rolled out.

    Attributes:
        columns: `(S, J)`, the columns of consecutive segments; on the CPU.
        num_sweeps: number of segments between a state and the teacher's state that it started from, in a rollout by sweeps.
    """

    columns: torch.Tensor
    num_sweeps: int


class DmtOutput(NamedTuple):
    """The inputs of the losses.

    memory: `(B, S, K, D)`, the student's states after the segments.
    target_memory: `(B, S, K, D)`, the teacher's states after the segments.
    logits: `(B, S, J, V)`, the next token read from the student's state after every token.
    backbone_logits: `(B, S, J, V)`, the predictions of the teacher's backbone after every token, if they are distilled.
    """

    memory: torch.Tensor
    target_memory: torch.Tensor
    logits: torch.Tensor
    backbone_logits: torch.Tensor | None = None


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
        "Weight of the next-token loss on the student's own states.",
        lambda output, targets: cross_entropy(output.logits, targets),
        lambda batch, plan: batch.targets_of(plan.columns),
    ),
    kd_term(lambda output: output.logits, lambda batch, plan: batch.targets_of(plan.columns)),
)


@described
@dataclass
class DmtTrainingArguments(weights_of(DMT_TERMS), TaughtTrainingArguments):
    """Arguments of [`DmtTrainer`]: how the student reaches its own states, and what corrects them.

    The rollout of a window is cut into segments of `segment_length` tokens. The student first reaches its own states before
    the segments without a gradient, then runs each segment once with a gradient. `segment_length=1` is the detached one-step
    regression of the paper.
    """

    context_length: int = field(default=256, metadata={"help": "Number of tokens of a window."})
    rollout_length: int = field(
        default=64, metadata={"help": "Number of tokens of the window that are rolled out and trained."}
    )
    rollout: Literal["sweeps", "sequential", "carried"] = field(
        default="sweeps",
        metadata={
            "help": "How the student reaches its own states: 'sweeps' (all segments at once, a bounded number of segments "
            "from the teacher's states), 'sequential' (one after another over the whole rollout, as in the paper) or "
            "'carried' (a step runs one segment of every row and carries the memory to the next step)."
        },
    )
    num_sweeps: list[int] = field(
        default_factory=lambda: [1, 2, 4, 8, 16],
        metadata={
            "help": "For 'sweeps': how many segments a state lies away from the teacher's; each step draws one."
        },
    )
    segment_length: int = field(
        default=1,
        metadata={"help": "Number of tokens of a segment, the steps that the gradient goes back; 1: detached."},
    )
    cold_start_probability: float = field(
        default=0.25,
        metadata={
            "help": "Fraction of steps whose rollout starts from the empty context; for 'carried', fraction of windows."
        },
    )
    teacher_forcing_start: float = field(
        default=1.0, metadata={"help": "For 'carried': initial fraction of windows with teacher forcing."}
    )
    teacher_forcing_end: float = field(
        default=0.0,
        metadata={"help": "For 'carried': the final fraction; other windows continue from the student's own states."},
    )
    teacher_forcing_decay: float = field(
        default=0.5,
        metadata={
            "help": "For 'carried': fraction of the training over which teacher forcing goes from start to end."
        },
    )
    teacher_lead: int = field(
        default=32, metadata={"help": "For 'carried': tokens before a window of text that the teacher also reads."}
    )
    detach_readout: bool = field(
        default=False, metadata={"help": "Train only the readout, not the updater, with the next-token loss."}
    )
    learning_rate: float = field(default=3e-5, metadata={"help": "Peak learning rate (paper: 3e-5)."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning rate schedule (paper: cosine)."})

    def __post_init__(self):
        super().__post_init__()
        if self.rollout_length > self.context_length and not self.carry_memory:
            raise InputError(
                f"rollout_length={self.rollout_length} exceeds context_length={self.context_length}: lower it"
            )
        if self.rollout_length % self.segment_length and not self.carry_memory:
            raise InputError(
                f"segment_length={self.segment_length} does not divide rollout_length={self.rollout_length}: "
                "choose a divisor"
            )
        if not self.num_sweeps:
            raise InputError("num_sweeps is empty: list at least one number")
        check_something_to_train(self, DMT_TERMS)

    @property
    def carry_memory(self) -> bool:
        """Whether the memory of a row is carried from step to step."""
        return self.rollout == "carried"

    @property
    def window_length(self) -> int:
        """Number of tokens per window must have: the context and the target of its last state."""
        return self.context_length + 1


class DmtTrainer(TaughtTrainer):
    """Trains an [`SmtRnnForCausalLM`] against a frozen [`SmtTeacherModel`] (Kumar & Isola).

    Data items are those of [`SmtTrainer`]. Every step encodes the windows with the teacher, brings the student to its own
    states in a rollout and runs it from them with a gradient. The losses pull the resulting states towards the teacher's and
    train the readout on them.

    Args:
        model: the student.
        args: [`DmtTrainingArguments`].
        teacher: the [`SmtTeacherModel`]; it is neither trained nor saved.
        **kwargs: those of `transformers.Trainer`.

    Raises:
        InputError: if teacher and student do not fit.
        FloatingPointError: if a loss is not finite; raised before the weights are updated.
    """

    terms = DMT_TERMS

    def __init__(self, model, args, teacher, **kwargs):
        check_partners(args, DmtTrainingArguments, model=(model, STUDENT), teacher=(teacher, TEACHER))
        check_pair(teacher, model)
        check_backbone(args, teacher)
        if args.carry_memory:
            kwargs["data_collator"] = partial(collate_places, collator=kwargs.get("data_collator") or collate)
        model.model.initial_memory.requires_grad_(False)  # it is a state of the teacher
        super().__init__(model=model, args=args, **kwargs)
        if self.neftune_noise_alpha is not None:
            self.neftune_noise_alpha = self.segment_noise(args.segment_length)
        teacher.requires_grad_(False)
        teacher.eval()
        self.teacher = self.replicated(teacher)

    def student(self):
        return self.accelerator.unwrap_model(self.model)

    def teacher_model(self):
        return self.teacher

    def further_settings(self):
        return {"teacher": weights_identity(self.accelerator.unwrap_model(self.teacher))}

    def make_step(self, inputs, draw):
        if "places" not in inputs:
            return super().make_step(inputs, draw)
        args, dataset = self.args, self.train_dataset
        segment, row, begins, continued = (torch.tensor(numbers) for numbers in zip(*inputs["places"], strict=True))
        batch = self.batch_of({name: inputs[name] for name in inputs if name != "places"})
        columns = dataset.lead + segment[:, None] * args.segment_length + torch.arange(args.segment_length)
        drawn = torch.rand(2, dataset.num_rows, generator=step_generator(*draw))[:, row]
        plan = CarriedPlan(
            columns[:, None],
            segment,
            begins.nonzero()[:, 0],
            continued,
            forced=drawn[0] < self._forced_share(),
            cold=(drawn[1] < args.cold_start_probability) & (segment == 0),
        )
        return self.step_of(batch, plan, draw)

    def _forced_share(self) -> float:
        """The current fraction of windows with teacher forcing."""
        args, state = self.args, self.state
        timed = args.max_train_seconds is not None
        progress = self.clock.progress() if timed else state.global_step / max(state.max_steps, 1)
        left = max(1 - progress / args.teacher_forcing_decay, 0.0) if args.teacher_forcing_decay else 0.0
        return args.teacher_forcing_end + (args.teacher_forcing_start - args.teacher_forcing_end) * left

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
        if isinstance(step.plan, CarriedPlan):
            return self._run_carried(model, step)
        batch, columns = step.batch, step.plan.columns
        positions = torch.cat([torch.tensor([-1]), columns[:, 0] - 1, columns[-1:, -1]])
        columns = columns_on(batch.input_ids.device, columns)
        encoded, backbone_logits = self._encode(batch, positions, columns)
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
        return DmtOutput(memory, encoded[:, 2:], logits, backbone_logits)

    def _run_carried(self, model, step: Step) -> DmtOutput:
        """Runs one segment of every row, from the student's memory after the previous step or from the teacher's."""
        batch, plan, device = step.batch, step.plan, step.batch.input_ids.device
        every = torch.arange(len(plan.segment), device=device)
        segment, continued, forced, cold = (
            columns_on(device, numbers) for numbers in (plan.segment, plan.continued, plan.forced, plan.cold)
        )
        earlier = self.carried.take()
        rows = self._encode_windows(batch, plan, earlier)
        taught, target = rows.encoded[every, segment + 1], rows.encoded[every, segment + 2]
        memory = taught
        rows.forced = forced
        if earlier is not None:
            memory = torch.where(continued[:, None, None], earlier.memory, taught)
            begins = (segment == 0) | ~continued
            rows.forced = torch.where(begins, forced, earlier.forced)
        memory = torch.where(rows.forced[:, None, None], taught, memory)
        columns = columns_on(device, plan.columns.flatten(1).clamp(max=batch.input_ids.shape[1] - 1))
        restart, documents = cold, None
        if batch.documents is not None:
            documents = batch.documents.gather(1, columns)
            restart = restart | batch.begins.gather(1, columns[:, :1])[:, 0] & (columns[:, 0] > 0)
        memory = torch.where(restart[:, None, None], rows.encoded[:, 0], memory)
        output = model(
            input_ids=batch.input_ids.gather(1, columns),
            cache=SmtRnnCache(memory),
            documents=documents,
            output_memory=True,
            use_cache=False,
            detach_readout=self.args.detach_readout,
        )
        rows.memory = output.memory[:, -1].detach()
        if model.training:
            self.carried.put(rows)
        logits = rows.backbone_logits
        if logits is not None:
            logits = logits[every[:, None], columns][:, None]
        return DmtOutput(output.memory[:, -1:], target[:, None], output.logits[:, None], logits)

    def _encode_windows(self, batch, plan: CarriedPlan, earlier: Rows | None) -> Rows:
        """The rows of a step with the teacher's states of their windows; only new windows are encoded."""
        if earlier is None or earlier.encoded is None:
            new, rows = torch.arange(len(plan.segment)), Rows(None, None)
        else:
            new, rows = plan.new, Rows(None, None, earlier.encoded, earlier.backbone_logits)
        if not len(new):
            return rows
        new = columns_on(batch.input_ids.device, new)
        data, length = self.train_dataset, batch.input_ids.shape[1]
        edges = data.lead - 1 + self.args.segment_length * torch.arange(data.num_segments + 1)
        positions = torch.cat([torch.tensor([-1]), edges.clamp(max=length - 1)])
        encoded, logits = self._encode(batch[new], positions, slice(None))
        if rows.encoded is None:
            rows.encoded, rows.backbone_logits = encoded, logits
        else:
            rows.encoded[new] = encoded
            if logits is not None:
                rows.backbone_logits[new] = logits
        return rows

    def _encode(self, batch, positions, columns) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The teacher's states after positions `(N,)`, and its backbone's logits at columns, if they are distilled."""
        with_logits = self.args.kd_weight > 0
        output = encode_positions(self.teacher, batch.input_ids, positions, batch.documents, with_logits)
        return output.memory, None if output.backbone_logits is None else output.backbone_logits[:, columns]

    def _own_states(self, model, before, tokens, begins, num_sweeps: int) -> torch.Tensor:
        """The student's own states before the segments, `(B, S, K, D)`, from the rollout that the arguments choose."""
        student = self.accelerator.unwrap_model(model)
        if self.args.rollout == "sequential":
            return self.gathered(lambda: sequential_states(student, before, tokens, begins))
        return self.gathered(lambda: sweep_states(student, before, tokens, begins, num_sweeps))

    def num_counted(self, step):
        each = step.plan.columns.numel()
        return each if isinstance(step.plan, CarriedPlan) else len(step.batch.input_ids) * each

    def carry(self, dataset, args, batch_size):
        return row_windows(dataset, args, batch_size), CarriedRows()
