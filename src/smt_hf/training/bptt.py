"""BPTT: trains the student alone by back-propagation through time, full or truncated."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from ..batch import IGNORED, Batch
from ..data import TextStream
from ..data.streams import CarriedMemory, TokenStreams
from ..errors import InputError
from ..losses import LossTerm, cross_entropy
from ..models.backbone_smt import read_backbone
from ..models.cache_smt_rnn import SmtRnnCache
from ..utils.described import described
from .arguments import MemoryTrainingArguments
from .memory_trainer import MemoryTrainer
from .resume import weights_identity
from .supported import LANGUAGE_MODEL, STUDENT, check_partners
from .terms import Step, Term, kd_term


@described
@dataclass
class BpttTrainingArguments(MemoryTrainingArguments):
    """Arguments of [`BpttTrainer`]: how far the gradient goes back, and what happens to the memory between steps.

    The default is full back-propagation through the window. With `bptt_horizon: H`, the window is cut into segments of H
    steps; the memory passes from one segment to the next, the gradient does not, and all segments make one optimiser step.
    With `carry_memory`, every segment is a separate optimiser step, and the memory is carried through the whole text.
    """

    context_length: int = field(default=128, metadata={"help": "Number of tokens of a window that the student reads."})
    bptt_horizon: int | None = field(
        default=None,
        metadata={
            "help": "Maximum number of steps that the gradient goes back; the whole window by default (full BPTT)."
        },
    )
    carry_memory: bool = field(
        default=False,
        metadata={
            "help": "Take an optimiser step every bptt_horizon tokens and carry the memory from step to step through the "
            "whole text, in as many parallel streams as a step has windows."
        },
    )
    train_start: bool = field(
        default=True,
        metadata={
            "help": "Also predict the first token of every window and document from the initial memory, which the stock "
            "Trainer does not."
        },
    )
    kd_weight: float = field(
        default=0.0, metadata={"help": "Weight of the distance to the predictions of a language model, the backbone."}
    )
    checkpoint_steps: int | None = field(
        default=None,
        metadata={
            "help": "Recompute the student's steps in the backward pass, this many at a time, instead of storing their "
            "activations: less memory, a third more time. gradient_checkpointing uses the square root of the length."
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
            raise InputError(
                "carry_memory needs bptt_horizon, the number of tokens of an optimizer step: set it, for example to 16"
            )

        if self.carry_memory and self.kd_weight:
            raise InputError(
                f"kd_weight={self.kd_weight:g} is not supported with carry_memory, since the language model would only see one "
                "segment: use smt-hf dmt with rollout 'carried', dynamics_weight 0 and teacher_forcing_start 0"
            )

    @property
    def window_length(self) -> int:
        """Number of tokens per window must have: the context and the target of its last state."""
        return self.context_length + 1


@dataclass(frozen=True)
class BpttPlan:
    """The part of a window that the student reads.

    Attributes:
        length: number of tokens; the last token of a window is only a target, unless the targets are aligned.
        trains_start: whether the first token of every document is predicted from the initial memory.
    """

    length: int
    trains_start: bool


class BpttOutput(NamedTuple):
    """The inputs of the loss.

    logits: `(B, T, V)`, for the next token after every token.
    start_logits: `(V,)`, for the first token, from the initial memory; `None` if it is not trained.
    memory: `(B, T, K, D)`, the memory after every token.
    backbone_logits: `(B, T, V)`, the predictions of a language model, if they are distilled.
    """

    logits: torch.Tensor
    start_logits: torch.Tensor | None
    memory: torch.Tensor
    backbone_logits: torch.Tensor | None = None


def readout_targets(batch: Batch, plan: BpttPlan) -> torch.Tensor:
    """The targets `(B, T)` after every token read; `(B, T + T + 1)` with those of the initial memory."""
    targets = batch.targets[:, 1 : plan.length + 1]
    if not plan.trains_start:
        return targets
    starts = batch.start_targets
    if batch.continued is not None:
        starts = starts.clone()
        starts[:, -1] = IGNORED  # the first token of the next segment
    return torch.cat([targets, starts], dim=1)


def readout_loss(output: BpttOutput, targets: torch.Tensor) -> LossTerm:
    """The next-token loss of every memory, including the initial one if it is trained."""
    length = output.logits.shape[1]
    term = cross_entropy(output.logits, targets[:, :length])
    if output.start_logits is None:
        return term
    first = targets[:, length:]
    counted = first != IGNORED
    log_probabilities = output.start_logits.log_softmax(dim=-1)[first.clamp(min=0)]
    return LossTerm(term.total - (log_probabilities * counted).sum(), term.count + counted.sum())


class BpttTrainer(MemoryTrainer):
    """Trains an [`SmtRnnForCausalLM`] on the next token, from new weights or a checkpoint: an alternative to SMT, or a last stage.

    Data items are dictionaries of `input_ids` `(T,)` and, as needed, `labels` (ids at their own positions, -100 is ignored, as
    from every language-modelling collator), `shift_labels` (targets that are already aligned: target t is predicted from the
    memory after token t), `attention_mask` and `documents`, all `(T,)`. Documents start from the initial memory; padding does
    not change the memory.

    Args:
        model: the student.
        args: [`BpttTrainingArguments`].
        **kwargs: those of `transformers.Trainer`. With `carry_memory`, the training data must be `TokenWindows` or a
            `TextStream`, whose text is read in streams.
        backbone: a causal language model to distil, with weight `kd_weight`; it is neither trained nor saved.

    Raises:
        InputError: if model, backbone or data do not fit the arguments.
        FloatingPointError: if a loss is not finite; raised before the weights are updated.
    """

    terms = (
        Term("readout", 1.0, "", readout_loss, readout_targets),
        kd_term(lambda output: output.logits, lambda batch, plan: batch.targets[:, 1 : plan.length + 1]),
    )
    counted = "tokens"

    def __init__(self, model, args, backbone=None, **kwargs):
        learned = {} if backbone is None else {"backbone": (backbone, LANGUAGE_MODEL)}
        check_partners(args, BpttTrainingArguments, model=(model, STUDENT), **learned)
        check_distillation(model, args, backbone)
        super().__init__(model=model, args=args, **kwargs)
        self.backbone = None
        if backbone is not None:
            backbone.requires_grad_(False)
            self.backbone = self.replicated(backbone.eval())

    def further_settings(self):
        return {} if self.backbone is None else {"backbone": weights_identity(self.backbone)}

    def student(self):
        return self.accelerator.unwrap_model(self.model)

    def weight(self, name):
        return 1.0 if name == "readout" else super().weight(name)

    def draw_plan(self, batch, generator):
        return plan_for(batch, self.args.train_start)

    def run(self, model, step: Step) -> BpttOutput:
        batch, student = step.batch.first(step.plan.length), self.accelerator.unwrap_model(model)
        options = {}
        if batch.continued is not None:
            start = self.gathered(lambda: student.model.start_memory(len(batch.continued)))
            options["cache"] = SmtRnnCache(self.carried.take(batch.continued, start))
        if model.training and self.args.checkpoint_steps is not None:
            options["checkpoint_steps"] = self.args.checkpoint_steps
        output = model(
            input_ids=batch.input_ids,
            attention_mask=batch.documents >= 0 if batch.padded else None,
            documents=batch.documents,
            bptt_horizon=self.args.bptt_horizon,
            output_memory=True,
            use_cache=False,
            **options,
        )
        if batch.continued is not None:
            self.carried.put(output.memory[:, -1])
        start_logits = None
        if step.plan.trains_start:
            with self.accelerator.autocast():
                start_logits = self.gathered(lambda: student.readout(student.initial_memory)).float()
        backbone_logits = None
        if self.backbone is not None:
            with torch.no_grad():
                backbone_logits = read_backbone(self.backbone, batch.input_ids, batch.documents, logits=True).logits
        return BpttOutput(output.logits, start_logits, output.memory, backbone_logits)

    def num_counted(self, step):
        batch = step.batch.first(step.plan.length)
        return (batch.documents >= 0).sum() if batch.padded else batch.input_ids.numel()

    def carry(self, dataset, args, batch_size):
        return streams(dataset, args, batch_size), CarriedMemory(by_process=isinstance(dataset, TextStream))


def plan_for(batch: Batch, train_start: bool) -> BpttPlan:
    """Plans which part of a window is read.

    Raises:
        InputError: for windows without a target.
    """
    length = batch.input_ids.shape[1]
    if batch.shift_labels is not None:
        return BpttPlan(length, trains_start=False)
    if length < 2:
        raise InputError("windows of 1 token have no next token: use longer ones, or pass shift_labels")
    return BpttPlan(length - 1, train_start)


def check_distillation(student, args, backbone) -> None:
    """Checks that there is a backbone exactly if `kd_weight` is not 0, and that it has the student's vocabulary size.

    Raises:
        InputError: if not.
    """
    if backbone is None and args.kd_weight:
        raise InputError(
            f"kd_weight={args.kd_weight:g} needs a language model whose predictions the student learns: pass a backbone"
        )
    if backbone is not None and not args.kd_weight:
        raise InputError("backbone is given, but kd_weight is 0, so nothing would be learned from it: raise kd_weight")
    if backbone is not None:
        own, other = student.config.vocab_size, backbone.config.get_text_config().vocab_size
        if own != other:
            raise InputError(
                f"the student's vocab_size is {own}, but the backbone's is {other}: use the backbone's own tokenizer"
            )


def streams(dataset, args, batch_size: int) -> TokenStreams | TextStream:
    """Reads `TokenWindows` or a `TextStream` in as many streams as an optimiser step has rows.

    Args:
        dataset: the training data.
        args: the trainer's arguments.
        batch_size: rows of a batch of one process.

    Raises:
        InputError: if the data are of another kind, or too short.
    """
    if isinstance(dataset, TextStream):
        return dataset.as_running_text(args.bptt_horizon)
    if not hasattr(dataset, "cache"):
        raise InputError(
            f"carry_memory reads running text, not a {type(dataset).__name__}: pass TokenWindows or a TextStream, or leave carry_memory out"
        )
    rows = batch_size * args.gradient_accumulation_steps * args.world_size
    return TokenStreams(dataset.cache, args.bptt_horizon, rows, seed=args.order_seed)
