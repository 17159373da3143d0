"""Two nodes of one process each, as two launchers on this machine: trained, killed, and gone on with."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from .test_processes import ENVIRONMENT, losses

CONFIG = Path(__file__).parents[2] / "configs" / "accelerate" / "two_cpu_processes.yaml"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def launch(words, log):
    """One launcher a node."""
    port = free_port()
    nodes = []
    for rank in range(2):
        launcher = [
            sys.executable,
            "-m",
            "accelerate.commands.launch",
            "--config_file",
            str(CONFIG),
            "--num_machines",
            "2",
        ]
        launcher += ["--machine_rank", str(rank), "--main_process_ip", "127.0.0.1", "--main_process_port", str(port)]
        nodes.append(
            subprocess.Popen(
                [*launcher, "-m", "smt_hf", *words],
                env={**ENVIRONMENT, "GLOO_SOCKET_IFNAME": "lo"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that a node dies whole
            )
        )
    return nodes


def finish(nodes, log):
    for node in nodes:
        assert node.wait(300) == 0, Path(log.name).read_text()[-3000:]


def test_two_nodes_killed_and_resumed_equal_uninterrupted(recipes, stories, tmp_path):
    words = [
        "bptt",
        "--config",
        str(recipes["bptt"]),
        "--carry_memory",
        "true",
        "--streaming",
        "true",
        "--max_steps",
        "12",
    ]
    words += ["--save_strategy", "steps", "--save_steps", "3", "--per_device_train_batch_size", "2"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    with (tmp_path / "log").open("w") as log:
        finish(launch([*words, "--output_dir", str(whole)], log), log)
        nodes = launch([*words, "--output_dir", str(broken)], log)
        deadline = time.monotonic() + 200
        while not (broken / "checkpoint-3" / "trainer_state.json").exists():
            assert all(node.poll() is None for node in nodes) and time.monotonic() < deadline
            time.sleep(0.005)
        for node in nodes:
            os.killpg(node.pid, signal.SIGKILL)
            node.wait()
        assert not (broken / "model.safetensors").exists()
        finish(launch([*words, "--output_dir", str(broken), "--resume", "true"], log), log)
    assert len(losses(whole)) == 12
    for name in ("loss", "grad_norm"):
        assert losses(broken, name) == losses(whole, name)
    assert (broken / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
