"""Checks that a GPU computes what a CPU computes: steps and gradients, bf16, flex attention, generation; see prove_gpu.py.

Every check raises an AssertionError or returns the numbers that it compared.
"""

import tempfile
import traceback
import warnings
from collections import Counter
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from training_setup import SIZES, Sizes, corpus, make_model, make_trainer, windows

from smt_hf.batch import Batch
from smt_hf.models.cells_smt_rnn import CELLS
from smt_hf.training.terms import step_generator

# Wide enough for the kernels of a GPU, small enough for a CPU.
CHECKED = Sizes(64, 4, 2, 1, 2, 2, 48, 8, 4, 32, 4, (3,))
METHODS = {
    "smt": ("smt", {"context_length": 48, "horizon": 8, "num_transitions": 16, "num_decoded": 2}),
    "smt, segments": (
        "smt",
        {"context_length": 48, "horizon": 8, "num_transitions": 16, "segment_length": 4, "student_weight": 1.0},
    ),
    "dmt, sweeps": ("dmt", {"context_length": 48, "rollout_length": 32, "segment_length": 4, "num_sweeps": [2]}),
    "dmt, sequential": ("dmt", {"context_length": 48, "rollout_length": 16, "rollout": "sequential"}),
    "bptt": ("bptt", {"context_length": 32}),
    "bptt, truncated": ("bptt", {"context_length": 32, "bptt_horizon": 8, "checkpoint_steps": 4}),
}


def step_on(trainer, inputs: dict, device: str, autocast: bool = False) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of one step, with the trainer's models moved to a device."""
    trainer.model.to(device).zero_grad()
    if hasattr(trainer, "teacher"):
        trainer.teacher.to(device)
    batch = Batch.of({name: column.to(device) for name, column in inputs.items()})
    step = trainer.step_of(batch, trainer.draw_plan(batch, step_generator(0, 3)), (0, 3))
    context = torch.autocast(torch.device(device).type, torch.bfloat16) if autocast else nullcontext()
    with context:
        loss = trainer.mean_loss(trainer.losses(trainer.model, step)[0])
    loss.backward()
    grads = {name: p.grad.detach().cpu() for name, p in trainer.model.named_parameters() if p.grad is not None}
    return loss.item(), grads


