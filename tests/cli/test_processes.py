"""Runs in processes of their own: two against one, killed and resumed against uninterrupted."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def losses(folder, name="loss"):
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry[name] for entry in history if name in entry]


@pytest.mark.parametrize("stage", ["smt", "dmt", "bptt"])
def test_two_processes_equal_one(stage, recipes, smt_run, tmp_path):
    words = ["-m", "smt_hf", stage, "--config", str(recipes[stage])]
    words += {"dmt": ["--model", str(smt_run)], "bptt": ["--carry_memory", "true"]}.get(stage, [])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for folder, prefix, size in (("one", [sys.executable], 4), ("two", torchrun, 2)):
        command = [*prefix, *words, "--output_dir", str(tmp_path / folder), "--per_device_train_batch_size", str(size)]
        subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, timeout=300)
    for name in ("loss", "dynamics", "readout", "grad_norm"):
        assert losses(tmp_path / "two", name) == pytest.approx(losses(tmp_path / "one", name), rel=2e-4), name
    assert len(losses(tmp_path / "two")) == 4


@pytest.mark.parametrize("stage", ["smt", "dmt"])
def test_killed_and_resumed_equals_uninterrupted(stage, recipes, smt_run, tmp_path):
    words = [sys.executable, "-m", "smt_hf", stage, "--config", str(recipes[stage])]
    words += ["--model", str(smt_run)] if stage == "dmt" else []
    words += ["--max_steps", "30", "--save_strategy", "steps", "--save_steps", "4", "--muon", "true"]
    words += ["--uniformity_weight", "0.1"] if stage == "smt" else []
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run([*words, "--output_dir", str(whole)], env=ENVIRONMENT, check=True, capture_output=True, timeout=300)

    run = subprocess.Popen(
        [*words, "--output_dir", str(broken)], env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (broken / "checkpoint-8" / "trainer_state.json").exists():
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not (broken / "model.safetensors").exists()

    subprocess.run(
        [*words, "--output_dir", str(broken), "--resume", "true"],
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
        timeout=300,
    )
    for name in ("loss", "grad_norm", "readout"):
        assert losses(broken, name) == losses(whole, name), name
