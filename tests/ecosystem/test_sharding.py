"""A student whose weights are shared out among processes (FSDP2) is the same student."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from smt_hf import SmtRnnConfig, SmtRnnForCausalLM


def test_two_processes_share_out_a_student(tmp_path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_memory_tokens": 3, "num_updater_layers": 2, "num_readout_layers": 1}
    config = SmtRnnConfig(vocab_size=20, num_attention_heads=4, initializer_range=0.3, **sizes)
    tokens = torch.randint(20, (2, 8), generator=torch.Generator().manual_seed(1))
    SmtRnnForCausalLM(config).eval().read(tokens).save_pretrained(tmp_path)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(Path(__file__).with_name("sharded_memory.py")), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.stdout.count("sharded") == 2, run.stderr[-2000:]