def distance(grads: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The norm of the difference of two gradients, divided by the norm of the second."""
    assert grads.keys() == other.keys()
    apart = sum((grads[name] - other[name]).double().square().sum() for name in grads)
    return float((apart / sum(grad.double().square().sum() for grad in other.values())).sqrt())


def checked_trainer(method: str, cell_type: str, folder: str):
    """A small trainer on the CPU, and a batch for it."""
    kind, fields = METHODS[method]
    model = make_model(CHECKED, cell_type=cell_type, initializer_range=0.1)
    trainer = make_trainer(kind, model, windows(corpus(None)), "cpu", folder, **fields)
    return trainer, trainer.data_collator([trainer.train_dataset[i] for i in range(4)])


def check_steps(device: str) -> dict:
    """Checks that one float32 step of every method, and of SMT and DMT with every cell, has the CPU's loss and gradient."""
    found = {}
    cases = [(method, "transformer") for method in METHODS]
    cases += [(method, cell) for method in ("smt, segments", "bptt") for cell in CELLS if cell != "transformer"]
    with tempfile.TemporaryDirectory() as folder:
        for method, cell_type in cases:
            trainer, inputs = checked_trainer(method, cell_type, folder)
            trainer.model.train()
            loss, grads = step_on(trainer, inputs, "cpu")
            loss_there, grads_there = step_on(trainer, inputs, device)
            apart = {"loss": abs(loss_there / loss - 1), "gradient": distance(grads_there, grads)}
            found[f"{method}, {cell_type}"] = apart
            assert apart["loss"] < 1e-5 and apart["gradient"] < 1e-3, (method, cell_type, apart)
    return found


def check_bf16(device: str) -> dict:
    """Compares a step under bf16 autocast with one in float32, both on the device."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for method in METHODS:
            trainer, inputs = checked_trainer(method, "transformer", folder)
            trainer.model.train()
            loss, grads = step_on(trainer, inputs, device)
            loss_bf16, grads_bf16 = step_on(trainer, inputs, device, autocast=True)
            apart = {"loss": abs(loss_bf16 / loss - 1), "gradient": distance(grads_bf16, grads)}
            found[method] = apart
            assert apart["loss"] < 0.02 and apart["gradient"] < 0.3, (method, apart)
    return found


def check_flex(device: str) -> dict:
    """Compares the teacher's memories and their gradient between flex attention and sdpa."""
    if device == "cpu":
        return {"skipped": "on a CPU flex attention has no gradient, and its compilation takes minutes"}
    tokens = torch.randint(256, (4, 128), generator=torch.Generator().manual_seed(0)).to(device)
    documents = (torch.arange(128) // 50).expand(4, -1).to(device)
    positions = torch.arange(-1, 128, 5, device=device)
    outputs = {}
    for attention in ("sdpa", "flex_attention"):
        model = make_model(CHECKED, initializer_range=0.1)
        model.teacher.set_attn_implementation(attention)
        teacher = model.teacher.to(device)
        memory = teacher.encode(tokens, positions, documents=documents)
        (memory * torch.arange(memory.shape[-1], device=device)).sum().backward()
        grad = {name: p.grad.cpu() for name, p in teacher.named_parameters() if p.grad is not None}
        outputs[attention] = memory.detach().cpu(), grad
    (memory, grad), (flex, flex_grad) = outputs["sdpa"], outputs["flex_attention"]
    found = {"memory": float((flex - memory).norm() / memory.norm()), "gradient": distance(flex_grad, grad)}
    assert all(value < 5e-3 for value in found.values()), found
    return found


def check_generation(device: str) -> dict:
    """Checks that greedy generation gives the same tokens as on the CPU, from prompts with padding."""
    model = make_model(CHECKED, initializer_range=0.1).export_student().eval()
    prompts = torch.randint(256, (8, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(prompts)
    mask[:4, :5] = 0
    options = {"max_new_tokens": 64, "do_sample": False, "pad_token_id": 0}
    here = model.generate(prompts, attention_mask=mask, **options)
    there = model.to(device).generate(prompts.to(device), attention_mask=mask.to(device), **options).cpu()
    same = (here == there).all(dim=1).sum().item()
    assert same == len(prompts), f"{same} of {len(prompts)} rows are equal"
    return {"rows": len(prompts), "equal_rows": same, "new_tokens": 64}


# ---- host synchronisations ---------------------------------------------------------------------------------------------

WAITING = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten._unique2.default,
    torch.ops.aten.unique_dim.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.bincount.default,
}


class WaitingOps(TorchDispatchMode):
    """Counts operations that would make the host wait for a GPU, by the line in the package that called them."""

    def __init__(self):
        super().__init__()
        self.lines = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        masked = func is torch.ops.aten.index.Tensor and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if func in WAITING or masked:
            self.lines[f"{calling_line()} {func.name().removeprefix('aten::')}"] += 1
        return func(*args, **(kwargs or {}))


def calling_line() -> str:
    """The innermost line on the stack that is in the package, or in its caller."""
    frames = [frame for frame in traceback.extract_stack() if "gpu_checks" not in frame.filename]
    own = [frame for frame in frames if f"{Path('smt_hf')}/" in frame.filename]
    frame = (own or frames)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"


@contextmanager
def waiting_lines(device: str, lines: Counter):
    """Counts what makes the host wait: on CUDA as reported by the driver's debug mode, on a CPU by the operations."""
    if device != "cuda":
        with WaitingOps() as mode:
            yield
        lines.update(mode.lines)
        return

    def show(message, *args, **kwargs):
        if "synchroniz" in str(message):
            lines[calling_line()] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


def count_waits(device: str) -> dict:
    """Host synchronisations in one optimiser step of a running training, by line, for every method."""
    found = {}
    sizes = SIZES["small"]
    with tempfile.TemporaryDirectory() as folder:
        for method, (kind, fields) in METHODS.items():
            options = {"max_steps": 4, "per_device_train_batch_size": 4, "bf16": device == "cuda", "drift_steps": 0}
            if kind == "bptt":
                options.pop("drift_steps")
            model = make_model(sizes)
            trainer = make_trainer(kind, model, windows(corpus(None)), device, folder, **{**fields, **options})
            lines, step = Counter(), trainer.training_step
            samples = trainer.get_batch_samples

            def counted(function, trainer=trainer, lines=lines):
                def call(*args, **kwargs):
                    if trainer.state.global_step != 2:
                        return function(*args, **kwargs)
                    with waiting_lines(device, lines):
                        return function(*args, **kwargs)

                return call

            trainer.training_step, trainer.get_batch_samples = counted(step), counted(samples)
            trainer.train()
            found[method] = {"total": sum(lines.values()), "lines": dict(lines.most_common())}
    return found


CHECKS = {
    "a float32 step as on the CPU": check_steps,
    "bf16 autocast against float32": check_bf16,
    "flex attention against sdpa": check_flex,
    "greedy generation as on the CPU": check_generation,
}
