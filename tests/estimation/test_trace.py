"""A traced step against the step itself: every number that can be counted exactly is."""

import dataclasses

import pytest
import torch

from smt_hf.comparison.flops import counted_flops, sequential_flops
from smt_hf.data import TokenWindows
from smt_hf.estimation import trace_step
from smt_hf.estimation.estimates import batch_cost
from smt_hf.estimation.hardware import HARDWARE
from smt_hf.estimation.meter import Kernels, Meter, Metered
from smt_hf.training import (
    BpttTrainer,
    BpttTrainingArguments,
    DmtTrainer,
    DmtTrainingArguments,
    SmtTrainer,
    SmtTrainingArguments,
)
from tests.backbones import language_model, model_on
from tests.conftest import tiny_config, tiny_model
from tests.training.conftest import COMMON, DMT, SMT

KINDS = {
    "SMT": ("smt", {}),
    "SMT in segments": ("smt", {"num_transitions": 12, "segment_length": 4, "student_weight": 1.0}),
    "DMT by sweeps": ("dmt", {}),
    "DMT, sequential": ("dmt", {"rollout": "sequential", "segment_length": 4}),
    "BPTT": ("bptt", {}),
    "BPTT, truncated and recomputed": ("bptt", {"bptt_horizon": 8, "checkpoint_steps": 8}),
    "BPTT, carried": ("bptt", {"bptt_horizon": 8, "carry_memory": True}),
}


def arguments(kind, tmp_path, **more):
    classes = {
        "smt": (SmtTrainingArguments, SMT),
        "dmt": (DmtTrainingArguments, DMT),
        "bptt": (BpttTrainingArguments, {}),
    }
    made, own = classes[kind]
    return made(output_dir=str(tmp_path), **{**COMMON, **own, **more, "per_device_train_batch_size": 4})


def real_step(kind, args, joint, cache):
    """The trainer of a step on the CPU, and its batch."""
    data = TokenWindows(cache, args.window_length)
    if kind == "smt":
        trainer = SmtTrainer(model=joint, args=args, train_dataset=data)
    elif kind == "dmt":
        trainer = DmtTrainer(model=joint.export_student(), teacher=joint.teacher, args=args, train_dataset=data)
    else:
        trainer = BpttTrainer(model=joint.export_student(), args=args, train_dataset=data)
    trainer.model.train()
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(4)])
    return trainer, trainer.make_step(batch, (0, 0))


@pytest.mark.parametrize(
    "name, num_memory_tokens",
    [
        *((name, 3) for name in KINDS),
        ("SMT in segments", 9),
        ("BPTT", 9),
    ],  # with 9, attention is products of matrices on CPUs too
)
def test_flops_and_parameters_are_those_of_the_step(name, num_memory_tokens, cache, tmp_path):
    kind, more = KINDS[name]
    args, sizes = arguments(kind, tmp_path, **more), {"vocab_size": 258, "num_memory_tokens": num_memory_tokens}
    trainer, step = real_step(kind, args, tiny_model(dtype=torch.float32, **sizes), cache)
    with counted_flops() as counted:
        trainer.mean_loss(trainer.losses(trainer.model, step)[0]).backward()
    traced = trace_step(
        tiny_config(**sizes) if kind != "bptt" else tiny_config(**sizes).student_config, args, on_cpu=True
    )
    assert traced.flops == counted.get_total_flops()
    assert traced.sequential_flops == sequential_flops(trainer, step.batch.input_ids)
    assert traced.num_parameters == sum(each.numel() for each in trainer.model.parameters() if each.requires_grad)
    frozen = sum(each.numel() for each in trainer.teacher.parameters()) if kind == "dmt" else 0
    assert traced.num_frozen == frozen


@pytest.mark.parametrize("with_backbone", [False, True])
def test_windows_that_begin_while_others_go_on(with_backbone, cache, tmp_path):
    """Rows stand at different segments: of four rows and three segments one or two begin a window in a step."""
    more = {"rollout": "carried", "segment_length": 8, "teacher_lead": 5}
    joint = tiny_model(dtype=torch.float32, vocab_size=258)
    if with_backbone:
        joint = model_on(language_model(vocab_size=258, dtype=torch.float32))
        more["kd_weight"] = 1.0
    args = arguments("dmt", tmp_path, **more)
    trainer, _ = real_step("dmt", args, joint, cache)
    counts, data = [], trainer.train_dataset
    for number in range(4):
        batch = trainer.data_collator([data[number * 4 + row] for row in range(4)])
        step, earlier = trainer.make_step(batch, (0, number)), trainer.carried.take()
        new = 4 if earlier is None else len(step.plan.new)
        with counted_flops() as counted:
            trainer.mean_loss(trainer.losses(trainer.model, step)[0]).backward()
        trainer.carried.rewind()
        counts.append((new, counted.get_total_flops()))
    assert [new for new, _ in counts] == [4, 1, 1, 2]
    for new, flops in counts:
        traced = trace_step(joint.config, args, on_cpu=True, new_windows=new)
        assert traced.flops == flops, new
    assert traced.sequential_flops == sequential_flops(trainer, step.batch.input_ids)
    assert traced.tokens == 4 * 8 and traced.num_frozen == sum(each.numel() for each in trainer.teacher.parameters())
    cpu = dataclasses.replace(HARDWARE["h100"], overlaps=False)  # whose kernels are those of a CPU
    cost = batch_cost(joint.config, args, cpu)[1]
    assert cost.flops == pytest.approx(sum(flops for _, flops in counts[1:]) / 3, rel=1e-12)


def test_a_size_that_no_machine_holds(tmp_path):
    args = arguments("smt", tmp_path)
    sizes = {"vocab_size": 50_000, "hidden_size": 8192, "num_attention_heads": 64, "num_encoder_layers": 3}
    traced = trace_step(tiny_config(**sizes), args)
    assert traced.num_parameters > 5e9 and traced.flops > 6 * 4 * 24 * 3 * 12 * 8192**2


def test_what_is_held_at_once():
    meter = Meter()
    with Metered(meter):
        first = torch.empty(1000, device="meta")  # 4,000 bytes
        second = first + 1
        assert meter.held == 8000
        view = second[:10]
        del second
        assert meter.held == 8000  # the view holds it
        del view
        assert meter.held == 4000
        first.add_(1)
    assert meter.held == 4000 and meter.peak == (8000, 0) and meter.num_kernels == 2


def test_attention_in_a_fused_kernel_holds_no_weights():
    """Bytes that are kept for the backward pass: queries, keys, values, outputs and a sum a query."""
    meter, shape = Meter(), (2, 3, 50, 8)
    given = [torch.empty(shape, device="meta", requires_grad=True) for _ in range(3)]
    with Metered(meter), Kernels(meter, autocast=False):
        output = torch.nn.functional.scaled_dot_product_attention(*given)
        size = 4 * output.numel()
        assert meter.held == size + 4 * 2 * 3 * 50
        assert meter.flops == 2 * 2 * output.numel() * 50
        output.sum().backward()
    assert meter.flops == 6 * 2 * 2 * 3 * 50 * 50 * 8


def test_autocast_halves_what_layers_keep():
    layer = torch.nn.Linear(64, 64, bias=False, device="meta")
    held = []
    for autocast in (False, True):
        meter = Meter()
        with Metered(meter), Kernels(meter, autocast):
            layer(torch.empty(100, 64, device="meta")).square().sum().backward()
        held.append(meter.peak[0])
        assert any(narrow for _, _, narrow in meter.kernels) == autocast
    assert held[1] < held[0]
