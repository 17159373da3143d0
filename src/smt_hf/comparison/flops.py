"""The cost of a training step: all its floating-point operations, and those that must follow one another."""

from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..models.backbone_smt import read_backbone
from ..training import LmTrainer
from ..training.bptt import BpttPlan

NUM_DRAWS = 8  # a step's cost depends on what it draws


def step_flops(trainer, batches: list[dict]) -> tuple[float, float]:
    """FLOPs of one optimiser step, in all and sequential, as counted by `torch.utils.flop_counter`.

    In all: forward and backward pass on the batch, averaged over a few draws of what a step looks at; a multiplication and an
    addition count as two. Attention counts in full, masked or not. Not counted are attention over a handful of positions, which
    CPUs compute without a matrix product (at most 64 pairs, such as a memory of a few tokens), and elementwise operations. All
    batches of an accumulated gradient count.

    Sequential: the longest chain of work in which each part needs the result of the one before, where rows of a batch and
    time steps that do not depend on each other count once. With c, e and r the forward FLOPs of one row for a step of the
    student, for one position of the teacher's encoder (its memory registers) and for one readout, b those of one position of
    a language model, and a backward pass twice as expensive as its forward pass:

    - BPTT over T steps, gradient over H: `T c + 2 H c + 3 r`, and `b` more if it learns from a language model;
    - SMT with segments of J steps: `3 (e + J c + r)`, and `b` more with a frozen backbone, `3 b` with a trained one;
    - DMT with n sweeps (n = T / J - 1 if sequential, 0 if carried): `b + e + n J c + 3 (J c + r)`;
    - a language model: `3 b`.

    Args:
        trainer: an [`SmtTrainer`], [`DmtTrainer`], [`BpttTrainer`] or [`LmTrainer`].
        batches: one batch from its data collator, or those of consecutive steps if the cost of a step depends on the step before;
            the first of these is then not counted.

    Returns:
        Both numbers.
    """
    trainer.model.train()
    num_draws = NUM_DRAWS if draws_cost(trainer) else 1
    draws = (
        [(batch, 0) for batch in batches] if len(batches) > 1 else [(batches[0], draw) for draw in range(num_draws)]
    )
    totals = []
    for batch, draw in draws:
        if getattr(trainer, "carried", None) is not None:
            trainer.carried.rewind()
        step = trainer.make_step(batch, (0, draw))
        with counted_flops() as counted:
            trainer.mean_loss(trainer.losses(trainer.model, step)[0]).backward()
        trainer.model.zero_grad()
        totals.append(counted.get_total_flops() * trainer.args.gradient_accumulation_steps)
    if getattr(trainer, "carried", None) is not None:
        trainer.carried = type(trainer.carried)()  # the training begins with no memory
    totals = totals[1:] if len(batches) > 1 else totals
    return sum(totals) / len(totals), sequential_flops(trainer, step.batch.input_ids[:, : tokens_read(trainer, step)])


def draws_cost(trainer) -> bool:
    """Whether a step's cost depends on what it draws. It does not if the step runs the whole rollout, or draws nothing."""
    return hasattr(trainer, "teacher_model") and getattr(trainer.args, "rollout", None) != "sequential"


def tokens_read(trainer, step) -> int:
    """Tokens of a row that a step reads; those after them are only targets."""
    return step.plan.length if isinstance(step.plan, BpttPlan) else trainer.args.context_length


def sequential_flops(trainer, input_ids: torch.Tensor) -> float:
    """The sequential FLOPs of [`step_flops`], for the tokens `(B, T)` that a batch's step reads."""
    if isinstance(trainer, LmTrainer):
        return 3 * position_flops(trainer.model, input_ids)
    args, student, length = trainer.args, trainer.student(), input_ids.shape[1]
    memory = student.model.start_memory(1).detach()
    step = forward_flops(lambda: student.update(memory, input_ids[:1, 0]))
    read = forward_flops(lambda: student.readout(memory))
    if not hasattr(trainer, "teacher_model"):
        horizon = min(args.bptt_horizon or length, length)
        taught = 0.0 if trainer.backbone is None else position_flops(trainer.backbone, input_ids)
        return taught + length * step + 2 * horizon * step + 3 * read

    teacher = trainer.teacher_model()
    backbone = (
        0.0 if teacher.backbone is None else position_flops(teacher.backbone, input_ids, head=args.kd_weight > 0)
    )
    encode = register_flops(teacher, input_ids)
    if hasattr(args, "num_transitions"):
        student_part = args.segment_length * step if args.runs_student else 0
        return (3 if args.backbone_learning_rate else 1) * backbone + 3 * (encode + student_part + read)
    num_segments = 0 if args.rollout == "carried" else args.rollout_length // args.segment_length - 1
    if args.rollout == "sweeps":
        sweeps = [min(sweeps, num_segments) for sweeps in args.num_sweeps]
        num_segments = sum(sweeps) / len(sweeps)
    return backbone + encode + num_segments * args.segment_length * step + 3 * (args.segment_length * step + read)


def register_flops(teacher, input_ids: torch.Tensor) -> float:
    """The forward FLOPs of one position of a teacher's encoder, that is of its registers, without its backbone."""
    num_registers, length = teacher.config.num_memory_tokens, input_ids.shape[1]
    dense = teacher.config.encoder_attention == "causal"  # one pass for all positions instead of one for each
    positions = torch.arange(length) if dense else torch.tensor([length - 1])
    total = forward_flops(lambda: teacher.encode(input_ids[:1], positions))
    if teacher.backbone is not None:
        total -= forward_flops(lambda: read_backbone(teacher.backbone, input_ids[:1], None, logits=False))
    return total * num_registers / (length + len(positions) * num_registers)


def position_flops(model, input_ids: torch.Tensor, head: bool = True) -> float:
    """The forward FLOPs of one position of a language model in a row `(B, T)`."""
    total = forward_flops(lambda: read_backbone(model, input_ids[:1], None, logits=head))
    return total / (input_ids.shape[1] + (model.config.bos_token_id is not None))


@contextmanager
def counted_flops():
    """Counts the FLOPs of what runs inside. Attention runs unfused, since fused attention on CPUs is not counted."""
    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH):
        yield counted


@torch.no_grad()
def forward_flops(run) -> int:
    """The FLOPs of one call."""
    with counted_flops() as counted:
        run()
    return counted.get_total_flops()
