"""One training step on the meta device: the trainers' own code, on tensors with shapes but no data."""

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace

import torch
from torch.utils.checkpoint import checkpoint

from ..batch import Batch
from ..comparison.flops import sequential_flops
from ..models import SmtForPreTraining, SmtRnnForCausalLM, layers_smt
from ..training import BpttTrainer, DmtTrainer, SmtTrainer
from ..training.bptt import BpttTrainingArguments
from ..training.carried_rows import CarriedPlan, CarriedRows
from ..training.dmt import DmtTrainingArguments
from ..training.optimizers import hidden_matrices
from ..training.smt import SmtTrainingArguments
from ..training.terms import step_generator
from .meter import Kernels, Meter, Metered

TRAINERS = {SmtTrainingArguments: SmtTrainer, DmtTrainingArguments: DmtTrainer, BpttTrainingArguments: BpttTrainer}


@dataclass(frozen=True)
class StepTrace:
    """What one optimiser step of one process does and holds.

    Attributes:
        num_parameters: trained parameters.
        num_frozen: parameters of a frozen teacher.
        num_matrices: trained parameters that Muon trains.
        flops: FLOPs of all accumulated batches, forward and backward. Only matrix products count; a multiplication and an addition
            are two.
        sequential_flops: FLOPs of the longest chain in which each part needs the one before, see `step_flops`.
        kernels: number of kernels in one batch, forward and backward, by (FLOPs, bytes read and written, whether in 16 bits).
        gradient_bytes, activation_bytes: bytes held at the peak.
        tokens: tokens in the contexts of the step's batches.
        num_batches: accumulated batches.
    """

    num_parameters: int
    num_frozen: int
    num_matrices: int
    flops: int
    sequential_flops: float
    kernels: dict[tuple[int, int, bool], int]
    gradient_bytes: int
    activation_bytes: int
    tokens: int
    num_batches: int

    @property
    def num_kernels(self) -> int:
        """The number of kernels in one batch."""
        return sum(self.kernels.values())

    @property
    def bytes_moved(self) -> int:
        """Bytes that the kernels of one batch read and write."""
        return sum(moved * number for (_, moved, _), number in self.kernels.items())


def trace_step(
    config, arguments, on_cpu: bool = False, draw: tuple[int, int] = (0, 0), new_windows: int = 0
) -> StepTrace:
    """Traces a step.

    Args:
        config: an `SmtConfig`, or an `SmtRnnConfig` for a student alone.
        arguments: a trainer's arguments; their type decides the method.
        on_cpu: whether to use a CPU's kernels, which differ for attention over a handful of positions.
        draw: the seed and the step that the plan is drawn from.
        new_windows: for DMT with carried memory, the rows that begin a window in this step, which the teacher encodes. Memory
            peaks in the first step of a training, in which all rows do.
    """
    torch.manual_seed(0)
    with kernels_of_cpu(on_cpu):
        trainer = meta_trainer(config, arguments)
        batch = meta_batch(arguments)
        plan = meta_plan(trainer, batch, draw)
        step = trainer.step_of(batch, plan, draw)
        meter = Meter()
        trainer.model.train()
        trained = [each for each in trainer.model.parameters() if each.requires_grad]
        for parameter in trained:
            parameter.register_post_accumulate_grad_hook(lambda each: _note_gradient(meter, each))
        recompute_with_kernels(trainer.model, meter, arguments.bf16)
        if carries_windows(arguments):
            with torch.no_grad(), Metered(meter), Kernels(meter, arguments.bf16):
                trainer.run(trainer.model, step)  # the first step
            meter.kernels.clear()
            trainer.carried.rewind()
            step = replace(step, plan=replace(plan, new=torch.arange(new_windows)))
        with Metered(meter), Kernels(meter, arguments.bf16):
            trainer.mean_loss(trainer.losses(trainer.model, step)[0]).backward()
        chain = sequential_flops(trainer, batch.input_ids)
    frozen = sum(each.numel() for each in trainer.teacher.parameters()) if hasattr(trainer, "teacher") else 0
    peak, gradients = meter.peak
    return StepTrace(
        num_parameters=sum(each.numel() for each in trained),
        num_frozen=frozen,
        num_matrices=sum(each.numel() for each in hidden_matrices(trainer.model)) if arguments.muon else 0,
        flops=meter.flops * arguments.gradient_accumulation_steps,
        sequential_flops=chain,
        kernels=dict(meter.kernels),
        gradient_bytes=gradients,
        activation_bytes=peak - gradients,
        tokens=tokens_read(arguments) * arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps,
        num_batches=arguments.gradient_accumulation_steps,
    )


