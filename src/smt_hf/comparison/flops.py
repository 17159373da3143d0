"""What a training step costs: all its floating-point operations, and those that must follow one another."""

from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..training.bptt import BpttPlan

NUM_DRAWS = 8  # a step's cost depends on what it draws


def step_flops(trainer, batch: dict) -> tuple[float, float]:
    """FLOPs of one optimiser step, all of them and the sequential ones, as `torch.utils.flop_counter` counts them.

    All: forward and backward pass on the batch, the mean of a few draws of what a step looks at; a multiplication and an
    addition are two. Attention counts in full, masked or not; but not that over a handful of positions, which CPUs compute
    without a matrix product (at most 64 pairs, such as a memory of a few tokens), nor what is done number by number. All
    batches of an accumulated gradient count.

    Sequential: the longest chain of work in which each part needs the result of the one before, where rows of a batch and
    time steps that do not depend on each other count once. With c, e and r the forward FLOPs of one row for a step of the
    student, for one position of the teacher's encoder (its memory registers) and for one readout, and a backward pass
    twice as dear as its forward pass:

    - BPTT over T steps, gradient over H: `T c + 2 H c + 3 r`;
    - SMT with segments of J steps: `3 (e + J c + r)`;
    - DMT with n sweeps (n = T / J - 1 if sequential): `e + n J c + 3 (J c + r)`.

    Args:
        trainer: an [`SmtTrainer`], [`DmtTrainer`] or [`BpttTrainer`].
        batch: as its data collator gives it.

    Returns:
        Both numbers.
    """
    trainer.model.train()
    num_draws = NUM_DRAWS if draws_cost(trainer) else 1
    total = 0
    for draw in range(num_draws):
        step = trainer.make_step(batch, (0, draw))
        with counted_flops() as counted:
            trainer.mean_loss(trainer.losses(trainer.model, step)[0]).backward()
        trainer.model.zero_grad()
        total += counted.get_total_flops() * trainer.args.gradient_accumulation_steps
    if getattr(trainer, "carried", None) is not None:
        trainer.carried = type(trainer.carried)()  # the training begins with no memory
    return total / num_draws, sequential_flops(trainer, step.batch.input_ids[:, : tokens_read(trainer, step)])


def draws_cost(trainer) -> bool:
    """Whether what a step draws decides what it costs: not where the whole rollout is gone through, nor where nothing is drawn."""
    return hasattr(trainer, "teacher_model") and getattr(trainer.args, "rollout", None) != "sequential"


def tokens_read(trainer, step) -> int:
    """Tokens of a row that a step reads; what follows them are targets only."""
    return step.plan.length if isinstance(step.plan, BpttPlan) else trainer.args.context_length


def sequential_flops(trainer, input_ids: torch.Tensor) -> float:
    """The second number of [`step_flops`] for the tokens `(B, T)` that a batch's step reads."""
    args, student, length = trainer.args, trainer.student(), input_ids.shape[1]
    memory = student.model.start_memory(1).detach()
    step = forward_flops(lambda: student.update(memory, input_ids[:1, 0]))
    read = forward_flops(lambda: student.readout(memory))
    if not hasattr(trainer, "teacher_model"):
        horizon = min(args.bptt_horizon or length, length)
        return length * step + 2 * horizon * step + 3 * read

    teacher, num_registers = trainer.teacher_model(), memory.shape[1]
    dense = teacher.config.encoder_attention == "causal"  # one pass for all positions, or a pass for each
    positions = torch.arange(length) if dense else torch.tensor([length - 1])
    encode = forward_flops(lambda: teacher.encode(input_ids[:1], positions))
    encode *= num_registers / (length + len(positions) * num_registers)
    if hasattr(args, "num_transitions"):
        return 3 * (encode + args.segment_length * step * args.runs_student + read)
    num_segments = 0 if args.rollout == "carried" else args.rollout_length // args.segment_length - 1
    if args.rollout == "sweeps":
        sweeps = [min(sweeps, num_segments) for sweeps in args.num_sweeps]
        num_segments = sum(sweeps) / len(sweeps)
    return encode + num_segments * args.segment_length * step + 3 * (args.segment_length * step + read)


@contextmanager
def counted_flops():
    """Counts what runs inside; attention unfused, since the fused one of CPUs is not counted."""
    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH):
        yield counted


@torch.no_grad()
def forward_flops(run) -> int:
    """The FLOPs of one call."""
    with counted_flops() as counted:
        run()
    return counted.get_total_flops()
