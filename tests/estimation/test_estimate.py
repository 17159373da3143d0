"""Memory, time and cost from a trace, by hand."""

import dataclasses

import pytest

from smt_hf.estimation import HARDWARE, Hardware, estimate, measure_cpu, trace_step
from smt_hf.estimation.estimates import batch_cost, changed, traced_cost
from smt_hf.training.optimizers import hidden_matrices
from tests.conftest import tiny_config, tiny_model

from .test_trace import arguments

SLOW = Hardware("slow", 1e9, 2e9, 1e9, 1e9, kernel_seconds=0.0, link=1e6, network=1e5)
CONFIG = tiny_config(vocab_size=258)


def test_memory_by_part(tmp_path):
    args = arguments("smt", tmp_path)
    trace, found = trace_step(CONFIG, args), estimate(CONFIG, args, SLOW)
    number = trace.num_parameters
    assert found.parameters == {"trained": number}
    assert (found.memory["weights"], found.memory["optimiser"]) == (4 * number, 8 * number)
    assert found.memory["activations"] + found.memory["gradients"] == trace.activation_bytes + trace.gradient_bytes
    assert estimate(CONFIG, args, SLOW, processes=2).memory["buckets of DistributedDataParallel"] == 4 * number
    assert found.fits and not estimate(CONFIG, args, dataclasses.replace(SLOW, memory=1e5)).fits
    muon = estimate(CONFIG, arguments("smt", tmp_path, muon=True), SLOW).memory["optimiser"]
    matrices = sum(each.numel() for each in hidden_matrices(tiny_model(vocab_size=258)))
    assert muon == 8 * number - 4 * matrices
    frozen = estimate(CONFIG, arguments("dmt", tmp_path), SLOW)
    assert frozen.memory["weights"] == 4 * sum(frozen.parameters.values()) and "frozen teacher" in frozen.parameters


def test_time_of_a_step(tmp_path):
    args = arguments("smt", tmp_path, gradient_accumulation_steps=3)
    trace = trace_step(CONFIG, args)
    device = sum(max(flops / 1e9, moved / 1e9) * number for (flops, moved, _), number in trace.kernels.items())
    assert estimate(CONFIG, args, SLOW).seconds["forward and backward"] == pytest.approx(3 * device)
    host = dataclasses.replace(SLOW, kernel_seconds=1.0)
    assert estimate(CONFIG, args, host).seconds["forward and backward"] == pytest.approx(3 * trace.num_kernels)
    cpu = dataclasses.replace(host, overlaps=False)
    assert estimate(CONFIG, args, cpu).seconds["forward and backward"] > 3 * trace.num_kernels / 2


def test_time_of_moving_bytes():
    assert SLOW.moving_time(3_000_000) == 3e-3
    cpu = dataclasses.replace(SLOW, moves=((1000, 1e-6), (3000, 2e-6), (10_000, 1e-4)))
    times = [cpu.moving_time(moved) for moved in (0, 500, 1000, 2000, 10_000, 30_000)]
    assert times == pytest.approx([0.0, 0.5e-6, 1e-6, 1.5e-6, 1e-4, 3e-4])
    assert cpu.kernel_time(5000, 2000, narrow=False) == pytest.approx(5e-6)  # the products take longer
    assert cpu.kernel_time(1000, 30_000, narrow=False) == pytest.approx(3e-4)


def test_measured_machine():
    cpu = measure_cpu()
    sizes, seconds = zip(*cpu.moves, strict=True)
    assert sizes == tuple(sorted(sizes)) and min(seconds) >= 0 and not cpu.overlaps
    assert cpu.moving_time(2 * sizes[-1]) == pytest.approx(2 * seconds[-1])


def test_waiting_for_other_processes(tmp_path):
    args = arguments("smt", tmp_path)
    alone, two, nine = (estimate(CONFIG, args, SLOW, processes) for processes in (1, 2, 9))
    backward = 2 / 3 * alone.seconds["forward and backward"]
    sent = 4 * alone.parameters["trained"]
    assert alone.seconds["waiting for other processes"] == 0
    assert two.seconds["waiting for other processes"] == pytest.approx(max(0, sent / 1e6 - backward))
    assert nine.seconds["waiting for other processes"] == pytest.approx(2 * 8 / 9 * sent / 1e5 - backward)  # two nodes
    assert (two.tokens, two.flops) == (2 * alone.tokens, 2 * alone.flops)


def test_hours_and_cost(tmp_path):
    args = arguments("bptt", tmp_path, max_steps=7200)
    found = estimate(CONFIG.student_config, args, SLOW, processes=2, price=3.0)
    assert found.hours == pytest.approx(2 * found.seconds_per_step) and found.cost == pytest.approx(
        2 * 3 * found.hours
    )
    assert estimate(CONFIG.student_config, args, SLOW).cost is None
    timed = estimate(CONFIG.student_config, arguments("bptt", tmp_path, max_train_seconds=5.0), SLOW)
    assert timed.steps is timed.hours is None


def test_long_windows_and_sweeps_are_interpolated_exactly(tmp_path, monkeypatch):
    monkeypatch.setattr("smt_hf.estimation.estimates.LONG_WINDOW", 32)
    for kind, more in (
        ("bptt", {"context_length": 40}),
        ("bptt", {"context_length": 40, "bptt_horizon": 8, "checkpoint_steps": 4}),
        ("dmt", {"num_sweeps": [1, 2, 3]}),
    ):
        args, config = arguments(kind, tmp_path, **more), CONFIG if kind == "dmt" else CONFIG.student_config
        whole = traced_cost(config, changed(args, num_sweeps=[2]) if kind == "dmt" else args, SLOW)[1]
        found = batch_cost(config, args, SLOW)[1]
        for name in ("flops", "kernels", "bytes_moved", "device_seconds"):
            assert getattr(found, name) == pytest.approx(getattr(whole, name), rel=1e-9), (kind, name)
        assert found.activation_bytes == pytest.approx(whole.activation_bytes, rel=0.02)


def test_parallelism(tmp_path):
    found = estimate(CONFIG, arguments("smt", tmp_path), HARDWARE["h100"]).parallel
    assert set(found) == {"data", "tensor", "pipeline"}
    assert "the host takes longer to start kernels" in found["data"]
    busy = estimate(CONFIG, arguments("smt", tmp_path), dataclasses.replace(SLOW, link=1e12)).parallel
    assert (
        busy["data"] == "shortens a step up to 4 processes with as many rows in total: then every process has one row"
    )