def recompute_with_kernels(model: torch.nn.Module, meter: Meter, autocast: bool) -> None:
    """Lets a backward pass recompute in the same kernels, which torch's modes do not reach by themselves."""
    again = partial(checkpoint, use_reentrant=False, context_fn=lambda: (nullcontext(), Kernels(meter, autocast)))
    for module in model.modules():
        if hasattr(module, "_gradient_checkpointing_func"):
            module._gradient_checkpointing_func = again


def tokens_read(arguments) -> int:
    """The tokens of a window, or of a segment if the memory is carried."""
    if carries_windows(arguments):
        return arguments.segment_length
    return arguments.bptt_horizon if carries(arguments) else arguments.context_length


def carries(arguments) -> bool:
    """Whether a step of BPTT reads one segment of every row."""
    return hasattr(arguments, "bptt_horizon") and arguments.carry_memory


def carries_windows(arguments) -> bool:
    """Whether a step of DMT reads one segment of every row's window."""
    return getattr(arguments, "rollout", None) == "carried"


def meta_batch(arguments) -> Batch:
    """A micro-batch of one process, in the form of text data."""
    rows, carried = arguments.per_device_train_batch_size, carries(arguments)
    length = arguments.bptt_horizon + 1 if carried else arguments.window_length
    if carries_windows(arguments):
        length += arguments.teacher_lead
    columns = {name: torch.zeros(rows, length, dtype=torch.long, device="meta") for name in ("input_ids", "documents")}
    if carried:
        columns["continued"] = torch.zeros(rows, dtype=torch.bool, device="meta")
    return Batch.of(columns)


def meta_plan(trainer, batch: Batch, draw: tuple[int, int]):
    """The plan of a step; if the memory is carried, it covers the first segment of every row."""
    if not carries_windows(trainer.args):
        return trainer.draw_plan(batch, step_generator(*draw))
    rows = len(batch.input_ids)
    columns = torch.zeros(rows, 1, trainer.args.segment_length, dtype=torch.long)
    continued, forced, cold = torch.zeros(3, rows, dtype=torch.bool)
    return CarriedPlan(columns, columns[:, 0, 0], torch.arange(rows), continued, forced, cold)


def meta_trainer(config, arguments):
    """The trainer for these arguments, with models that have no data."""
    kind = TRAINERS[type(arguments)]
    with torch.device("meta"):
        whole = SmtForPreTraining(config) if hasattr(config, "teacher_config") else None
        student = SmtRnnForCausalLM(getattr(config, "student_config", config)) if kind is not SmtTrainer else None
    windows = carries_windows(arguments)
    made = type(f"Meta{kind.__name__}", (_OnMeta, kind), {})
    if kind is SmtTrainer:
        return made(model=whole, args=arguments)
    if kind is DmtTrainer:
        trainer = made(model=student, args=arguments, teacher=whole.teacher)
        if windows:
            num_segments = arguments.context_length // arguments.segment_length
            trainer.train_dataset = SimpleNamespace(lead=arguments.teacher_lead, num_segments=num_segments)
            trainer.carried = CarriedRows()
        return trainer
    trainer = made(model=student, args=arguments)
    if arguments.carry_memory:
        trainer.carried = _Carried()
    return trainer


class _OnMeta:
    """A trainer that leaves models and batches on their device."""

    def _move_model_to_device(self, model, device):
        pass

    def _prepare_inputs(self, inputs):
        return inputs

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        self.accelerator.device_placement = False


class _Carried:
    """The carried memory for a step that has no step before it."""

    def rewind(self):
        pass

    def take(self, continued, start):
        return torch.where(continued[:, None, None], start.detach(), start)

    def put(self, memory):
        pass


def _note_gradient(meter: Meter, parameter: torch.Tensor) -> None:
    meter.gradients += parameter.grad.nbytes


@contextmanager
def kernels_of_cpu(on_cpu: bool):
    """Makes attention over a handful of positions run on the meta device as on a CPU."""
    before = layers_smt.SHORT_ATTENTION
    if on_cpu:
        layers_smt.SHORT_ATTENTION = {*before, "meta"}
    try:
        yield
    finally:
        layers_smt.SHORT_ATTENTION = before
